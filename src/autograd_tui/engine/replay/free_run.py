"""Runs of many iterations: phase by phase, or at the loop's own speed, with a frame now and then."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import perf_counter

from torch import Tensor

from autograd_tui.core.command import Phase
from autograd_tui.core.command_log import ITERATION
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.phase_order import Goal, next_command
from autograd_tui.core.replay_check import ReplayChecker
from autograd_tui.engine.replay.timeline import Timeline
from autograd_tui.engine.training.trainer import FreeRunResult

MAX_FRAME_SHARE = 0.03  # of the run's time that frames may cost
MAX_FRAME_INTERVAL = 1.0  # seconds without a frame, where iterations are not longer than that


def run_until(timeline: Timeline, goal: Goal) -> Iterator[Frame]:
    """Run phase after phase until `goal` is reached, a watchpoint fires or something raises, yielding each frame."""
    while not goal.is_past(timeline.trainer.frame):
        frame = timeline.run(next_command(timeline.trainer.frame))
        yield frame
        if frame.error or goal.reached_by(frame) or timeline.watcher.fired_at(frame):
            return


def run_free(timeline: Timeline, goal: Goal, stopped: Callable[[], bool], *, every: float) -> Iterator[Frame]:
    """Run iterations until `goal`, `stopped` or an error; yield a frame every so many seconds, and the last one.

    They run at the loop's own speed, save while a watchpoint is armed.
    """
    try:
        run = _run_watched if timeline.watcher.armed else _run_iterations
        yield from run(timeline, goal, stopped, every=every)
    finally:
        if timeline.observer is not None:
            timeline.observer.on_free_run_end()


def _run_iterations(timeline: Timeline, goal: Goal, stopped: Callable[[], bool], *, every: float) -> Iterator[Frame]:
    trainer, free = timeline.trainer, SampledRun(timeline, stopped=stopped, every=every)
    regular = False  # whether the last iteration was f b s z, so that the next ones will be too
    while not goal.is_past(trainer.frame):
        start = trainer.frame
        if trainer.unrepeatable_reason is not None:  # what no run can return to goes phase by phase, and never too far
            yield from _run_watched(timeline, goal, stopped, every=every)
            return
        if regular and start.iteration + 1 != goal.iteration:
            frame = free.go_on(goal)
            regular = not free.irregular
            timeline.extend(start, frame)
        else:
            frame = _run_this_iteration(timeline, goal, stopped)
            regular = frame.phase is Phase.ZERO_GRAD and frame.index - start.index == len(Phase)
        yield frame
        if frame.error or goal.reached_by(frame) or stopped():
            return


def _run_this_iteration(timeline: Timeline, goal: Goal, stopped: Callable[[], bool]) -> Frame:
    """Run to the end of this iteration, or to where a run ends before that."""
    end = Goal.from_here(timeline.trainer.frame, 1)
    for _ in run_until(timeline, replace(goal, iteration=end.iteration)):
        if stopped():
            break
    return timeline.trainer.frame


def _run_watched(timeline: Timeline, goal: Goal, stopped: Callable[[], bool], *, every: float) -> Iterator[Frame]:
    """Run phase by phase, so that nothing is missed; the frames yielded are as far apart as in other runs."""
    last_yield, frame = perf_counter(), None
    for frame in run_until(timeline, goal):
        if stopped():
            break
        if perf_counter() - last_yield >= every:
            yield frame
            last_yield, frame = perf_counter(), None
    if frame is not None:
        yield frame


class SampledRun:
    """Runs whole iterations at the loop's own speed, each time without frames but for the last one.

    every: seconds between two frames, more where they would cost too much of the run.
    `irregular` once an iteration was not f b s z: it is to be run phase by phase, which shows why.
    """

    def __init__(self, timeline: Timeline, *, stopped: Callable[[], bool], every: float) -> None:
        self._trainer, self._replayer, self._history = timeline.trainer, timeline.replayer, timeline.history
        self._stopped, self._every = stopped, every
        self._costs: deque[float] = deque([0.0], maxlen=5)  # seconds that the last frames added to their iterations
        self.irregular = False

    def go_on(self, goal: Goal) -> Frame:
        """Run two iterations or more, up to the goal, and return the frame after the last.

        Where it is the loss that reaches the goal, that is the frame of the forward that measured it.
        """
        started = perf_counter()
        run = self._without_frames(goal)
        middle = perf_counter()
        if run.raised is not None:
            return self._undo_irregular()
        if goal.has_loss(run.losses[-1]):
            return self._stop_at_last_forward()
        loss = self._with_frames()
        if self.irregular:
            return self._undo_irregular()
        ended = perf_counter()
        self._costs.append(max(ended - middle - (middle - started) / len(run.losses), 0.0))
        return self._stop_at_last_forward() if goal.has_loss(loss) else self._trainer.frame

    def _without_frames(self, goal: Goal) -> FreeRunResult:
        """Run iterations, and store what plots and replays need of them."""
        first, checkpoints = self._trainer.frame, self._replayer.checkpoints
        limit = None if goal.iteration is None else goal.iteration - first.iteration - 1
        checkpoint, started = checkpoints.take_if_due(), perf_counter()
        cost = min(self._costs)  # of which noise is no part
        until = started + min(max(self._every, cost / MAX_FRAME_SHARE), MAX_FRAME_INTERVAL) - cost

        def goes_on(done: int, loss: Tensor) -> bool:
            if done == limit or perf_counter() >= until or self._stopped():
                return False
            return not (goal.on_loss and goal.has_loss(loss.item()))

        run = self._trainer.iterate(goes_on)
        if checkpoint:
            (checkpoints.keep if run.losses else checkpoints.drop)(checkpoint)
        checkpoints.spend(perf_counter() - started, frames=len(run.losses) * len(Phase))
        self._store(first, run)
        return run

    def _store(self, first: Frame, run: FreeRunResult) -> None:
        rises, spacing = first.iteration == 0 or first.steps > first.loss_steps, len(Phase)
        self._replayer.log.append_block(ITERATION, len(run.losses))
        iteration = first.iteration + rises
        self._history.loss.extend_evenly(run.losses, index=first.index + 1, iteration=iteration, spacing=spacing)
        self._history.path.extend(
            (first.index + done * spacing - 1, iteration + done - 1, x, y) for done, x, y in run.way
        )
        for done, rate in run.rates:
            self._history.learning_rate.append(first.index + done * spacing - 1, iteration + done - 1, rate)

    def _with_frames(self) -> float | None:
        """Run one iteration by phases; only its last frame shows nothing of an earlier iteration."""
        checkpoints, started, frames = self._replayer.checkpoints, perf_counter(), []
        try:
            for command in ITERATION:
                frames.append(self._trainer.run(command))
        except Refused:
            self.irregular = True
        checkpoints.spend(perf_counter() - started, frames=len(Phase))
        self.irregular |= any(frame.error for frame in frames)
        if self.irregular:
            return None
        self._replayer.log.append_block(ITERATION, 1)
        for frame in frames:
            self._history.append(frame)
        return frames[0].loss

    def _undo_irregular(self) -> Frame:
        """Return to the end of the last regular iteration."""
        self.irregular = True
        self._replayer.go_to(len(self._replayer.log), from_here=False)
        return self._trainer.frame

    def _stop_at_last_forward(self) -> Frame:
        last = len(self._replayer.log) - len(Phase) + 1
        self._replayer.log.truncate_after(last)
        self._history.truncate_after(last)
        checker = ReplayChecker(lambda index: None, self._history)
        self._replayer.go_to(last, from_here=False, checker=checker)
        self._replayer.note_divergence(checker)
        return self._trainer.frame
