"""Running new commands from where training stands, and everything that must be told of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from time import perf_counter

from autograd_tui.core.command import Command, Phase
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.phase_order import next_phase, refusal
from autograd_tui.core.session_view import Goal
from autograd_tui.core.watcher import Watcher
from autograd_tui.engine.replay.free_run import FreeRun
from autograd_tui.engine.replay.replayer import Replayer
from autograd_tui.engine.replay.timeline import Reporter, Timeline
from autograd_tui.engine.training.trainer import Trainer


class Advance:
    """Runs new commands, and has them known to all who keep track of the run.

    These are the way back, the line of frames, the watchpoints and, through the reporter, the recorder.
    """

    def __init__(
        self, trainer: Trainer, way: Replayer, line: Timeline, *, watching: Watcher, reporter: Reporter
    ) -> None:
        self._trainer, self._way, self._line = trainer, way, line
        self._watching, self._reporter = watching, reporter

    def run(self, command: Command, *, recorded: bool = False) -> Frame:
        """Run one command; raises Refused, with nothing changed, where it is out of turn or impossible."""
        checkpoints = self._way.checkpoints
        checkpoint = checkpoints.take_if_due() if command.phase is Phase.FORWARD else None
        aside = checkpoints.take_aside() if command.phase is Phase.FORWARD and self._watching.armed else None
        before, started = self._trainer.frame, perf_counter()
        frame = self._trainer.run(command, recorded=recorded)
        self._line.leave_after(before)
        if checkpoint:
            (checkpoints.drop if frame.error else checkpoints.keep)(checkpoint)
        if aside:
            checkpoints.keep_aside(aside, raised=frame.error is not None)
        checkpoints.spend(perf_counter() - started)
        self._line.append(command, frame)
        if not recorded and self._trainer.trace is not None and self._trainer.trace.index == frame.index:
            self._line.traces.take(frame)  # of a forward that may not repeat
        self._reporter.ran(command, frame, self._line.history)
        self._watching.see(frame)
        return frame

    def run_recorded(self, command: Command) -> Frame:
        """Run a phase, and give its frame with a trace; a backward's includes the forward that made its graph."""
        if reason := refusal(self._trainer.frame, command):
            raise Refused(reason)
        if command.phase is Phase.BACKWARD:
            self._line.traces.know_forward(self._line.comparison())
        frame = self.run(command, recorded=True)
        return replace(frame, trace=self._line.traces.take(frame))

    def next_command(self) -> Command:
        """Give the phase that goes on from here."""
        return Command(next_phase(self._trainer.frame).value)

    def run_until(self, goal: Goal) -> Iterator[Frame]:
        """Run phase after phase until `goal` is reached, a watchpoint fires or something raises, giving each frame."""
        while not goal.is_past(self._trainer.frame):
            frame = self.run(self.next_command())
            yield frame
            if frame.error or goal.reached_by(frame) or self._watching.fired_at(frame):
                return

    def run_free(self, goal: Goal, stopped: Callable[[], bool], *, every: float) -> Iterator[Frame]:
        """Run iterations until `goal`, `stopped` or an error; give a frame every so many seconds, and the last one.

        They run at the loop's own speed, save while a watchpoint is armed.
        """
        try:
            run = self._run_watched if self._watching.armed else self._run_iterations
            yield from run(goal, stopped, every=every)
        finally:
            self._reporter.finished_run()

    def _run_iterations(self, goal: Goal, stopped: Callable[[], bool], *, every: float) -> Iterator[Frame]:
        free = FreeRun(self._trainer, self._way, self._line.history, stopped=stopped, every=every)
        regular = False  # whether the last iteration was f b s z, so that the next ones will be too
        while not goal.is_past(self._trainer.frame):
            start = self._trainer.frame
            if self._trainer.doubt is not None:  # what no run can return to goes phase by phase, and never too far
                yield from self._run_watched(goal, stopped, every=every)
                return
            if regular and start.iteration + 1 != goal.iteration:
                frame = free.go_on(goal)
                regular = not free.irregular
                self._line.frames.append(frame)
                self._reporter.ran_freely(start, frame, self._line.history)
            else:
                frame = self._run_this_iteration(goal, stopped)
                regular = frame.phase is Phase.ZERO_GRAD and frame.index - start.index == len(Phase)
            yield frame
            if frame.error or goal.reached_by(frame) or stopped():
                return

    def _run_this_iteration(self, goal: Goal, stopped: Callable[[], bool]) -> Frame:
        """Run to the end of this iteration, or to where a run ends before that."""
        end = Goal.from_here(self._trainer.frame, 1)
        for _ in self.run_until(replace(goal, iteration=end.iteration)):
            if stopped():
                break
        return self._trainer.frame

    def _run_watched(self, goal: Goal, stopped: Callable[[], bool], *, every: float) -> Iterator[Frame]:
        """Run phase by phase, so that nothing is missed; the frames given are as far apart as in other runs."""
        given, frame = perf_counter(), None
        for frame in self.run_until(goal):
            if stopped():
                break
            if perf_counter() - given >= every:
                yield frame
                given, frame = perf_counter(), None
        if frame is not None:
            yield frame
