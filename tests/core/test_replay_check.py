"""Where a frame that is made again is not what it was, it is said at which frame and by how much."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from autograd_tui.core.phase_order import Goal
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from plain_loop import Batch
from session_internals import FEW, as_scenario, open_with_many_checkpoints


class Counting(nn.Module):
    """Its forward counts where no checkpoint looks: in a module of Python that nobody has written."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([2.0]))
        self._elsewhere = ModuleType("elsewhere")
        self.calls = 0

    @property
    def calls(self) -> int:
        return int(self._elsewhere.calls)

    @calls.setter
    def calls(self, calls: int) -> None:
        self._elsewhere.calls = calls  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.w * x + self.calls


class Drifting(Counting):
    """Counts where the prediction does not show it."""

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.w * x + self.w.detach() * 0


def counting(seed: int) -> tuple[nn.Module, Batch]:
    x = torch.tensor([1.0, 2.0, 3.0])
    return Counting(), lambda i: (x, 4 * x)


def drifting(seed: int) -> tuple[nn.Module, Batch]:
    x = torch.tensor([1.0, 2.0, 3.0])
    return Drifting(), lambda i: (x, 4 * x)


def run(session: Session, commands: str) -> None:
    for _ in session.run_all(commands):
        pass


def test_the_first_frame_that_differs_is_told_with_its_loss() -> None:
    session = open_session(as_scenario(counting))
    frames = list(session.run_all("fbsz*2"))
    session.rewind(3)
    difference = session.take_divergence()
    assert difference is not None
    assert (difference.index, difference.what, difference.before) == (1, "loss", frames[0].loss)
    again = torch.tensor([1.0, 2.0, 3.0])
    assert difference.now == pytest.approx(((2 * again - 3) ** 2).mean().item())  # the third call


def test_a_difference_is_told_once() -> None:
    session = open_session(as_scenario(counting))
    run(session, "fbsz @2")
    assert session.take_divergence() is not None
    assert session.take_divergence() is None


def test_where_all_agrees_nothing_is_told() -> None:
    session = open_session(as_scenario(drifting))
    run(session, "fbsz*5 @2 @9 undo")
    session.look(3)
    assert session.take_divergence() is None


def test_looking_at_a_thinned_frame_that_differs_tells_of_it() -> None:
    session = open_with_many_checkpoints(as_scenario(counting), frames=1, budget=FEW)
    run(session, "fbsz*30")
    assert session.stored(41) is None
    loss = next(point.value for point in session.history.loss.points() if point.index == 41)
    found = session.look(41)
    difference = session.take_divergence()
    assert difference is not None
    assert difference.index <= 41
    assert found.loss != loss


def test_iterations_run_again_without_frames_are_compared_by_their_losses() -> None:
    session = open_session(as_scenario(counting, optimizer="sgd,lr=0.001"))
    for _ in session.run_free(Goal(iteration=200), lambda: False):
        pass
    session.rewind(795)
    difference = session.take_divergence()
    assert difference is not None
    assert (difference.index, difference.what) == (1, "loss")


def test_a_parameter_that_differs_is_named() -> None:
    session = open_session(as_scenario(drifting))
    run(session, "fbs")
    step, trainer = session._trainer._loop.step, session._trainer

    def otherwise() -> bool:
        step()
        with torch.no_grad():
            trainer.state.params["w"].add_(1.0)
        return True

    session.rewind(0)
    trainer._loop.step = otherwise  # type: ignore[method-assign]
    session.rewind(3)
    difference = session.take_divergence()
    assert difference is not None
    assert (difference.index, difference.what) == (3, "parameter w")
    assert difference.now is not None
    assert difference.before is not None
    assert difference.now - difference.before == pytest.approx(1.0)


def test_what_raises_now_and_did_not_then_differs_and_is_gone_on_from() -> None:
    class Once(Counting):
        def forward(self, x: Tensor) -> Tensor:
            if self.calls == 2:
                raise ValueError("used up")
            return super().forward(x)

    def build(seed: int) -> tuple[nn.Module, Batch]:
        x = torch.rand(3)
        return Once(), lambda i: (x, x)

    session = open_session(as_scenario(build))
    run(session, "fbsz fb")
    frame = session.rewind(3)
    difference = session.take_divergence()
    assert difference is not None
    assert difference.index == 1
    assert frame.index == 3
