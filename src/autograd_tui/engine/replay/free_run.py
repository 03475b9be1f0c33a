"""Runs of many iterations: phase by phase, or at the loop's own speed, with a frame now and then."""

from __future__ import annotations

import sys
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
from autograd_tui.core.run_observer import Interrupted
from autograd_tui.engine.replay.timeline import Timeline
from autograd_tui.engine.training.free_run_watch import FreeRunWatch
from autograd_tui.engine.training.interruption import Interrupt
from autograd_tui.engine.training.trainer import FreeRunResult
from autograd_tui.engine.training.user_code import torch_error

MAX_FRAME_SHARE = 0.015  # of the run's time that frames may cost
MAX_IN_VAIN = 256  # iterations with all frames, where a watchpoint nearly holds again and again
LOOK_SECONDS = 0.002  # of iterations, between two looks at the clock and at whether the run is to stop
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

    They run at the loop's own speed. While a watchpoint is armed, each phase is looked at without a frame; where it may
    hold, the run goes back to before that iteration and on phase by phase, up to the very frame.
    """
    try:
        yield from _run_iterations(timeline, goal, stopped, every=every)
    finally:
        if timeline.observer is not None:
            timeline.observer.on_free_run_end()


def _run_iterations(timeline: Timeline, goal: Goal, stopped: Callable[[], bool], *, every: float) -> Iterator[Frame]:
    trainer, free = timeline.trainer, SampledRun(timeline, stopped=stopped, every=every)
    regular = False  # whether the last iteration was f b s z, so that the next ones will be too
    last_yield = perf_counter()
    while not goal.is_past(trainer.frame):
        start = trainer.frame
        if trainer.unrepeatable_reason is not None or not free.watches_enough():
            # What no run can return to goes phase by phase, and never too far.
            yield from _run_watched(timeline, goal, stopped, every=every)
            return
        by_phases = not regular or start.iteration + 1 == goal.iteration or free.must_make_frames
        if by_phases:
            frame, is_stopped = _run_this_iteration(timeline, goal, stopped)
            regular = frame.phase is Phase.ZERO_GRAD and frame.index - start.index == len(Phase)
        else:
            try:
                frame = free.go_on(goal)
            except Interrupt as error:
                raise Interrupted(timeline.undo_free_run(start, error)) from error
            regular = not free.irregular
            timeline.extend(start, frame)
            is_stopped = stopped()
        ends = bool(frame.error) or goal.reached_by(frame) or timeline.watcher.fired_at(frame) or is_stopped
        is_seldom = not (by_phases and timeline.watcher.armed)  # others come as fast as iterations with frames
        if ends or is_seldom or perf_counter() - last_yield >= every:
            yield frame
            last_yield = perf_counter()
        if ends:
            return


def _run_this_iteration(timeline: Timeline, goal: Goal, stopped: Callable[[], bool]) -> tuple[Frame, bool]:
    """Run to the end of this iteration, or to where a run ends before that; return whether it was `stopped`."""
    end = Goal.from_here(timeline.trainer.frame, 1)
    for _ in run_until(timeline, replace(goal, iteration=end.iteration)):
        if stopped():
            return timeline.trainer.frame, True
    return timeline.trainer.frame, False


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
        self._watcher = timeline.watcher
        self._watch: FreeRunWatch | None = None  # None where nothing is armed
        self._frames_until = 0  # the frame up to which each is made, since a watchpoint may hold
        self._iterations_with_frames = 1  # after the next time that one may hold
        self._stopped, self._every = stopped, every
        self._costs: deque[float] = deque(maxlen=5)  # seconds that the last frames took besides their iterations
        self._began = self._ended = 0.0  # the last iterations without frames
        self._is_noticed = False  # whether a watchpoint holds, or may, in the iteration that had frames
        self.irregular = False

    def watches_enough(self) -> bool:
        """Follow what is armed now; return whether all of it can be watched without making each frame."""
        armed = self._watcher.armed
        if not armed:
            self._watch, self._frames_until = None, 0
        elif self._watch is None or self._watch.armed != armed:
            self._watch = FreeRunWatch(self._watcher)
        return self._watch is None or self._watch.suffices(self._trainer.state)

    @property
    def must_make_frames(self) -> bool:
        """Whether the frames of this iteration are needed, to find the one at which a watchpoint holds."""
        if self._watch is None:
            return False
        is_suspect = self._trainer.frame.index < self._frames_until
        return is_suspect or self._trainer.may_forward_move or not self._replayer.checkpoints.is_near

    def go_on(self, goal: Goal) -> Frame:
        """Run two iterations or more, up to the goal, and return the frame after the last.

        Where it is the loss that reaches the goal, that is the frame of the forward that measured it. Where a
        watchpoint may hold, it is a frame before that, from which on frames must be made. Raises Interrupt where
        `interrupt` has ended it: the state is then of no use until it is restored, at the end of the log.
        """
        first = self._trainer.frame
        run = self._without_frames(goal)
        suspect = self._watch.first_suspect(self._trainer.state.model, run.losses) if self._watch else None
        if suspect is not None and suspect <= len(run.losses):
            return self._return_to_suspect(first, run, suspect)
        if isinstance(run.raised, Interrupt):
            raise run.raised
        if run.raised is not None:
            return self._undo_irregular(run)
        if goal.has_loss(run.losses[-1]):
            return (
                self._stop_at_last_forward()
                if self._watch is None
                else self._return_to_suspect(first, run, len(run.losses))
            )
        if self._watch is not None:
            self._watch.remember(self._trainer.frame.index, run.losses)
        loss = self._with_frames()
        if self.irregular:
            return self._undo_irregular(run)
        if self._is_noticed or (self._watch is not None and goal.has_loss(loss)):
            return self._return_to_suspect(first, run, len(run.losses) + 1)
        one_iteration = (self._ended - self._began) / len(run.losses)
        self._costs.append(max(perf_counter() - self._ended - one_iteration, 0.0))
        return self._stop_at_last_forward() if goal.has_loss(loss) else self._trainer.frame

    def _without_frames(self, goal: Goal) -> FreeRunResult:
        """Run iterations, and store what plots and replays need of them."""
        first, checkpoints = self._trainer.frame, self._replayer.checkpoints
        limit = None if goal.iteration is None else goal.iteration - first.iteration - 1
        checkpoint = checkpoints.take_if_due()
        watch = self._watch
        if watch is not None:
            watch.begin(self._trainer.state, first, first_iteration=_next_iteration(first))
        cost = min(self._costs, default=0.0)  # of which noise is no part
        self._began = self._ended = perf_counter()
        until = self._began + min(max(self._every, cost / MAX_FRAME_SHARE), MAX_FRAME_INTERVAL) - cost

        stopped, on_loss, began = self._stopped, goal.on_loss, self._began

        def goes_on(done: int, loss: float | Tensor) -> int:
            if watch is not None and watch.notices(loss):
                return 0
            self._ended = now = perf_counter()
            if done == limit or now >= until or stopped():
                return 0
            if on_loss:
                return 0 if goal.has_loss(float(loss)) else 1
            more = int(LOOK_SECONDS * done / max(now - began, 1e-9)) if watch is None else 1
            return max(min(more, sys.maxsize if limit is None else limit - done), 1)

        try:
            run = self._trainer.iterate(goes_on, watch)
        except BaseException:
            if watch is not None:
                watch.end()
            raise
        if checkpoint:
            (checkpoints.keep if run.losses else checkpoints.drop)(checkpoint)
        checkpoints.spend(perf_counter() - self._began, frames=len(run.losses) * len(Phase))
        self._store(first, run)
        return run

    def _store(self, first: Frame, run: FreeRunResult) -> None:
        spacing, iteration = len(Phase), _next_iteration(first)
        self._replayer.log.append_block(ITERATION, len(run.losses))
        self._history.loss.extend_evenly(run.losses, index=first.index + 1, iteration=iteration, spacing=spacing)
        self._history.path.extend(
            (first.index + done * spacing - 1, iteration + done - 1, x, y) for done, x, y in run.way
        )
        for done, rate in run.rates:
            self._history.learning_rate.append(first.index + done * spacing - 1, iteration + done - 1, rate)

    def _with_frames(self) -> float | None:
        """Run one iteration by phases; only its last frame shows nothing of an earlier iteration."""
        checkpoints, started, frames = self._replayer.checkpoints, perf_counter(), []
        self._is_noticed = False
        try:
            for command in ITERATION:
                frames.append(self._trainer.run(command))
                self._is_noticed |= self._watch is not None and self._notices(self._watch, frames[-1])
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

    def _notices(self, watch: FreeRunWatch, frame: Frame) -> bool:
        """Return whether a watchpoint holds at a frame, or may."""
        is_open = frame.phase is Phase.STEP and not frame.error and watch.is_still_unknown(frame)
        return bool(self._watcher.reasons(frame)) or is_open

    def _undo_irregular(self, run: FreeRunResult) -> Frame:
        """Return to the end of the last regular iteration."""
        self.irregular = True
        if run.raised is not None and torch_error(run.raised).is_out_of_memory:
            self._replayer.checkpoints.leave_device()
        self._replayer.go_to(len(self._replayer.log), from_here=False)
        if self._watch is not None:
            self._watch.remember(len(self._replayer.log), run.losses)
        return self._trainer.frame

    def _return_to_suspect(self, first: Frame, run: FreeRunResult, suspect: int) -> Frame:
        """Return to before an iteration in which a watchpoint may hold, counted from 1 behind frame `first`.

        The frames are made from there on, up to the end of that iteration; the longer, the more often it was for
        nothing.
        """
        watch = self._watch
        assert watch is not None
        done = watch.start_of(suspect)
        self._return_to(first.index + done * len(Phase))
        watch.remember(self._trainer.frame.index, run.losses[:done])
        if suspect > MAX_IN_VAIN:
            self._iterations_with_frames = 1
        self._frames_until = first.index + (suspect - 1 + self._iterations_with_frames) * len(Phase)
        self._iterations_with_frames = min(2 * self._iterations_with_frames, MAX_IN_VAIN)
        return self._trainer.frame

    def _return_to(self, index: int) -> None:
        """Return to a frame of this run, and drop what came after it."""
        self._replayer.log.truncate_after(index)
        self._history.truncate_after(index)
        checker = ReplayChecker(lambda index: None, self._history)
        self._replayer.go_to(index, from_here=False, checker=checker)
        self._replayer.note_divergence(checker)

    def _stop_at_last_forward(self) -> Frame:
        self._return_to(len(self._replayer.log) - len(Phase) + 1)
        return self._trainer.frame


def _next_iteration(frame: Frame) -> int:
    """Return the number of the iteration that a forward begins at a frame."""
    return frame.iteration + (frame.iteration == 0 or frame.steps > frame.loss_steps)
