"""The timeline of a run: commands extend it, its frames can be looked at and rewound to, and branches are left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter

from autograd_tui.core.command import Command, Phase, frame_before
from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.frame_store import Branch, Branches, FrameStore
from autograd_tui.core.history import History
from autograd_tui.core.phase_order import refusal
from autograd_tui.core.replay_check import Divergence, ReplayChecker, RerunChecker
from autograd_tui.core.run_observer import Interrupted, RunObserver
from autograd_tui.core.trace import Trace
from autograd_tui.core.watcher import Watcher
from autograd_tui.engine.replay.replayer import Replayer
from autograd_tui.engine.training.checkpoint import Checkpoint
from autograd_tui.engine.training.interruption import Interrupt
from autograd_tui.engine.training.trainer import Trainer
from autograd_tui.engine.training.user_code import place_of

MAX_TRACES = 4  # one of resnet18's backward, its forward included, takes a megabyte or two


class TraceCache:
    """The traces that were asked for last; others are recorded by running their phase again."""

    def __init__(self, trainer: Trainer, replayer: Replayer) -> None:
        self._trainer, self._replayer = trainer, replayer
        self._traces: dict[int, Trace] = {}  # by frame

    def record_forward(self, checker: ReplayChecker) -> None:
        """Run the forward that made the live graph again from a checkpoint to record it, where it was not recorded.

        A forward that may not repeat does not run again: the backward is then shown without it.
        """
        trainer, current = self._trainer, self._trainer.frame
        is_missing = current.graph == "alive" and not trainer.tracer.knows_forward
        if is_missing and trainer.unrepeatable_reason is None:
            self._replayer.record(self._replayer.last(Phase.FORWARD, current.index), checker)
            self._replayer.return_to(current.index, checker)

    def store(self, frame: Frame) -> Trace:
        """Store and return the trace of the phase that has just been recorded, and led to `frame`.

        Raises Refused where there was no memory left to measure what happened in it.
        """
        assert frame.phase is not None
        trace = self._trainer.trace
        if trace is None and frame.error is None:
            raise Refused(f"{frame.phase.value} ran, but there was too little memory left to measure what is inside.")
        trace = trace or self._trainer.tracer.raised_step(frame)  # of a step that raised, which is not run again
        self._traces.pop(frame.index, None)
        self._traces[frame.index] = trace
        while len(self._traces) > MAX_TRACES:
            del self._traces[next(iter(self._traces))]
        return trace

    def get(self, index: int, checker: ReplayChecker) -> Trace:
        """Return the trace of the phase that led to frame `index`; raises Refused where none did."""
        command = self._replayer.log.leading_to(index)
        if command is None or command.phase is None:
            what = f"frame {index} is from {command}" if command else "frame 0 is the beginning"
            raise Refused(f"{what}: there is nothing inside it to walk.")
        if index in self._traces:
            return self._traces[index]
        self._replayer.check_repeats(f"frame {index} was not recorded")
        here, error = self._trainer.frame.index, self._replayer.log.errors.get(index)
        self._replayer.record(index, checker)
        try:
            trace = self.store(self._trainer.frame)
        finally:
            self._replayer.return_to(here, checker)
        if (trace.error is None) != (error is None):
            del self._traces[index]
            raise Refused(f"run again, frame {index} is not what it was: what happened inside is not known.")
        return trace

    def truncate_after(self, index: int) -> None:
        """Drop those of later frames: another command has been run from there."""
        self._traces = {each: trace for each, trace in self._traces.items() if each <= index}


class Timeline:
    """The present branch of a run: its commands, frames, history and traces, and the branches that were left.

    Looking at a frame leaves training where it is. Rewinding moves training; what was ahead stays until another
    command has run from there: then it becomes a branch, with its log and history, and can be taken again.
    Everything that happens is reported to `observer`, if there is one.
    """

    def __init__(self, trainer: Trainer, replayer: Replayer) -> None:
        self.trainer, self.replayer = trainer, replayer
        self.watcher = Watcher()
        self.observer: RunObserver | None = None
        self.history = History()
        self.history.append(trainer.frame)
        self.frames = FrameStore(trainer.frame)
        self._recomputed: dict[int, Frame] = {}  # by the last look, by index
        self.traces = TraceCache(trainer, replayer)
        self.branches = Branches()

    @property
    def newest(self) -> int:
        """The index of the last frame: greater than the one where training stands after going back."""
        return len(self.replayer.log)

    # Going on.

    def run(self, command: Command, *, recorded: bool = False) -> Frame:
        """Run one command and return the new frame.

        Raises Refused, with nothing changed, where the command is out of turn or impossible, and Interrupted where
        `interrupt` has ended it: there is no frame then, and nothing of it in the log.
        """
        checkpoints = self.replayer.checkpoints
        forward = command.phase is Phase.FORWARD
        checkpoint = checkpoints.take_if_due() if forward else None
        iteration_start = checkpoints.take_iteration_start() if forward and self.watcher.armed else None
        before, started = self.trainer.frame, perf_counter()
        try:
            frame = self.trainer.run(command, recorded=recorded)
        except Interrupt as error:
            if checkpoint:
                checkpoints.drop(checkpoint)
            if iteration_start:
                checkpoints.keep_iteration_start(iteration_start, raised=True)
            raise Interrupted(self._undo(command, error)) from error
        self._branch_off(before)
        if checkpoint:
            (checkpoints.drop if frame.error else checkpoints.keep)(checkpoint)
        if iteration_start:
            checkpoints.keep_iteration_start(iteration_start, raised=frame.error is not None)
        checkpoints.spend(perf_counter() - started)
        if frame.error and frame.error.is_out_of_memory:
            checkpoints.leave_device()
        self._append(command, frame)
        if not recorded and self.trainer.trace is not None and self.trainer.trace.index == frame.index:
            self.traces.store(frame)  # of a forward that may not repeat
        if self.observer is not None:
            self.observer.on_command(str(command), frame)
            self._offer_checkpoint(self.observer)
        self.watcher.check(frame)
        return frame

    def _undo(self, command: Command, error: Interrupt) -> str:
        """Undo a command that was interrupted; return a sentence on what is as before it, mostly all."""
        trainer, index = self.trainer, self.trainer.frame.index
        interrupted = f"{command.phase.value if command.phase else command} was interrupted{place_of(error)}"
        if command.phase is Phase.BACKWARD and trainer.frame.graph == "alive" and trainer.unrepeatable_reason:
            trainer.frame = replace(trainer.frame, graph=trainer.state.graph)
            return f"{interrupted}: the graph is freed, all else is as before it."
        if command.phase is not Phase.FORWARD:
            with self.reporting_moves():
                self.replayer.restore_frame(index)
        if trainer.frame.index != index:
            return f"{interrupted}, and so was the way back: training stands at frame {trainer.frame.index} now."
        return f"{interrupted}: all is as before it."

    @contextmanager
    def reporting_moves(self) -> Iterator[None]:
        """Report a rewind where training has moved, if only because the way back was interrupted too."""
        here = self.trainer.frame.index
        try:
            yield
        finally:
            if self.trainer.frame.index != here and self.observer is not None:
                self.observer.on_rewind(self.trainer.frame)

    def undo_free_run(self, start: Frame, error: Interrupt) -> str:
        """Return to the end of the last whole iteration of a free run that was interrupted; return a sentence on it.

        start: the frame from which it ran without frames.
        """
        self.replayer.restore_frame(self.newest)
        here = self.trainer.frame
        self.replayer.log.truncate_after(max(start.index, here.index))
        self.history.truncate_after(max(start.index, here.index))
        if here.index >= start.index:
            self.extend(start, here)
        elif self.observer is not None:
            self.observer.on_rewind(here)
        return f"the run was interrupted{place_of(error)}: training stands at frame {here.index}."

    def run_recorded(self, command: Command) -> Frame:
        """Run a phase and return its frame with a trace; a backward's includes the forward that made its graph."""
        if reason := refusal(self.trainer.frame, command):
            raise Refused(reason)
        if command.phase is Phase.BACKWARD:
            with self.reporting_moves():
                self.traces.record_forward(self.checker())
        frame = self.run(command, recorded=True)
        return replace(frame, trace=self.traces.store(frame))

    def extend(self, start: Frame, frame: Frame) -> None:
        """Take in `frame`, which a free run has led to from frame `start` without frames between them."""
        self.frames.append(frame)
        if self.observer is not None and frame.index > start.index:
            patterns = self.replayer.log.blocks(start.index, frame.index)
            self.observer.on_free_run(patterns, start.index, frame)
            self._offer_checkpoint(self.observer)

    def _append(self, command: Command, frame: Frame) -> None:
        self.replayer.log.append(command, frame.error)
        if frame.error and frame.error.leaves_half_done(frame.phase):
            self.replayer.undo_half_phase(frame, self.checker())
        self.frames.append(frame)
        self.history.append(frame)

    def close(self, *, in_order: bool) -> None:
        """End the observer, if there is one; in order, it may store the newest checkpoint before."""
        if self.observer is not None:
            if in_order:
                self._offer_checkpoint(self.observer, last=True)
            self.observer.close(in_order=in_order)

    def _offer_checkpoint(self, observer: RunObserver, *, last: bool = False) -> None:
        newest = self.replayer.checkpoints.newest
        if newest is not None and newest.frame.index:
            observer.on_checkpoint(newest, self.history, last=last)

    # Looking: training stays where it is.

    def stored(self, index: int) -> Frame | None:
        """Return frame `index` without touching the engine, as any thread may; None where only `look` recomputes it."""
        return self.frames.get(index) or self._recomputed.get(index)

    def look(self, index: int) -> Frame:
        """Return frame `index`, recomputed where it is not stored."""
        self.check(index)
        stored = self.stored(index)
        if stored is not None:
            return stored
        self.replayer.check_repeats(f"frame {index} is kept no longer")
        with self.reporting_moves():
            frames = self.replayer.visit(index, self.checker())
        self._recomputed = {frame.index: frame for frame in frames}
        return frames[-1]

    def look_alike(self, index: int, by: int) -> Frame | None:
        """Return the frame of the same phase one iteration before (`by` -1) or after (1) frame `index`, or None."""
        here, index = self.look(index), index + by
        while 0 < index <= self.newest:
            command = self.replayer.log.leading_to(index)
            same_phase = command is not None and command.phase is here.phase
            if same_phase and (frame := self.look(index)).iteration != here.iteration:
                return frame
            index += by
        return None

    def trace(self, index: int) -> Trace:
        """Return the trace of the phase that led to frame `index`, which runs again where it was not recorded."""
        self.check(index)
        with self.reporting_moves():
            return self.traces.get(index, self.checker())

    def check(self, index: int) -> None:
        """Raise Refused where the branch has no frame `index`."""
        if not 0 <= index <= self.newest:
            raise Refused(f"there is no frame {index}: the newest is frame {self.newest}.")

    def checker(self) -> ReplayChecker:
        """Return a checker that compares recomputed frames with what is stored of them."""
        return ReplayChecker(self.stored, self.history)

    # Going back, and the branches that are left by it.

    def go_back(self, command: Command) -> Frame:
        """Do what "undo", "@40" or "branch=1" asks for, and return the frame where training then stands."""
        if command.name == "undo":
            return self.rewind(frame_before(self.trainer.frame.index))
        assert isinstance(command.value, int)
        return self.rewind(command.value) if command.name == "@" else self.take_branch(command.value)

    def rewind(self, index: int) -> Frame:
        """Move training to frame `index`; later frames stay until another command runs."""
        self.check(index)
        with self.reporting_moves():
            self.replayer.travel(index, self.checker())
        return self.trainer.frame

    def take_branch(self, number: int) -> Frame:
        """Move training to the end of a branch, the present one from now on; what is ahead becomes a branch itself."""
        branch, here = self.branches.get(number), self.trainer.frame.index
        shared = self.replayer.log.shared_with(branch.log)
        left_log, left_history, left_checkpoint = self.replayer.log, self.history, self.replayer.checkpoints.newest
        checker, history = self._checker_of(branch, shared)
        skipping = branch.history is not None
        try:
            frames = self.replayer.switch_to(branch.log.copy(), checker, branch=number, skipping=skipping)
        except Interrupted:
            if self.trainer.frame.index != here and self.observer is not None:
                self.observer.on_rewind(self.trainer.frame)
            raise
        if checker.divergence is None and branch.ends_as is not None and not branch.ends_as(self.trainer.frame):
            checker.divergence = Divergence(self.trainer.frame.index, "numbers")
            self.replayer.note_divergence(checker)
        self.branches.remove(branch)
        self._leave(left_log, left_history, left_checkpoint, fork=shared)
        if self.observer is not None:
            self.observer.on_branch_taken(number, self.trainer.frame)
        self.history = history
        self._truncate_after(shared)  # the frames of the branch that was left, in whose places none may come
        for frame in [*frames, self.trainer.frame]:
            if frame.index >= shared:
                self.frames.truncate_to(frame)
        return self.trainer.frame

    def resume(self, checkpoint: Checkpoint, log: CommandLog, history: History) -> None:
        """Continue at the end of a log that another program ran, whose last state is a checkpoint."""
        self.replayer.resume(log, checkpoint)
        self.frames, self._recomputed, self.history = FrameStore(self.trainer.frame), {}, history

    def _branch_off(self, frame: Frame) -> None:
        """Make what is ahead of `frame`, from which another command has just run, a branch."""
        if self.newest == frame.index:
            return
        newest = self.replayer.checkpoints.newest
        self._leave(self.replayer.log.copy(), self.history.copy(), newest, fork=frame.index)
        self.replayer.truncate_after(frame.index)
        self.history.truncate_after(frame.index)
        self._truncate_after(frame.index)
        self.frames.truncate_to(frame)

    def _truncate_after(self, index: int) -> None:
        """Drop what is stored of the frames after frame `index`, beside the commands and the history."""
        self.frames.truncate_after(index)
        self.traces.truncate_after(index)
        self.watcher.truncate_after(index)
        self._recomputed = {}

    def _leave(self, log: CommandLog, history: History, newest: Checkpoint | None, *, fork: int) -> None:
        """Make a log a branch; its newest checkpoint is kept for who returns to it."""
        branch = self.branches.leave(log, history, fork=fork)
        if branch is None:
            return
        self.replayer.checkpoints.keep_of_branch(branch.number, newest, fork=fork)
        if self.observer is not None:
            self.observer.on_branch_left(branch.number, branch.loss)

    def _checker_of(self, branch: Branch, shared: int) -> tuple[ReplayChecker, History]:
        """Return what a branch is compared with, and its history, which fills on the way if another program ran it."""

        def stored(index: int) -> Frame | None:
            return self.stored(index) if index <= shared else None

        if branch.history is not None:
            return ReplayChecker(stored, branch.history), branch.history.copy()
        history = self.history.copy()
        history.truncate_after(shared)
        return RerunChecker(stored, history, after=shared), history
