"""--state: what a model and its optimizer begin with comes from a file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autograd_tui.core.errors import Refused
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from plain_loop import Tensors, copied, differing, mse, named_tensors, small_net
from program import Run
from session_internals import as_scenario, state_of, tensors
from tensor_files import Malicious, cut, save

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd,lr=0.1,momentum=0.9": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
    "adam,lr=0.01": lambda params: torch.optim.Adam(params, lr=0.01),
}


def plainly(make: Callable[[Any], torch.optim.Optimizer], *, iterations: int, saved: Any = None) -> tuple[Any, Tensors]:
    """Run the plain loop from `saved`; give what a script would save at its end, and every tensor."""
    torch.manual_seed(0)
    model, batch = small_net(0)
    optimizer = make(model.parameters())
    if saved is not None:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
    loss = None
    for i in range(iterations):
        inputs, targets = batch(i)
        loss = mse(model.train()(inputs), targets)
        loss.backward()
        optimizer.step()
        if i < iterations - 1:
            optimizer.zero_grad()
    seen = copied(named_tensors(model, optimizer, loss, torch.get_rng_state()))
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, seen


@pytest.fixture(params=OPTIMIZERS)
def spelling(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def after_three(spelling: str) -> Any:
    return plainly(OPTIMIZERS[spelling], iterations=3)[0]


def opened(path: str, spelling: str, **options: Any) -> Session:
    return open_session(as_scenario(small_net, optimizer=spelling), state=path, device="cpu", **options)


def refusal(path: str, spelling: str = "sgd,lr=0.1,momentum=0.9") -> str:
    with pytest.raises(Refused) as caught:
        opened(path, spelling)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def run(session: Session, words: str) -> Session:
    for frame in session.run_all(words):
        assert frame.error is None
    return session


def test_training_goes_on_as_in_the_script_that_loads_it(tmp_path: Path, spelling: str) -> None:
    path = save(tmp_path / "state.pth", after_three(spelling))
    _, expected = plainly(OPTIMIZERS[spelling], iterations=4, saved=torch.load(path, weights_only=True))
    assert not differing(tensors(run(opened(path, spelling), "fbsz*3 fbs")), expected)


def test_going_back_without_checkpoints_begins_with_the_state_again(tmp_path: Path, spelling: str) -> None:
    path = save(tmp_path / "state.pth", after_three(spelling))
    session = opened(path, spelling, memory=0)
    assert len(session._replayer.checkpoints) == 0
    expected = copied(tensors(run(session, "fbs")))
    Path(path).unlink()
    run(session, "z fbsz*2")
    session.rewind(3)
    assert not differing(tensors(session), expected)


def test_frame_0_shows_the_state(tmp_path: Path) -> None:
    spelling = "sgd,lr=0.1,momentum=0.9"
    frame = opened(save(tmp_path / "state.pth", after_three(spelling)), spelling).frame
    assert [row.name for row in frame.optimizer_state][:1] == ["0.weight.momentum_buffer"]


@pytest.mark.parametrize("names", [("model_state_dict", "optimizer_state_dict"), ("state_dict", "optimizer")])
def test_usual_names_are_understood(tmp_path: Path, names: tuple[str, str]) -> None:
    saved = after_three("adam,lr=0.01")
    path = save(tmp_path / "state.pt", {names[0]: saved["model"], names[1]: saved["optimizer"], "epoch": 3})
    assert state_of(opened(path, "adam,lr=0.01")).optimizer.state


def test_a_bare_state_dict_is_the_models(tmp_path: Path) -> None:
    saved = after_three("adam,lr=0.01")
    state = state_of(opened(save(tmp_path / "state.pt", saved["model"]), "adam,lr=0.01"))
    assert not state.optimizer.state
    assert torch.equal(state.params["0.weight"], saved["model"]["0.weight"])


def test_the_files_options_of_the_optimizer_hold(tmp_path: Path) -> None:
    saved = plainly(lambda params: torch.optim.SGD(params, lr=0.3, momentum=0.5), iterations=1)[0]
    frame = opened(save(tmp_path / "state.pth", saved), "sgd,lr=0.1").frame
    assert (frame.learning_rate, frame.optimizer) == (0.3, "sgd,momentum=0.5")


def test_a_learning_rate_that_is_asked_for_holds_nevertheless(tmp_path: Path) -> None:
    spelling = "sgd,lr=0.1,momentum=0.9"
    path = save(tmp_path / "state.pth", after_three(spelling))
    assert opened(path, spelling, lr=0.7).frame.learning_rate == 0.7


def test_the_command_line_names_the_file(tmp_path: Path) -> None:
    path = save(tmp_path / "state.pth", open_model_state())
    assert open_session("linear", state=path).about.command_line == f"autograd-tui linear --state {path}"


def open_model_state() -> dict[str, torch.Tensor]:
    return {"w": torch.tensor([5.0]), "b": torch.tensor([7.0])}


def test_the_line_begins_where_the_file_says(run: Run, tmp_path: Path) -> None:
    path = save(tmp_path / "state.pth", open_model_state())
    assert run("linear", "--state", path, "--headless", "--do", "f").code == 0


# What cannot be.


def damaged(kind: str, folder: Path) -> str:
    path, saved = folder / "state.pth", after_three("sgd,lr=0.1,momentum=0.9")
    model, optimizer = saved["model"], saved["optimizer"]
    if kind == "cut":
        return cut(save(path, saved))
    if kind == "empty":
        path.write_bytes(b"")
        return str(path)
    if kind == "a folder":
        return str(folder)
    if kind == "malicious":
        return save(path, {"model": model, "optimizer": Malicious(folder / "ran")})
    values = {
        "a list": [1, 2],
        "numbers": {"a": 1},
        "no dict inside": {"model": 3},
        "a whole model": {"model": nn.Linear(1, 1)},
        "names that are numbers": {"model": {1: torch.zeros(1)}},
        "another model": nn.Linear(2, 2).state_dict(),
        "another shape": {**model, "0.bias": torch.zeros(7)},
        "no tensor": {**model, "0.bias": "bias"},
        "another optimizer": {"model": model, "optimizer": after_three("adam,lr=0.01")["optimizer"]},
        "no groups left": {"model": model, "optimizer": {"state": {}, "param_groups": []}},
        "a group of fewer": {"model": model, "optimizer": {"state": {}, "param_groups": [{"params": [0]}]}},
        "a state in words": {"model": model, "optimizer": {**optimizer, "state": {0: "moments"}}},
        "sparse": {**model, "0.bias": torch.zeros(32).to_sparse()},
        "complex": {**model, "0.bias": torch.zeros(32, dtype=torch.complex64)},
        "without values": {**model, "0.bias": torch.zeros(32, device="meta")},
        "complex moments": {"model": model, "optimizer": _remembering(optimizer, torch.zeros(32) * 1j)},
        "moments as numbers": {"model": model, "optimizer": _remembering(optimizer, 0.5)},
        "moments in words": {"model": model, "optimizer": _remembering(optimizer, "moments")},
        "no groups": {"model": model, "optimizer": {"state": {}}},
        "moments of another shape": {
            "model": model,
            "optimizer": {**optimizer, "state": {0: {"momentum_buffer": torch.zeros(5)}}},
        },
        "a learning rate in words": {
            "model": model,
            "optimizer": {**optimizer, "param_groups": [{**optimizer["param_groups"][0], "lr": "fast"}]},
        },
    }
    return save(path, values[kind])


def _remembering(optimizer: dict[str, Any], moment: object) -> dict[str, Any]:
    """Put something in the place of what is remembered of the second parameter, 0.bias."""
    return {**optimizer, "state": {**optimizer["state"], 1: {"momentum_buffer": moment}}}


SENTENCES = {
    "cut": "is cut short, damaged, or not what torch.save",
    "empty": "is cut short, damaged, or not what torch.save",
    "a folder": "could not be read: it is a folder, and no file.",
    "malicious": "mkdir, which is neither a tensor nor a plain value: nothing in it was run.",
    "a list": "holds a value of type list, and no state dict.",
    "numbers": "holds no state dict, neither bare nor as one of model,",
    "no dict inside": "holds a value of type int as model, and no state dict.",
    "a whole model": "Linear, which is neither a tensor nor a plain value: nothing in it was run.",
    "names that are numbers": "holds no state dict",
    "another model": "8 missing (0.weight, 0.bias, 1.weight, …); 2 unexpected (weight, bias).",
    "another shape": "1 of another shape (0.bias (7,) in place of (32,)).",
    "no tensor": "1 no tensors (0.bias).",
    "another optimizer": "is from another optimizer than SGD: it has no momentum, dampening",
    "no groups left": "does not fit the optimizer: its groups hold no parameters in place of 6.",
    "a group of fewer": "does not fit the optimizer: its groups hold 1 parameters in place of 6.",
    "no groups": "holds no state dict of an optimizer: that has state and param_groups.",
    "a state in words": "holds no state dict of an optimizer: that has state and param_groups.",
    "sparse": "does not fit the model: 1 of another kind (0.bias sparse).",
    "complex": "does not fit the model: 1 of another kind (0.bias complex).",
    "without values": "does not fit the model: 1 of another kind (0.bias without values).",
    "complex moments": "does not fit SGD: momentum_buffer of 0.bias is complex.",
    "moments in words": "does not fit SGD: momentum_buffer of 0.bias is a value of type str.",
    "moments of another shape": "does not fit SGD: momentum_buffer of 0.weight has shape (5,).",
    "moments as numbers": "does not fit SGD: momentum_buffer of 0.bias is a value of type float.",
    "a learning rate in words": "does not fit SGD: its lr is a value of type str.",
}


@pytest.mark.parametrize("kind", SENTENCES)
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path: Path, kind: str) -> None:
    assert SENTENCES[kind] in refusal(damaged(kind, tmp_path))


def test_a_state_without_what_its_optimizer_counts_is_refused(tmp_path: Path) -> None:
    saved = after_three("adam,lr=0.01")
    del saved["optimizer"]["state"][0]["step"]
    said = refusal(save(tmp_path / "state.pth", saved), "adam,lr=0.01")
    assert said.endswith("does not fit Adam: it lacks 'step'.")


def test_a_step_that_is_a_number_is_read_as_in_older_files(tmp_path: Path) -> None:
    saved = after_three("adam,lr=0.01")
    for remembered in saved["optimizer"]["state"].values():
        remembered["step"] = 3
    session = opened(save(tmp_path / "state.pth", saved), "adam,lr=0.01")
    assert run(session, "fbs").frame.error is None


def test_nothing_in_a_malicious_file_is_run(tmp_path: Path) -> None:
    refusal(damaged("malicious", tmp_path))
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_missing_ends_the_program_with_one_sentence(run: Run, tmp_path: Path) -> None:
    done = run("linear", "--state", str(tmp_path / "no.pth"), "--headless", "--do", "f")
    assert (done.code, done.out, len(done.err)) == (2, [], 1)
    assert done.err[0].endswith('no.pth" could not be read: No such file or directory.')


def test_an_empty_name_is_that_of_no_state() -> None:
    with pytest.raises(Refused, match=r"^--state needs a file's name, and none was given.$"):
        opened("", "adam")


def test_safetensors_are_read_too(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(open_model_state(), tmp_path / "line.safetensors")
    session = open_session("linear", state=str(tmp_path / "line.safetensors"))
    assert state_of(session).params["w"].tolist() == [5.0]


def test_what_reads_safetensors_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    (tmp_path / "line.safetensors").write_bytes(b"")
    assert refusal(str(tmp_path / "line.safetensors")).endswith(
        "needs the package safetensors: pip install safetensors."
    )
