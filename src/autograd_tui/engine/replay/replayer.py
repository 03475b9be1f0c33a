"""The replayer: restores a checkpoint and runs the same commands again, to any frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

from torch import Tensor

from autograd_tui.core.command import Command, Phase
from autograd_tui.core.command_log import ITERATION, CommandLog
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History
from autograd_tui.core.replay_check import Divergence, ReplayChecker
from autograd_tui.core.run_observer import Cancelled, Interrupted, Progress, ProgressCallback, unwatched
from autograd_tui.engine.replay.checkpoints import CheckpointStore
from autograd_tui.engine.training.checkpoint import Checkpoint
from autograd_tui.engine.training.interruption import Interrupt
from autograd_tui.engine.training.trainer import Trainer
from autograd_tui.engine.training.user_code import place_of, torch_error

FULL_ITERATIONS = 4  # at the end of many, run again with all their frames: one is needed, some for the arrows
MAX_SKIPPED = 10_000  # iterations at once, since their losses are kept until they are read
MAX_FRAMES = 64


class ReplayDiverged(Exception):
    """An iteration raised which had not: something outside the run has changed."""


class ReplayPass:
    """Runs commands of a log again, and takes checkpoints on the way as the first run did.

    The phases that lead to the frames in `record` are recorded. Raises Cancelled where `watch` returns False,
    ReplayDiverged where an iteration without frames raises, and Interrupt where `interrupt` has ended a phase; training
    is then at some frame in between, or within a phase.
    """

    def __init__(
        self,
        trainer: Trainer,
        log: CommandLog,
        checkpoints: CheckpointStore,
        *,
        watch: ProgressCallback,
        checker: ReplayChecker,
        record: frozenset[int] = frozenset(),
    ) -> None:
        self._record = record
        self._trainer, self._log, self._checkpoints = trainer, log, checkpoints
        self._watch, self._checker = watch, checker
        self._frames: deque[Frame] = deque(maxlen=MAX_FRAMES)
        self._first = self._end = 0

    def to(self, end: int, *, skipping: bool) -> list[Frame]:
        """Run up to frame `end`, and return up to MAX_FRAMES frames that were computed last.

        skipping: most of many iterations run without frames.
        """
        self._first, self._end = self._trainer.frame.index, end
        for pattern, times in self._log.blocks(self._first, end):
            remaining = times
            while remaining:
                skippable = remaining - FULL_ITERATIONS if skipping and pattern == ITERATION else 0
                skipped = self._skip(skippable) if skippable > 0 else 0
                for command in pattern:
                    self._run(command, settled=not skipped)
                if skipped:  # only the last of these frames shows nothing of an earlier iteration
                    self._checker.check(self._trainer.frame)
                    self._frames = deque([self._trainer.frame], maxlen=MAX_FRAMES)
                remaining -= skipped + 1
        return list(self._frames)

    def _skip(self, limit: int) -> int:
        """Run up to `limit` iterations without frames until a checkpoint is due, and return how many."""
        checkpoints, start, started = self._checkpoints, self._trainer.frame.index, perf_counter()
        checkpoint = checkpoints.take_if_due()
        limit = min(limit, MAX_SKIPPED)

        def goes_on(done: int, loss: float | Tensor) -> bool:
            wanted = self._is_wanted(start + done * len(Phase))
            return wanted and done < limit and not checkpoints.is_due(perf_counter() - started)

        run = self._trainer.iterate(goes_on)
        done = len(run.losses)
        if checkpoint:
            (checkpoints.keep if done else checkpoints.drop)(checkpoint)
        checkpoints.spend(perf_counter() - started, frames=done * len(Phase))
        if isinstance(run.raised, Interrupt):
            raise run.raised
        if run.raised is not None:
            if torch_error(run.raised).is_out_of_memory:
                checkpoints.leave_device()
            raise ReplayDiverged from run.raised
        self._checker.check_losses(start + 1, run.losses)
        self._check_wanted()
        return done

    def _run(self, command: Command, *, settled: bool) -> None:
        """Run a command as it ran before; its error keeps its text, which may count what has happened since.

        Not `settled`: the frame shows something of an earlier iteration, and is no beginning for others.
        """
        trainer, checkpoints, started = self._trainer, self._checkpoints, perf_counter()
        index = trainer.frame.index + 1
        error = self._log.errors.get(index)
        forward = command.phase is Phase.FORWARD and error is None
        checkpoint = checkpoints.take_if_due() if settled and forward else None
        if error is None or not error.leaves_half_done(command.phase):  # for what was undone left nothing behind
            self._run_in_turn(command)
        if error is not None:
            first = error if error.message or trainer.frame.error is None else trainer.frame.error
            trainer.frame = replace(trainer.frame, index=index, command=command, error=first)
        checkpoints.spend(perf_counter() - started)
        if trainer.frame.error and trainer.frame.error.is_out_of_memory:
            checkpoints.leave_device()
        if checkpoint:
            (checkpoints.drop if trainer.frame.error else checkpoints.keep)(checkpoint)
        if settled:
            self._checker.check(trainer.frame)
        self._frames.append(trainer.frame)
        self._check_wanted()

    def _run_in_turn(self, command: Command) -> None:
        """Run a command that was in turn the first time; where something else raised now, it is forced."""
        recorded = self._trainer.frame.index + 1 in self._record
        try:
            self._trainer.run(command, recorded=recorded)
        except Refused:
            self._trainer.run(replace(command, forced=True), recorded=recorded)
            self._trainer.frame = replace(self._trainer.frame, command=command)

    def _is_wanted(self, index: int) -> bool:
        return index == self._end or self._watch(Progress(index - self._first, self._end - self._first))

    def _check_wanted(self) -> None:
        if not self._is_wanted(self._trainer.frame.index):
            raise Cancelled("going back was given up.")


class Replayer:
    """Moves training along the log of the present branch, from the checkpoints that are kept of it.

    `watch` is called with the progress of each move, and may cancel it. `divergence` is where the last move computed
    another frame than there had been, if anywhere.
    """

    def __init__(self, trainer: Trainer, checkpoints: CheckpointStore) -> None:
        self.log, self.checkpoints = CommandLog(), checkpoints
        self.watch: ProgressCallback = unwatched
        self.divergence: Divergence | None = None
        self._trainer = trainer

    def resume(self, log: CommandLog, checkpoint: Checkpoint) -> None:
        """Continue at a checkpoint that another program took, at the end of a log that it ran."""
        self._trainer.restore(checkpoint)
        self.log = log
        self.checkpoints.keep(checkpoint)

    def truncate_after(self, index: int) -> None:
        """Drop the commands after frame `index`: another one has been run from there."""
        self.log.truncate_after(index)
        self.checkpoints.drop_from(index)

    def check_repeats(self, why: str) -> None:
        """Raise Refused where running a forward again only to look at it may give other numbers, and change the run."""
        if reason := self._trainer.unrepeatable_reason:
            raise Refused(f"{why}, and no forward of this model runs again just to be looked at: {reason}.")

    def note_divergence(self, checker: ReplayChecker) -> None:
        """Remember where a move computed other frames than there had been, if anywhere."""
        self.divergence = checker.divergence
        self._trainer.diverged |= checker.divergence is not None

    def take_divergence(self) -> Divergence | None:
        """Return, once, where the last move computed another frame than there had been."""
        divergence, self.divergence = self.divergence, None
        return divergence

    # Frames of the log.

    def last(self, phase: Phase, index: int) -> int:
        """Return the frame of the last such phase up to frame `index` that did not raise; 0 where there is none."""
        while index:
            if self._leads_to(phase, index) and index not in self.log.errors:
                return index
            index -= 1
        return 0

    def latest_forward(self, index: int) -> int:
        """Return the frame of the forward that the iteration of frame `index` begins with; 0 where there is none.

        It may be `index` itself, where that forward raised.
        """
        return index if self._leads_to(Phase.FORWARD, index) else self.last(Phase.FORWARD, index)

    def _leads_to(self, phase: Phase, index: int) -> bool:
        command = self.log.leading_to(index)
        return command is not None and command.phase is phase

    # Moving training.

    def go_to(
        self,
        index: int,
        *,
        from_here: bool = True,
        skipping: bool = True,
        watch: ProgressCallback = unwatched,
        checker: ReplayChecker | None = None,
    ) -> list[Frame]:
        """Move training to frame `index`, and return the frames that were computed last on the way.

        Not `from_here`: the trainer's present state is not to be built upon. Not `skipping`: every frame is computed.
        Raises Cancelled, in the midst of it, where `watch` cancels.
        """
        checker = checker or ReplayChecker(lambda index: None, History())
        checkpoint = self.checkpoints.before(index)
        first = checkpoint.frame.index if checkpoint else 0
        if not (from_here and first <= self._trainer.frame.index <= index):
            if checkpoint:
                self._trainer.restore(checkpoint)
            else:
                self._trainer.rebuild()
                checker.check(self._trainer.frame)
        replay = ReplayPass(self._trainer, self.log, self.checkpoints, watch=watch, checker=checker)
        try:
            return replay.to(index, skipping=skipping)
        except ReplayDiverged:  # its error belongs into a frame
            return self.go_to(index, from_here=False, skipping=False, watch=watch, checker=checker)

    def travel(self, index: int, checker: ReplayChecker) -> list[Frame]:
        """Move training to frame `index`; where `watch` cancels, move it back and raise Cancelled."""
        return self._or_stay(lambda: self.go_to(index, watch=self.watch, checker=checker), checker)

    def visit(self, index: int, checker: ReplayChecker) -> list[Frame]:
        """Move training to frame `index` and back, and return the last frames of the way there, that one at the end."""
        here = self._trainer.frame.index
        frames = [*self.travel(index, checker), self._trainer.frame]
        self.return_to(here, checker)
        return frames

    def return_to(self, index: int, checker: ReplayChecker) -> None:
        """Move training to where it was before, which `watch` cannot cancel."""
        try:
            self.go_to(index, watch=self._report_return, checker=checker)
        except Interrupt as error:
            self.restore_frame(index)
            raise Interrupted(f"the way back was interrupted: {self._standing(index)}.") from error
        self.note_divergence(checker)

    def restore_frame(self, index: int, checker: ReplayChecker | None = None) -> None:
        """Move training to frame `index` anew, whatever state it is in.

        Where that is interrupted too, it is left at the checkpoint before, from where nothing has to run.
        """
        try:
            self.go_to(index, from_here=False, watch=self._report_return, checker=checker)
        except Interrupt:
            if checkpoint := self.checkpoints.before(index):
                self._trainer.restore(checkpoint)
            else:
                self._trainer.rebuild()

    def _standing(self, index: int) -> str:
        """Return where training stands after an attempt to restore frame `index`."""
        here = self._trainer.frame.index
        return f"training stands at frame {here}{', as before' if here == index else ' now'}"

    def go_to_start(self, forward: int, checker: ReplayChecker) -> None:
        """Move training to where the forward that led to frame `forward` began; raises Cancelled as `travel` does."""

        def move() -> list[Frame]:
            self._go_to_start(forward, checker)
            return []

        self._or_stay(move, checker)

    def state_at(self, index: int, checker: ReplayChecker) -> Checkpoint:
        """Return the state at a frame that a forward follows; training stays where it is."""
        self.check_repeats("a repro runs the iteration again")
        if checkpoint := self.checkpoints.state_at(index):
            return checkpoint
        here = self._trainer.frame.index
        self.travel(index, checker)
        checkpoint = self._trainer.checkpoint()
        self.return_to(here, checker)
        return checkpoint

    def record(self, index: int, checker: ReplayChecker) -> None:
        """Move training to frame `index` and record the phase that led to it, and the forward that a backward needs."""
        forward = self.last(Phase.FORWARD, index) if self._leads_to(Phase.BACKWARD, index) else 0
        wanted = frozenset({index, forward} - {0})

        def move() -> list[Frame]:
            self._go_to_start(min(wanted), checker)
            replay = ReplayPass(
                self._trainer, self.log, self.checkpoints, watch=self.watch, checker=checker, record=wanted
            )
            return replay.to(index, skipping=False)

        self._trainer.trace = None
        self._or_stay(move, checker)

    def switch_to(self, log: CommandLog, checker: ReplayChecker, *, branch: int, skipping: bool = True) -> list[Frame]:
        """Move training to the end of the log of a branch, and keep that log.

        It runs again from the branch's last checkpoint, where that is kept, else from the last frame that both share.
        """
        shared = self.log.shared_with(log)
        other = Replayer(self._trainer, self.checkpoints.fork(shared, branch=branch))
        other.log = log
        from_here = self._trainer.frame.index <= shared

        def move() -> list[Frame]:
            return other.go_to(len(log), from_here=from_here, skipping=skipping, watch=self.watch, checker=checker)

        frames = self._or_stay(move, checker)
        self.log, self.checkpoints = log, other.checkpoints
        self.checkpoints.take_over(branch)
        return frames

    def undo_half_phase(self, frame: Frame, checker: ReplayChecker) -> None:
        """Restore what a phase that raised, in `frame`, had already moved."""
        self.go_to(frame.index - 1, from_here=False, checker=checker)
        self.note_divergence(checker)
        self._trainer.frame = frame

    def _go_to_start(self, forward: int, checker: ReplayChecker) -> None:
        """Restore the state just before the forward that led to frame `forward`; older graphs are not rebuilt."""
        if checkpoint := self.checkpoints.at(forward - 1):
            self._trainer.restore(checkpoint)
        else:
            self.go_to(forward - 1, from_here=False, watch=self.watch, checker=checker)

    def _or_stay(self, move: Callable[[], list[Frame]], checker: ReplayChecker) -> list[Frame]:
        """Return what `move` does; where it is cancelled or interrupted, move training back and raise so."""
        here = self._trainer.frame.index
        try:
            return move()
        except Cancelled:
            self.restore_frame(here, checker)
            raise Cancelled(f"going back was given up: {self._standing(here)}.") from None
        except Interrupt as error:
            self.restore_frame(here, checker)
            raise Interrupted(f"going back was interrupted{place_of(error)}: {self._standing(here)}.") from error
        finally:
            self.note_divergence(checker)

    def _report_return(self, progress: Progress) -> bool:
        self.watch(replace(progress, home=True))
        return True
