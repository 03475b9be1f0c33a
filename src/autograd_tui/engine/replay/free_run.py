"""The loop at its own speed: many iterations without frames, then one with, again and again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import perf_counter

from torch import Tensor

from autograd_tui.core.command import Phase
from autograd_tui.core.command_log import ITERATION
from autograd_tui.core.divergence import ReplayChecker
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History
from autograd_tui.core.session_view import Goal
from autograd_tui.engine.replay.replayer import Replayer
from autograd_tui.engine.training.trainer import FreeRunResult, Trainer

SHARE = 0.03  # of the run's time that frames may cost
LONGEST = 1.0  # seconds without a frame, where iterations are not longer than that


class FreeRun:
    """Goes on from the end of one iteration to the end of another; `every` seconds, or as often as they may cost.

    `irregular` once an iteration did not go its way: it is to be run phase by phase, which shows why.
    """

    def __init__(
        self, trainer: Trainer, way: Replayer, history: History, *, stopped: Callable[[], bool], every: float
    ) -> None:
        self._trainer, self._way, self._history = trainer, way, history
        self._stopped, self._every = stopped, every
        self._costs: deque[float] = deque([0.0], maxlen=5)  # seconds that the last frames added to their iterations
        self.irregular = False

    def go_on(self, goal: Goal) -> Frame:
        """Run two iterations or more, up to the goal, and give the frame after the last.

        Where it is the loss that reaches the goal, that is the frame of the forward that measured it.
        """
        started = perf_counter()
        stretch = self._without_frames(goal)
        middle = perf_counter()
        if stretch.raised is not None:
            return self._give_up()
        if goal.has_loss(stretch.losses[-1]):
            return self._stop_at_the_last_forward()
        loss = self._with_frames()
        if self.irregular:
            return self._give_up()
        ended = perf_counter()
        self._costs.append(max(ended - middle - (middle - started) / len(stretch.losses), 0.0))
        return self._stop_at_the_last_forward() if goal.has_loss(loss) else self._trainer.frame

    def _without_frames(self, goal: Goal) -> FreeRunResult:
        """Run iterations, and take down what plots and the way back need of them."""
        first, checkpoints = self._trainer.frame, self._way.checkpoints
        most = None if goal.iteration is None else goal.iteration - first.iteration - 1
        checkpoint, started = checkpoints.take_if_due(), perf_counter()
        cost = min(self._costs)  # of which noise is no part
        until = started + min(max(self._every, cost / SHARE), LONGEST) - cost

        def goes_on(done: int, loss: Tensor) -> bool:
            if done == most or perf_counter() >= until or self._stopped():
                return False
            return not (goal.on_loss and goal.has_loss(loss.item()))

        stretch = self._trainer.iterate(goes_on)
        if checkpoint:
            (checkpoints.keep if stretch.losses else checkpoints.drop)(checkpoint)
        checkpoints.spend(perf_counter() - started, frames=len(stretch.losses) * len(Phase))
        self._take_down(first, stretch)
        return stretch

    def _take_down(self, first: Frame, stretch: FreeRunResult) -> None:
        rises, apart = first.iteration == 0 or first.steps > first.loss_steps, len(Phase)
        self._way.commands.append_iterations(len(stretch.losses))
        iteration = first.iteration + rises
        self._history.loss.extend(stretch.losses, index=first.index + 1, iteration=iteration, apart=apart)
        for done, rate in stretch.rates:
            self._history.learning_rate.append(first.index + done * apart - 1, iteration + done - 1, rate)

    def _with_frames(self) -> float | None:
        """Run one iteration by phases; only its last frame shows nothing of an earlier iteration."""
        checkpoints, started, frames = self._way.checkpoints, perf_counter(), []
        try:
            for command in ITERATION:
                frames.append(self._trainer.run(command))
        except Refused:
            self.irregular = True
        checkpoints.spend(perf_counter() - started, frames=len(Phase))
        self.irregular |= any(frame.error for frame in frames)
        if self.irregular:
            return None
        self._way.commands.append_iterations(1)
        for frame in frames:
            self._history.append(frame)
        return frames[0].loss

    def _give_up(self) -> Frame:
        """Return to the end of the last iteration that went its way."""
        self.irregular = True
        self._way.go_to(len(self._way.commands), from_here=False)
        return self._trainer.frame

    def _stop_at_the_last_forward(self) -> Frame:
        last = len(self._way.commands) - len(Phase) + 1
        self._way.commands.forget_after(last)
        self._history.forget_after(last)
        known = ReplayChecker(lambda index: None, self._history)
        self._way.go_to(last, from_here=False, comparison=known)
        self._way.note(known)
        return self._trainer.frame
