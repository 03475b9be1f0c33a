"""The replayer: restores a checkpoint and runs the same commands again, to any frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

from autograd_tui.core.command import Command, Phase
from autograd_tui.core.command_log import ITERATION, CommandLog
from autograd_tui.core.divergence import Divergence, ReplayChecker
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History
from autograd_tui.core.run_observer import Cancelled, Progress, Watch, unwatched
from autograd_tui.engine.replay.checkpoints import CheckpointStore
from autograd_tui.engine.training.checkpoint import Checkpoint
from autograd_tui.engine.training.trainer import Trainer

FULL_ITERATIONS = (
    4  # iterations at the end of many that are run again with all their frames: one is needed, some for the arrows
)
MAX_SKIPPED = 10_000  # at once, since their losses are kept until they are read
MAX_FRAMES = 64


class ReplayDiverged(Exception):
    """Say that an iteration raised which had not: something outside the run has changed."""


class Replay:
    """Runs a log again, and takes checkpoints on the way as the first run did.

    The phases that lead to the frames in `record` are recorded. Raises Cancelled where `watch` returns False, and
    ReplayDiverged where an iteration without frames raises; the trainer then stands somewhere in between.
    """

    def __init__(
        self,
        trainer: Trainer,
        log: CommandLog,
        checkpoints: CheckpointStore,
        *,
        watch: Watch,
        checker: ReplayChecker,
        record: frozenset[int] = frozenset(),
    ) -> None:
        self._record = record
        self._trainer, self._log, self._checkpoints = trainer, log, checkpoints
        self._watch, self._comparison = watch, checker
        self._frames: deque[Frame] = deque(maxlen=MAX_FRAMES)
        self._first = self._end = 0

    def to(self, end: int, *, skipping: bool) -> list[Frame]:
        """Run up to frame `end`; give the last of the frames that were made on the way.

        Not `skipping`: every frame is made.
        """
        self._first, self._end = self._trainer.frame.index, end
        for pattern, times in self._log.blocks(self._first, end):
            left = times
            while left:
                skippable = left - FULL_ITERATIONS if skipping and pattern == ITERATION else 0
                skipped = self._skip(skippable) if skippable > 0 else 0
                for command in pattern:
                    self._run(command, settled=not skipped)
                if skipped:  # only the last of these frames shows nothing of an earlier iteration
                    self._comparison.see(self._trainer.frame)
                    self._frames = deque([self._trainer.frame], maxlen=MAX_FRAMES)
                left -= skipped + 1
        return list(self._frames)

    def _skip(self, most: int) -> int:
        """Run whole iterations without frames until a checkpoint is due; tell how many."""
        line, start, started = self._checkpoints, self._trainer.frame.index, perf_counter()
        checkpoint = line.take_if_due()
        most = min(most, MAX_SKIPPED)
        stretch = self._trainer.iterate(
            lambda done, loss: (
                self._goes_on(start + done * len(Phase)) and done < most and not line.is_due(perf_counter() - started)
            )
        )
        done = len(stretch.losses)
        if checkpoint:
            (line.keep if done else line.drop)(checkpoint)
        line.spend(perf_counter() - started, frames=done * len(Phase))
        if stretch.raised is not None:
            raise ReplayDiverged from stretch.raised
        self._comparison.see_losses(start + 1, stretch.losses)
        self._go_on_or_give_up()
        return done

    def _run(self, command: Command, *, settled: bool) -> None:
        """Run a command as it ran before; its error keeps its text, which may count what has happened since.

        Not `settled`: the frame shows something of an earlier iteration, and is no beginning for others.
        """
        trainer, line, started = self._trainer, self._checkpoints, perf_counter()
        index = trainer.frame.index + 1
        error = self._log.errors.get(index)
        forward = command.phase is Phase.FORWARD and error is None
        checkpoint = line.take_if_due() if settled and forward else None
        if error is None or not error.leaves_half_done(command.phase):  # for what was undone left nothing behind
            self._run_in_turn(command)
        if error is not None:
            known = error if error.message or trainer.frame.error is None else trainer.frame.error
            trainer.frame = replace(trainer.frame, index=index, command=command, error=known)
        line.spend(perf_counter() - started)
        if checkpoint:
            (line.drop if trainer.frame.error else line.keep)(checkpoint)
        if settled:
            self._comparison.see(trainer.frame)
        self._frames.append(trainer.frame)
        self._go_on_or_give_up()

    def _run_in_turn(self, command: Command) -> None:
        """Run a command, as it was its turn then; now it may not be, where something raised that had not."""
        recorded = self._trainer.frame.index + 1 in self._record
        try:
            self._trainer.run(command, recorded=recorded)
        except Refused:
            self._trainer.run(replace(command, forced=True), recorded=recorded)
            self._trainer.frame = replace(self._trainer.frame, command=command)

    def _goes_on(self, index: int) -> bool:
        return index == self._end or self._watch(Progress(index - self._first, self._end - self._first))

    def _go_on_or_give_up(self) -> None:
        if not self._goes_on(self._trainer.frame.index):
            raise Cancelled("going back was given up.")


class Replayer:
    """The log of the present branch, and the checkpoints along it.

    `watch` is told how far a journey has come. `difference` is where the last one found other frames than were
    there, if anywhere.
    """

    def __init__(self, trainer: Trainer, checkpoints: CheckpointStore) -> None:
        self.log, self.checkpoints = CommandLog(), checkpoints
        self.watch: Watch = unwatched
        self.difference: Divergence | None = None
        self._trainer = trainer

    def resume(self, log: CommandLog, checkpoint: Checkpoint) -> None:
        """Continue at a checkpoint that another program took, at the end of a log that it ran."""
        self._trainer.restore(checkpoint)
        self.log = log
        self.checkpoints.keep(checkpoint)

    def truncate_after(self, index: int) -> None:
        """Leave the commands after frame `index`: another one has been run from there."""
        self.log.truncate_after(index)
        self.checkpoints.drop_from(index)

    def check_repeats(self, why: str) -> None:
        """Raise Refused where running a forward again only to look at it may give other numbers, and change the run."""
        if doubt := self._trainer.doubt:
            raise Refused(f"{why}, and no forward of this model runs again just to be looked at: {doubt}.")

    def note(self, checker: ReplayChecker) -> None:
        """Take note of where a journey found other frames than there had been, if anywhere."""
        self.difference = checker.first
        self._trainer.differed |= checker.first is not None

    def go_to(
        self,
        index: int,
        *,
        from_here: bool = True,
        skipping: bool = True,
        watch: Watch = unwatched,
        checker: ReplayChecker | None = None,
    ) -> list[Frame]:
        """Bring the trainer to frame `index`; give the last of the frames that were made again on the way.

        Not `from_here`: what the trainer holds now is not to be built upon. Not `skipping`: every frame is made.
        Raises Cancelled, in the midst of it, where `watch` says so.
        """
        checker = checker or ReplayChecker(lambda index: None, History())
        checkpoint = self.checkpoints.before(index)
        first = checkpoint.frame.index if checkpoint else 0
        if not (from_here and first <= self._trainer.frame.index <= index):
            if checkpoint:
                self._trainer.restore(checkpoint)
            else:
                self._trainer.start_over()
                checker.see(self._trainer.frame)
        rerun = Replay(self._trainer, self.log, self.checkpoints, watch=watch, checker=checker)
        try:
            return rerun.to(index, skipping=skipping)
        except ReplayDiverged:  # its error belongs into a frame
            return self.go_to(index, from_here=False, skipping=False, watch=watch, checker=checker)

    def travel(self, index: int, checker: ReplayChecker) -> list[Frame]:
        """Go to a frame as long as it is wanted; raises Cancelled, back where the trainer stood."""
        return self._or_stay(lambda: self.go_to(index, watch=self.watch, checker=checker), checker)

    def visit(self, index: int, checker: ReplayChecker) -> list[Frame]:
        """Go to a frame and come back; give the last frames of the way there, that one at the end."""
        here = self._trainer.frame.index
        found = [*self.travel(index, checker), self._trainer.frame]
        self.return_to(here, checker)
        self.note(checker)
        return found

    def take_difference(self) -> Divergence | None:
        """Give, once, where the last journey found another frame than there had been."""
        found, self.difference = self.difference, None
        return found

    def last(self, phase: Phase, index: int) -> int:
        """Find the frame of the last such phase up to frame `index` that did not raise; 0 where there is none."""
        while index:
            command = self.log.leading_to(index)
            if command is not None and command.phase is phase and index not in self.log.errors:
                return index
            index -= 1
        return 0

    def go_to_start(self, forward: int, checker: ReplayChecker) -> None:
        """Go where the forward that led to a frame began, as long as that is wanted; raises Cancelled, as `travel`."""

        def journey() -> list[Frame]:
            self._go_to_start(forward, checker)
            return []

        self._or_stay(journey, checker)

    def latest_forward(self, index: int) -> int:
        """Find the frame of the forward that the iteration of frame `index` begins with, which may have raised there.

        0 where there is none.
        """
        command = self.log.leading_to(index)
        return index if command is not None and command.phase is Phase.FORWARD else self.last(Phase.FORWARD, index)

    def state_at(self, index: int, checker: ReplayChecker) -> Checkpoint:
        """Give the state at a frame that a forward follows; training stays where it is."""
        self.check_repeats("a case runs the iteration again")
        if checkpoint := self.checkpoints.state_at(index):
            return checkpoint
        here = self._trainer.frame.index
        self.travel(index, checker)
        found = self._trainer.checkpoint()
        self.return_to(here, checker)
        return found

    def record(self, index: int, checker: ReplayChecker) -> None:
        """Go to a frame and record the phase that led to it, and on the way the forward that a backward stands upon."""
        command = self.log.leading_to(index)
        forward = self.last(Phase.FORWARD, index) if command is not None and command.phase is Phase.BACKWARD else 0
        wanted = frozenset({index, forward} - {0})

        def journey() -> list[Frame]:
            self._go_to_start(min(wanted), checker)
            rerun = Replay(self._trainer, self.log, self.checkpoints, watch=self.watch, checker=checker, record=wanted)
            return rerun.to(index, skipping=False)

        self._trainer.trace = None
        self._or_stay(journey, checker)

    def _go_to_start(self, forward: int, checker: ReplayChecker) -> None:
        """Stand where a forward can run as the one that led to a frame did, be it that an older graph is not there."""
        if checkpoint := self.checkpoints.at(forward - 1):
            self._trainer.restore(checkpoint)
        else:
            self.go_to(forward - 1, from_here=False, watch=self.watch, checker=checker)

    def return_to(self, index: int, checker: ReplayChecker) -> None:
        """Go to where training stood before a journey, which nobody can give up."""
        self.go_to(index, watch=self._home, checker=checker)
        self.note(checker)

    def turn_into(self, log: CommandLog, checker: ReplayChecker, *, skipping: bool = True) -> list[Frame]:
        """Go to the end of another log, from the last frame that both share, and keep that log."""
        shared = self.log.shared_with(log)
        other = Replayer(self._trainer, self.checkpoints.fork(shared))
        other.log = log
        stays = self._trainer.frame.index <= shared  # on the part that both share

        def journey() -> list[Frame]:
            return other.go_to(len(log), from_here=stays, skipping=skipping, watch=self.watch, checker=checker)

        found = self._or_stay(journey, checker)
        self.log, self.checkpoints = log, other.checkpoints
        self.checkpoints.take_over()
        return found

    def undo_half_a_phase(self, frame: Frame) -> None:
        """Bring back what a phase that raised, in `frame`, had already moved."""
        self.go_to(frame.index - 1, from_here=False)
        self._trainer.frame = frame

    def _or_stay(self, journey: Callable[[], list[Frame]], checker: ReplayChecker) -> list[Frame]:
        here = self._trainer.frame.index
        try:
            return journey()
        except Cancelled:
            self.go_to(here, from_here=False, watch=self._home, checker=checker)
            raise Cancelled(f"going back was given up: training stands at frame {here}, as before.") from None
        finally:
            self.note(checker)

    def _home(self, progress: Progress) -> bool:
        self.watch(replace(progress, home=True))
        return True
