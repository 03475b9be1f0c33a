from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from autograd_tui import Options, Parts, Session, open_session
from autograd_tui.core.phase_order import Goal
from autograd_tui.engine.training.scenario import Scenario
from autograd_tui.text.explain import explain
from session_internals import state_of


def params(session: Session) -> dict[str, torch.Tensor]:
    return {name: param.detach().clone() for name, param in state_of(session).params.items()}


def test_moves_of_small_parameters_are_exact() -> None:
    session = open_session()
    *_, frame = session.run_all("fbs")
    assert frame.moves is not None
    assert list(frame.moves) == pytest.approx([0.1333333, 0.2], rel=1e-5)


def test_moves_of_large_parameters_are_estimated_from_their_sample() -> None:
    session = open_session("resnet18")
    list(session.run_all("fb"))
    before = params(session)
    frame = session.run("s")
    assert frame.moves is not None
    after = params(session)
    for moved, name in zip(frame.moves, before, strict=True):
        exact = (after[name] - before[name]).norm().item()
        assert moved == pytest.approx(exact, rel=0.5 if after[name].numel() > 1024 else 1e-5)


def test_moves_after_going_back_are_those_of_the_first_time() -> None:
    session = open_session("resnet18")
    *_, first = session.run_all("fbsz fbs")
    session.rewind(2)
    again = session.rewind(7)
    assert again.moves == first.moves


def test_a_setting_is_a_move() -> None:
    session = open_session()
    frame = session.run("w=5")
    assert frame.moves is not None
    assert list(frame.moves) == [3.0, 0.0]


def test_the_five_largest_outputs_come_with_their_targets() -> None:
    session = open_session("resnet18")
    frame = session.run("f")
    state = state_of(session)
    assert state.prediction is not None
    values, classes = state.prediction[0].topk(5)
    targets = state.batch[1][0][classes]
    assert frame.top == tuple(zip(classes.tolist(), values.tolist(), targets.tolist(), strict=True))


def test_the_five_largest_outputs_of_each_sample_come_with_their_targets() -> None:
    torch.manual_seed(0)
    x, y = torch.rand(20, 3), torch.rand(20, 30)
    parts = Parts(model=torch.nn.Linear(3, 30), batch=lambda i: (x, y), loss=torch.nn.functional.mse_loss)
    session = open_session(Scenario("many", lambda options: parts))
    frame = session.run("f")
    prediction = state_of(session).prediction
    assert prediction is not None
    assert frame.top_samples == 16
    for sample in range(16):
        values, classes = prediction[sample].topk(5)
        targets = y[sample][classes]
        assert frame.top_of(sample) == tuple(zip(classes.tolist(), values.tolist(), targets.tolist(), strict=True))
    assert frame.top_of(16) == ()


def test_batches_of_ever_new_shapes_do_not_disturb_the_moves() -> None:
    model = torch.nn.Linear(1, 1)
    batches = [(torch.rand(size, 1), torch.rand(size, 1)) for size in range(1, 80)]
    parts = Parts(model=model, batch=lambda i: batches[i], loss=torch.nn.functional.mse_loss)
    session = open_session(Scenario("growing", lambda options: parts))
    frames = list(session.run_all("fbsz*79"))
    assert all(frame.moves is not None and len(frame.moves) == 2 for frame in frames if str(frame.command) == "s")


class Teaching(torch.nn.Module):
    """A student, and a teacher that each forward moves towards it."""

    def __init__(self, move: Callable[[torch.nn.Parameter, torch.nn.Parameter], object]) -> None:
        super().__init__()
        self.student, self.teacher, self.move = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2), move
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            for old, new in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                self.move(old, new)
        return self.student(x) - self.teacher(x) + 1


def teaching(move: Callable[[torch.nn.Parameter, torch.nn.Parameter], object]) -> Scenario:
    x = torch.rand(4, 3)

    def build(_: Options) -> Parts:
        batch, loss = (x, torch.zeros(4, 2)), torch.nn.functional.mse_loss
        return Parts(model=Teaching(move), batch=lambda i: batch, loss=loss, optimizer="sgd,lr=0.5")

    return Scenario("teaching", build)


@pytest.mark.parametrize(
    "move",
    [
        lambda old, new: old.lerp_(new, 0.1),
        lambda old, new: old.data.lerp_(new.data, 0.1),
        lambda old, new: setattr(old, "data", old.data * 0.9 + new.data * 0.1),
    ],
)
def test_what_a_forward_moves_itself_is_no_move_of_a_step(
    move: Callable[[torch.nn.Parameter, torch.nn.Parameter], object],
) -> None:
    session = open_session(teaching(move))
    list(session.run_all("fbsz*5"))
    before = params(session)
    forward = session.run("f")
    after = params(session)
    ways = [(after[name] - before[name]).norm().item() for name in before]
    assert ways[:2] == [0, 0]
    assert forward.moves is not None
    assert list(forward.moves) == pytest.approx(ways, rel=1e-4)
    assert explain(forward)[0].endswith("Its own code has changed teacher.weight, teacher.bias: no step did that.")
    assert not forward.loss_is_old
    session.run("b")
    step = session.run("s")
    assert step.moves is not None
    assert [way > 0 for way in step.moves] == [True, True, False, False]
    assert session.rewind(step.index - 2).params == forward.params


def test_a_forward_that_moves_parameters_is_noticed_behind_a_free_run_too() -> None:
    session = open_session(teaching(lambda old, new: old.lerp_(new, 0.1)))
    list(session.run_free(Goal.from_here(session.frame, 6), lambda: False))
    *_, forward = session.run_all("f")
    assert forward.mover is forward.command
