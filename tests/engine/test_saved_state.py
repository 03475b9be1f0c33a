from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_loop import Tensors, copied, differing, mse, named_tensors, small_net
from reach import as_scenario, loop_of, tensors
from torch import Tensor, nn, optim

from autograd_tui.cli import main
from autograd_tui.engine.errors import Refused
from autograd_tui.engine.session import Session
from autograd_tui.open import open_session

MAKE: dict[str, Any] = {
    "sgd,lr=0.1": partial(optim.SGD, lr=0.1),
    "sgd,lr=0.01,momentum=0.9": partial(optim.SGD, lr=0.01, momentum=0.9),
    "adam,lr=0.01": partial(optim.Adam, lr=0.01),
    "adamw,lr=0.01": partial(optim.AdamW, lr=0.01),
    "adafactor,lr=0.01": partial(optim.Adafactor, lr=0.01),
    "rprop,lr=0.01": partial(optim.Rprop, lr=0.01),
    "nadam,lr=0.01": partial(optim.NAdam, lr=0.01),
}
ADAM, MOMENTUM = "adam,lr=0.01", "sgd,lr=0.01,momentum=0.9"


class Plain:
    """The plain loop on the small net, which can be saved and gone on with."""

    def __init__(self, spelling: str, *, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model, self.batch = small_net(seed)
        self.model.train()
        self.optimizer = MAKE[spelling](self.model.parameters())

    def run(self, iterations: int) -> Tensors:
        loss: Tensor | None = None
        for i in range(iterations):
            self.optimizer.zero_grad()
            inputs, targets = self.batch(i)
            loss = mse(self.model(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        return copied(named_tensors(self.model, self.optimizer, loss, torch.get_rng_state()))

    @property
    def state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}


@pytest.fixture(autouse=True)
def _own_random_numbers() -> Iterator[None]:
    before = torch.get_rng_state()
    yield
    torch.set_rng_state(before)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.pth"


def opened(path: Path, spelling: str, **options: Any) -> Session:
    return open_session(as_scenario(small_net, optimizer=spelling), state=str(path), **options)


def refusal(path: Path, spelling: str = ADAM, **options: Any) -> str:
    with pytest.raises(Refused) as caught:
        opened(path, spelling, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "state.pth")


@pytest.mark.parametrize("spelling", MAKE)
def test_it_goes_on_as_the_plain_script_that_loads_it(spelling: str, path: Path) -> None:
    earlier = Plain(spelling, seed=7)
    earlier.run(5)
    torch.save(earlier.state, path)
    plain = Plain(spelling, seed=3)
    saved = torch.load(path, weights_only=True)
    plain.model.load_state_dict(saved["model"])
    plain.optimizer.load_state_dict(saved["optimizer"])
    session = opened(path, spelling, seed=3)
    for _ in session.run_all("fbsz*4 fbs"):
        pass
    assert differing(tensors(session), plain.run(5)) == []


@pytest.mark.parametrize("spelling", [MOMENTUM, ADAM])
def test_frame_0_can_be_gone_back_to(spelling: str, path: Path) -> None:
    earlier = Plain(spelling)
    earlier.run(3)
    torch.save(earlier.state, path)
    session = opened(path, spelling)
    before = copied({name: each for name, each in tensors(session).items() if name != "loss"})
    for _ in session.run_all("fbsz*3 @0"):
        pass
    assert differing({name: each for name, each in tensors(session).items() if name != "loss"}, before) == []


def test_the_state_is_there_in_frame_0(path: Path) -> None:
    earlier = Plain(ADAM)
    earlier.run(3)
    torch.save(earlier.state, path)
    frame = opened(path, ADAM).frame
    assert {row.name for row in frame.optimizer_state} >= {"0.weight.exp_avg", "0.weight.step"}


def test_the_settings_are_the_files(path: Path) -> None:
    earlier = Plain(MOMENTUM)
    earlier.optimizer.param_groups[0]["lr"] = 0.25
    torch.save(earlier.state, path)
    frame = opened(path, "sgd,lr=0.5").frame
    assert (frame.optimizer, frame.learning_rate) == ("sgd,momentum=0.9", 0.25)


@pytest.mark.parametrize(
    "names", [("model", "optimizer"), ("model_state_dict", "optimizer_state_dict"), ("state_dict", "optimizer")]
)
def test_the_usual_names_are_understood(names: tuple[str, str], path: Path) -> None:
    earlier = Plain(ADAM, seed=7)
    earlier.run(2)
    torch.save(dict(zip(names, earlier.state.values(), strict=True)) | {"epoch": 3}, path)
    session = opened(path, ADAM)
    assert torch.equal(loop_of(session).params["0.weight"], earlier.model.get_parameter("0.weight"))
    assert len(loop_of(session).optimizer.state) == 6


def test_a_state_dict_alone_is_the_models(path: Path) -> None:
    earlier = Plain(ADAM, seed=7)
    torch.save(earlier.model.state_dict(), path)
    session = opened(path, ADAM)
    assert torch.equal(loop_of(session).params["0.weight"], earlier.model.get_parameter("0.weight"))
    assert len(loop_of(session).optimizer.state) == 0


def test_the_command_line_that_repeats_the_run_names_it(path: Path) -> None:
    torch.save(Plain(ADAM).state, path)
    assert opened(path, ADAM).about.command_line == f"autograd-tui small_net --state {path}"


def test_training_leaves_the_file_as_it_is(path: Path) -> None:
    earlier = Plain(ADAM)
    earlier.run(2)
    torch.save(earlier.state, path)
    before = path.read_bytes()
    for _ in opened(path, ADAM).run_all("fbsz*3"):
        pass
    assert path.read_bytes() == before


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_malicious_file_runs(path: Path) -> None:
    torch.save(Plain(ADAM).state | {"extra": Evil(path.parent / "ran")}, path)
    assert refusal(path) == "state.pth holds more than tensors, posix.mkdir: it is refused, and nothing in it has run."
    assert not (path.parent / "ran").exists()


def test_a_file_cut_anywhere_is_refused(path: Path) -> None:
    torch.save(Plain(ADAM).state, path)
    content = path.read_bytes()
    for end in range(0, len(content), 97):
        path.write_bytes(content[:end])
        assert refusal(path) == "state.pth is no file of tensors, or it is damaged or cut short."


def trained(spelling: str) -> dict[str, Any]:
    plain = Plain(spelling)
    plain.run(1)
    return plain.state


def other_shape() -> dict[str, Any]:
    state = trained(ADAM)
    state["optimizer"]["state"][0]["exp_avg"] = torch.ones(7)
    return state


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            trained(MOMENTUM),
            "state.pth does not fit the optimizer adam: it is of one that has momentum, which --optimizer may name.",
        ),
        (
            trained(ADAM) | {"optimizer": optim.Adam(nn.Linear(1, 1).parameters()).state_dict()},
            "state.pth does not fit the optimizer adam: it is of 2 parameters, and here are 6.",
        ),
        (
            other_shape(),
            "state.pth does not fit the optimizer adam: its exp_avg has shape (7,), for a parameter of shape (32, 4).",
        ),
        (
            trained(ADAM) | {"optimizer": [1]},
            "state.pth holds no state of an optimizer where it says so: that is a dict of state, groups.",
        ),
        (
            {"model": nn.Linear(4, 32).state_dict()},
            "state.pth does not fit this model: 9 missing (0.weight, 0.bias, 1.weight, ...);"
            " 2 unexpected (weight, bias).",
        ),
        (
            {"optimizer": trained(ADAM)["optimizer"]},
            "state.pth holds no state of a model: neither tensors by name, nor a dict of them as model,"
            " model_state_dict, state_dict.",
        ),
        (OrderedDict(), None),
        (3, None),
        (torch.ones(3), None),
    ],
)
def test_what_does_not_fit_is_one_sentence(content: Any, sentence: str | None, path: Path) -> None:
    torch.save(content, path)
    said = refusal(path)
    assert said == sentence or (sentence is None and said.startswith("state.pth holds no state of a model"))


def test_a_file_that_is_not_there_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, stdout = tmp_path / "missing.pth", os.dup(1)
    try:
        code = main(["linear", "--state", str(path), "--headless", "--do", "f"])
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
    sentence = f"autograd-tui: {path} cannot be read: No such file or directory.\n"
    assert (code, capsys.readouterr().err) == (2, sentence)
