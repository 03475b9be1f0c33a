"""What a scenario gives or changes while it runs, and that no frame can hold: an error in the frame, all as before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from autograd_tui.core.errors import Refused
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.scenario import Options, Parts, Scenario
from autograd_tui.export.formats import export_repro

Change = Callable[[nn.Linear], Any]


class Net(nn.Linear):
    """Does something to itself while `does` says what."""

    does: Change | None = None

    def __init__(self) -> None:
        super().__init__(2, 1)
        self.spare = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        if self.does is not None:
            self.does(self)
        return super().forward(x)


@pytest.fixture
def odd_steps() -> Iterator[list[Callable[[Any], Any]]]:
    """Give a list of what every optimizer's step does at its end."""
    changes: list[Callable[[Any], Any]] = []
    hook = register_optimizer_step_post_hook(lambda optimizer, *_: [change(optimizer) for change in changes])  # type: ignore[arg-type]
    yield changes
    hook.remove()


def opened(**parts: Any) -> Session:
    x, y = torch.ones(4, 2), torch.zeros(4, 1)

    def build(options: Options) -> Parts:
        usual: dict[str, Any] = {"model": Net(), "batch": lambda i: (x, y), "loss": nn.functional.mse_loss}
        return Parts(**usual | parts)

    return open_session(Scenario("mine", build), device="cpu", optimizer="sgd,lr=0.1,momentum=0.9")


def model_of(session: Session) -> Net:
    model = session._trainer.state.model
    assert isinstance(model, Net)
    return model


def goes_on_as_ever(session: Session) -> None:
    """Assert that what comes next is what comes next in a run in which nothing odd has happened."""
    usual = opened()
    list(usual.run_all("fbsz"))
    for name in "fbsz":
        frame, wanted = session.run(name), usual.run(name)
        assert frame.error is None
        assert (frame.loss, frame.params, frame.grads) == (wanted.loss, wanted.params, wanted.grads)


RESIZED: list[Change] = [
    lambda model: setattr(model.spare, "data", torch.ones(2, 2)),
    lambda model: setattr(model.weight, "data", torch.ones(3, 3)),
    lambda model: model.spare.requires_grad_(False).resize_(5).requires_grad_(),  # type: ignore[operator]
]


@pytest.mark.parametrize("change", RESIZED)
def test_a_parameter_that_a_forward_resizes_is_an_error_and_as_it_was(change: Change) -> None:
    session = opened()
    list(session.run_all("fbsz"))
    Net.does = staticmethod(change)
    try:
        error = session.run("F").error
    finally:
        Net.does = None
    assert error is not None
    assert error.message.endswith("a parameter that is trained keeps its shape.")
    goes_on_as_ever(session)


def test_a_parameter_that_is_resized_during_a_free_run_ends_it_with_that_error() -> None:
    session = opened()

    def change(model: Any) -> None:
        model.spare.data = torch.ones(5)

    list(session.run_all("fbsz*2"))
    Net.does = staticmethod(change)
    try:
        *_, frame = session.run_free(session.end_of(20), lambda: False)
    finally:
        Net.does = None
    assert frame.error is not None
    assert (
        frame.error.message
        == "spare has shape (5,) now, in place of (2,): a parameter that is trained keeps its shape."
    )


def given_back(tensor: Any) -> None:
    """Give a tensor's memory back behind PyTorch: it has a shape, and no values any more."""
    tensor.untyped_storage().resize_(0)


def gives_grad_back(model: Net) -> None:
    """Have the next backward give the memory of a gradient back."""

    def hook(param: Tensor) -> None:
        given_back(param.grad)
        handle.remove()

    handle = model.spare.register_post_accumulate_grad_hook(hook)


GIVEN_BACK: dict[str, tuple[Change, str]] = {
    "spare": (lambda model: given_back(model.spare), "F"),
    "spare.grad": (gives_grad_back, "F B"),  # type: ignore[dict-item]
    "counted": (lambda model: given_back(model.counted), "F"),
    "the loss": (lambda model: setattr(model, "gives_back", "loss"), "F"),
    "the prediction": (lambda model: setattr(model, "gives_back", "prediction"), "F"),
    "the batch": (lambda model: setattr(model, "gives_back", "batch"), "F"),
}


@pytest.mark.parametrize("name", GIVEN_BACK)
def test_what_has_no_values_any_more_is_an_error_and_as_it_was(name: str) -> None:
    """PyTorch ends the whole program where it reads them."""
    change, phases = GIVEN_BACK[name]
    x, y = torch.ones(4, 2), torch.zeros(4, 1)

    def forward(model: Net, batch: Any) -> Any:
        prediction = model.spare.sum() * 0 + model(batch[0])
        loss = nn.functional.mse_loss(prediction, batch[1])
        which = vars(model).pop("gives_back", None)
        if which is not None:
            loss, prediction = loss.clone(), prediction.clone()
            given_back({"loss": loss, "prediction": prediction, "batch": batch[1]}[which])
        return loss, prediction

    def built() -> Session:
        torch.manual_seed(0)
        model = Net()
        model.register_buffer("counted", torch.ones(3))
        return opened(model=model, loss=None, forward=forward, batch=lambda i: (x.clone(), y.clone()))

    session, usual = built(), built()
    list(session.run_all("fbsz f b"))
    Net.does = staticmethod(lambda model: (setattr(Net, "does", None), change(model)))  # type: ignore[func-returns-value]
    try:
        frames = [session.run(phase) for phase in phases.split()]
    finally:
        Net.does = None
    assert frames[-1].error is not None
    assert frames[-1].error.message == f"the memory of {name} was given back, and so it has no values any more."
    session.rewind(4)
    list(session.run_all("fbszfbsz"))
    list(usual.run_all("fbszfbszfbsz"))
    assert session.frame.params == usual.frame.params
    assert session.inspect("spare").value.norm is not None


@pytest.mark.parametrize("said", ["the memory of spare was", "the memory of weight.momentum_buffer was"])
def test_a_step_that_gives_memory_back_is_an_error_of_the_step(
    said: str, odd_steps: list[Callable[[Any], Any]]
) -> None:
    session = opened()
    list(session.run_all("fbszfb"))
    model = model_of(session)

    def change(optimizer: Any) -> None:
        given_back(optimizer.state[model.weight]["momentum_buffer"] if "momentum" in said else model.spare)

    odd_steps.append(change)
    error = session.run("s").error
    odd_steps.clear()
    assert error is not None
    assert said in error.message
    session.rewind(session.frame.index - 1)
    frame, usual = session.run("s"), opened()
    list(usual.run_all("fbszfbs"))
    assert frame.error is None
    assert frame.params == usual.frame.params


STEPS: dict[str, Callable[[Any], Any]] = {
    "remembers a list_iterator as": lambda optimizer: next(iter(optimizer.state.values())).update(own=iter([])),
    "state of a parameter is a tuple now": lambda optimizer: optimizer.state.update(dict.fromkeys(optimizer.state, ())),
    "state is a list now": lambda optimizer: setattr(optimizer, "state", []),
    "learning rate is a str now": lambda optimizer: optimizer.param_groups[0].update(lr="fast"),
    "learning rate is a Tensor now": lambda optimizer: optimizer.param_groups[0].update(lr=torch.ones(2)),
    'option "own" is an object now': lambda optimizer: optimizer.param_groups[0].update(own=object()),
    "groups are not those": lambda optimizer: optimizer.add_param_group({"params": [torch.ones(1)]}),
    "groups are not those that": lambda optimizer: setattr(optimizer, "param_groups", 3),
}


@pytest.mark.parametrize("said", STEPS)
def test_what_cannot_be_put_back_in_an_optimizer_is_an_error_of_the_step(
    said: str, odd_steps: list[Callable[[Any], Any]]
) -> None:
    session = opened()
    list(session.run_all("fbsz fb"))
    odd_steps.append(STEPS[said])
    error = session.run("s").error
    odd_steps.clear()
    assert error is not None
    assert said in error.message
    session.rewind(4)
    goes_on_as_ever(session)


def test_a_number_or_text_that_an_optimizer_remembers_is_none_of_those(odd_steps: list[Callable[[Any], Any]]) -> None:
    session = opened()
    odd_steps.append(lambda optimizer: next(iter(optimizer.state.values())).update(count=3, kind="text", none=None))
    frame = list(session.run_all("fbs"))[-1]
    assert frame.error is None
    assert frame.optimizer_state.layout.names == ("weight.momentum_buffer", "weight.count", "bias.momentum_buffer")


def test_a_recorded_forward_that_raises_leaves_the_one_before_it_to_be_walked() -> None:
    session = opened()
    session.run("i:f")

    def change(model: nn.Linear) -> None:
        raise ValueError("mine")

    Net.does = staticmethod(change)
    try:
        assert session.run("i:F").error is not None
    finally:
        Net.does = None
    trace = session.run("i:b").trace
    assert trace is not None
    assert len(trace.ops) > 2
    assert trace.ops[0].name


def test_how_far_parameters_move_is_measured_also_where_they_have_become_another_dtype() -> None:
    session = opened()
    *_, before = session.run_all("fbsz")
    model_of(session).double()
    frame = session.run("bias=3")
    assert frame.moves is not None
    place = frame.params.layout.names.index("bias")
    assert [way for at, way in enumerate(frame.moves) if at != place] == [0, 0]
    before, now = before.params[place].values, frame.params[place].values
    assert frame.moves[place] == pytest.approx(abs(now[0] - before[0]))


class Jealous(Tensor):
    """A class of tensor in whose presence every function raises."""

    @classmethod
    def __torch_function__(cls, *_: Any, **__: Any) -> Any:
        raise TypeError("mine alone")


@pytest.mark.parametrize("lazy", [nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer])
def test_a_loss_that_has_no_shape_yet_is_an_error_of_the_forward(lazy: Callable[[], Tensor]) -> None:
    error = opened(loss=lambda prediction, target: lazy()).run("f").error
    assert error is not None
    assert "uninitialized" in error.message


def test_a_batch_that_was_made_in_inference_mode_is_read_like_any_other() -> None:
    with torch.inference_mode():
        batch = torch.ones(4, 2), torch.zeros(4, 1)
    session = opened(batch=lambda i: batch, loss=lambda prediction, target: prediction.mean())
    frames = list(session.run_all("F F"))
    assert [frame.error and frame.error.type for frame in frames] == ["RuntimeError"] * 2  # PyTorch's own, of a layer


def test_a_parameter_that_was_made_in_inference_mode_is_refused() -> None:
    model = Net()
    with torch.inference_mode():
        model.spare = nn.Parameter(torch.ones(2), requires_grad=False)
    with pytest.raises(Refused, match="spare was made in inference mode, in which nothing can be trained"):
        opened(model=model)


def test_a_checkpoint_can_be_taken_of_a_buffer_that_lets_nobody_use_it() -> None:
    session = opened()
    model_of(session).register_buffer("own", torch.ones(2).as_subclass(Jealous))
    assert session.run("f").error is None
    assert torch.equal(session.checkpoint().buffers["own"].as_subclass(Tensor), torch.ones(2))


def test_an_output_that_lets_nobody_use_it_is_measured_all_the_same() -> None:
    output = torch.tensor([3.0, 4.0]).as_subclass(Jealous)
    session = opened(loss=None, forward=lambda model, batch: (model(batch[0]).sum(), [output, output][0]))
    frame = session.run("f")
    assert frame.error is None or frame.error.message == "mine alone"


def test_an_attribute_that_cannot_be_looked_into_is_named_as_what_cannot_be_put_back() -> None:
    class Odd(list[int]):
        def __iter__(self) -> Iterator[int]:
            raise ValueError("not me")

    model = Net()
    model.odd = Odd([1])  # type: ignore[assignment]
    session = opened(model=model)
    assert session.run("f").error is None
    assert session.warning is not None
    assert "self.odd, which raises ValueError when it is looked into" in session.warning


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_quantized_tensor_among_the_attributes_does_not_end_the_program() -> None:
    model = Net()
    model.quantized = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    session = opened(model=model)
    list(session.run_all("fbszf"))
    assert not session.checkpoint().remembers


def test_a_batch_that_can_be_had_only_once_makes_no_repro(tmp_path: Path) -> None:
    calls: list[int] = []

    def batch(i: int) -> tuple[Tensor, Tensor]:
        calls.append(i)
        if len(calls) > 1:
            raise ValueError("once")
        return torch.ones(4, 2), torch.zeros(4, 1)

    session = opened(batch=batch)
    session.run("f")
    with pytest.raises(Refused, match="a repro holds its batches, and one cannot be had: ValueError: once"):
        export_repro(tmp_path / "case.pt", session)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_what_cannot_be_checked_of_a_traced_model_is_said_in_one_sentence() -> None:
    session = opened(model=torch.jit.trace(nn.Linear(2, 1), torch.ones(4, 2)))
    list(session.run_all("fb"))
    with pytest.raises(Refused, match="the loss reaches around the copy to the model itself"):
        session.check_gradient(2, "bias")


def test_a_batch_that_cannot_be_drawn_once_more_checks_nothing(tmp_path: Path) -> None:
    x, y, over = torch.ones(4, 2), torch.zeros(4, 1), tmp_path / "over"  # which going back does not take back

    def batch(number: int) -> tuple[Tensor, Tensor]:
        if over.exists():
            raise StopIteration("no more")
        return x, y

    session = opened(batch=batch)
    list(session.run_all("fb"))
    over.touch()
    with pytest.raises(Refused, match=r"the batch cannot be drawn once more: .*no more"):
        session.check_gradient(session.frame.index, "weight")


def test_a_batch_that_holds_itself_makes_a_repro_of_its_mark_alone(tmp_path: Path) -> None:
    x, y, over = torch.ones(4, 2), torch.zeros(4, 1), tmp_path / "over"  # which going back does not take back
    endless: list[Any] = [x, y]
    endless.append({"again": endless})
    session = opened(batch=lambda number: endless if over.exists() else (x, y))
    list(session.run_all("fb"))
    over.touch()
    export_repro(tmp_path / "case.pt", session)
    assert torch.load(tmp_path / "case.pt", weights_only=True)["batches"] is None


def test_of_what_an_optimizer_remembers_texts_are_not_inspected(odd_steps: list[Callable[[Any], Any]]) -> None:
    session = opened()
    odd_steps.append(lambda optimizer: optimizer.state[optimizer.param_groups[0]["params"][0]].update(own="text"))
    list(session.run_all("fbs"))
    assert [row.name for row in session.inspect("weight").state] == ["momentum_buffer"]


def test_a_buffer_that_lets_nobody_read_it_ends_nothing() -> None:
    session = opened()
    model_of(session).does = lambda model: model.register_buffer("own", torch.ones(2).as_subclass(Jealous))
    frames = [*session.run_all("FBSZFB"), session.rewind(2)]
    assert all(frame.error is None for frame in frames)


def test_a_buffer_larger_than_any_memory_cannot_be_copied_for_a_gradient_check() -> None:
    model = Net()
    model.register_buffer("own", torch.ones(1).expand(10**15))
    session = opened(model=model)
    list(session.run_all("fb"))
    with pytest.raises(Refused, match="the model cannot be copied: RuntimeError"):
        session.check_gradient(session.frame.index, 0)
