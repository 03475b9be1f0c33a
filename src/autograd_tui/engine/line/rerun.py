"""The same commands again, from where the trainer stands to a later frame."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from time import perf_counter

from autograd_tui.engine.line.checkpoint_line import CheckpointLine
from autograd_tui.engine.training.trainer import Trainer
from autograd_tui.engine.values.command import Command, Phase
from autograd_tui.engine.values.command_log import ITERATION, Pattern
from autograd_tui.engine.values.difference import Comparison
from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.frame import Frame
from autograd_tui.engine.values.progress import GivenUp, Progress, Watch
from autograd_tui.engine.values.track import Track

WHOLE = 4  # iterations at the end of many that are run again with all their frames: one is needed, some for the arrows
MOST_SKIPPED = 10_000  # at once, since their losses are kept until they are read
MOST_FOUND = 64


class Changed(Exception):
    """Say that an iteration raised which had not: something outside the run has changed."""


class Rerun:
    """Runs a track again, and takes checkpoints on the way as the first run did.

    The phases that lead to the frames in `record` are recorded. Raises GivenUp where `watch` gives it up and Changed,
    where iterations are skipped, both in the midst of it.
    """

    def __init__(
        self,
        trainer: Trainer,
        track: Track,
        checkpoints: CheckpointLine,
        *,
        watch: Watch,
        comparison: Comparison,
        record: frozenset[int] = frozenset(),
    ) -> None:
        self._record = record
        self._trainer, self._track, self._checkpoints = trainer, track, checkpoints
        self._watch, self._comparison = watch, comparison
        self._found: deque[Frame] = deque(maxlen=MOST_FOUND)
        self._first = self._end = 0

    def to(self, end: int, *, skipping: bool) -> list[Frame]:
        """Run up to frame `end`; give the last of the frames that were made on the way.

        Not `skipping`: every frame is made.
        """
        self._first, self._end = self._trainer.frame.index, end
        for pattern, times in self._track.commands.stretches(self._first, end):
            left = times
            while left:
                skipped = self._skip(left - WHOLE) if skipping and self._is_regular(pattern, left) else 0
                for command in pattern:
                    self._run(command, settled=not skipped)
                if skipped:  # only the last of these frames shows nothing of an earlier iteration
                    self._comparison.see(self._trainer.frame)
                    self._found = deque([self._trainer.frame], maxlen=MOST_FOUND)
                left -= skipped + 1
        return list(self._found)

    def _is_regular(self, pattern: Pattern, times: int) -> bool:
        start = self._trainer.frame.index
        return pattern == ITERATION and times > WHOLE and not self._track.raised_between(start, start + 4 * times)

    def _skip(self, most: int) -> int:
        """Run whole iterations without frames until a checkpoint is due; tell how many."""
        line, start, started = self._checkpoints, self._trainer.frame.index, perf_counter()
        checkpoint = line.take_if_due()
        most = min(most, MOST_SKIPPED)
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
            raise Changed from stretch.raised
        self._comparison.see_losses(start + 1, stretch.losses)
        self._go_on_or_give_up()
        return done

    def _run(self, command: Command, *, settled: bool) -> None:
        """Run a command as it ran before; its error keeps its text, which may count what has happened since.

        Not `settled`: the frame shows something of an earlier iteration, and is no beginning for others.
        """
        trainer, line, started = self._trainer, self._checkpoints, perf_counter()
        index = trainer.frame.index + 1
        error = self._track.errors.get(index)
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
        self._found.append(trainer.frame)
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
            raise GivenUp("going back was given up.")
