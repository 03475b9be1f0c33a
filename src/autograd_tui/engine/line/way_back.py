"""The way back: from a checkpoint, by running the same commands again, to any frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from autograd_tui.engine.line.checkpoint_line import CheckpointLine
from autograd_tui.engine.line.rerun import Changed, Rerun
from autograd_tui.engine.training.checkpoint import Checkpoint
from autograd_tui.engine.training.trainer import Trainer
from autograd_tui.engine.values.command import Command, Phase
from autograd_tui.engine.values.command_log import CommandLog
from autograd_tui.engine.values.difference import Comparison, Difference
from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.frame import Frame
from autograd_tui.engine.values.history import History
from autograd_tui.engine.values.progress import GivenUp, Progress, Watch, unwatched
from autograd_tui.engine.values.recording import Stretch
from autograd_tui.engine.values.track import Track


class WayBack:
    """The track of the present branch, and the checkpoints along it.

    `watch` is told how far a journey has come. `difference` is where the last one found other frames than were
    there, if anywhere.
    """

    def __init__(self, trainer: Trainer, checkpoints: CheckpointLine) -> None:
        self.track, self.checkpoints = Track(), checkpoints
        self.watch: Watch = unwatched
        self.difference: Difference | None = None
        self._trainer = trainer

    @property
    def commands(self) -> CommandLog:
        return self.track.commands

    def append(self, command: Command, frame: Frame) -> None:
        """Take note of a command that has led to a frame."""
        self.track.append(command, frame)

    def take_up(self, track: Track, checkpoint: Checkpoint) -> None:
        """Stand at a checkpoint that another program took, at the end of a track that it ran."""
        self._trainer.restore(checkpoint)
        self.track = track
        self.checkpoints.keep(checkpoint)

    def forget_after(self, index: int) -> None:
        """Leave the commands after frame `index`: another one has been run from there."""
        self.track.forget_after(index)
        self.checkpoints.forget_after(index)

    def recorded(self, end: int) -> list[Stretch]:
        """Give the commands up to frame `end` with what they raised."""
        return self.track.recorded(end)

    def check_repeats(self, why: str) -> None:
        """Raise Refused where running a forward again only to look at it may give other numbers, and change the run."""
        if doubt := self._trainer.doubt:
            raise Refused(f"{why}, and no forward of this model runs again just to be looked at: {doubt}.")

    def note(self, comparison: Comparison) -> None:
        """Take note of where a journey found other frames than there had been, if anywhere."""
        self.difference = comparison.first
        self._trainer.differed |= comparison.first is not None

    def go_to(
        self,
        index: int,
        *,
        from_here: bool = True,
        skipping: bool = True,
        watch: Watch = unwatched,
        comparison: Comparison | None = None,
    ) -> list[Frame]:
        """Bring the trainer to frame `index`; give the last of the frames that were made again on the way.

        Not `from_here`: what the trainer holds now is not to be built upon. Not `skipping`: every frame is made.
        Raises GivenUp, in the midst of it, where `watch` says so.
        """
        comparison = comparison or Comparison(lambda index: None, History())
        checkpoint = self.checkpoints.before(index)
        first = checkpoint.frame.index if checkpoint else 0
        if not (from_here and first <= self._trainer.frame.index <= index):
            if checkpoint:
                self._trainer.restore(checkpoint)
            else:
                self._trainer.start_over()
                comparison.see(self._trainer.frame)
        rerun = Rerun(self._trainer, self.track, self.checkpoints, watch=watch, comparison=comparison)
        try:
            return rerun.to(index, skipping=skipping)
        except Changed:  # its error belongs into a frame
            return self.go_to(index, from_here=False, skipping=False, watch=watch, comparison=comparison)

    def travel(self, index: int, comparison: Comparison) -> list[Frame]:
        """Go to a frame as long as it is wanted; raises GivenUp, back where the trainer stood."""
        return self._or_stay(lambda: self.go_to(index, watch=self.watch, comparison=comparison), comparison)

    def visit(self, index: int, comparison: Comparison) -> list[Frame]:
        """Go to a frame and come back; give the last frames of the way there, that one at the end."""
        here = self._trainer.frame.index
        found = [*self.travel(index, comparison), self._trainer.frame]
        self.return_to(here, comparison)
        self.note(comparison)
        return found

    def take_difference(self) -> Difference | None:
        """Give, once, where the last journey found another frame than there had been."""
        found, self.difference = self.difference, None
        return found

    def last(self, phase: Phase, index: int) -> int:
        """Find the frame of the last such phase up to frame `index` that did not raise; 0 where there is none."""
        while index:
            (command,) = self.commands.between(index - 1, index)
            if command.phase is phase and index not in self.track.errors:
                return index
            index -= 1
        return 0

    def go_to_start(self, forward: int, comparison: Comparison) -> None:
        """Go where the forward that led to a frame began, as long as that is wanted; raises GivenUp, as `travel`."""

        def journey() -> list[Frame]:
            self._go_to_start(forward, comparison)
            return []

        self._or_stay(journey, comparison)

    def latest_forward(self, index: int) -> int:
        """Find the frame of the forward that the iteration of frame `index` begins with, which may have raised there.

        0 where there is none.
        """
        (command,) = self.commands.between(index - 1, index) if index else (None,)
        return index if command is not None and command.phase is Phase.FORWARD else self.last(Phase.FORWARD, index)

    def state_at(self, index: int, comparison: Comparison) -> Checkpoint:
        """Give the state at a frame that a forward follows; training stays where it is."""
        self.check_repeats("a case runs the iteration again")
        if checkpoint := self.checkpoints.state_at(index):
            return checkpoint
        here = self._trainer.frame.index
        self.travel(index, comparison)
        found = self._trainer.checkpoint()
        self.return_to(here, comparison)
        return found

    def record(self, index: int, comparison: Comparison) -> None:
        """Go to a frame and record the phase that led to it, and on the way the forward that a backward stands upon."""
        (command,) = self.commands.between(index - 1, index)
        forward = self.last(Phase.FORWARD, index) if command.phase is Phase.BACKWARD else 0
        wanted = frozenset({index, forward} - {0})

        def journey() -> list[Frame]:
            self._go_to_start(min(wanted), comparison)
            rerun = Rerun(
                self._trainer, self.track, self.checkpoints, watch=self.watch, comparison=comparison, record=wanted
            )
            return rerun.to(index, skipping=False)

        self._trainer.trace = None
        self._or_stay(journey, comparison)

    def _go_to_start(self, forward: int, comparison: Comparison) -> None:
        """Stand where a forward can run as the one that led to a frame did, be it that an older graph is not there."""
        if checkpoint := self.checkpoints.at(forward - 1):
            self._trainer.restore(checkpoint)
        else:
            self.go_to(forward - 1, from_here=False, watch=self.watch, comparison=comparison)

    def return_to(self, index: int, comparison: Comparison) -> None:
        """Go to where training stood before a journey, which nobody can give up."""
        self.go_to(index, watch=self._home, comparison=comparison)
        self.note(comparison)

    def turn_into(self, track: Track, comparison: Comparison, *, skipping: bool = True) -> list[Frame]:
        """Go to the end of another track, from the last frame that both share; then this way is that one's."""
        shared = self.commands.shared_with(track.commands)
        other = WayBack(self._trainer, self.checkpoints.fork(shared))
        other.track = track
        stays = self._trainer.frame.index <= shared  # on the part that both share

        def journey() -> list[Frame]:
            return other.go_to(len(track), from_here=stays, skipping=skipping, watch=self.watch, comparison=comparison)

        found = self._or_stay(journey, comparison)
        self.track, self.checkpoints = track, other.checkpoints
        self.checkpoints.take_over()
        return found

    def undo_half_a_phase(self, frame: Frame) -> None:
        """Bring back what a phase that raised, in `frame`, had already moved."""
        self.go_to(frame.index - 1, from_here=False)
        self._trainer.frame = frame

    def _or_stay(self, journey: Callable[[], list[Frame]], comparison: Comparison) -> list[Frame]:
        here = self._trainer.frame.index
        try:
            return journey()
        except GivenUp:
            self.go_to(here, from_here=False, watch=self._home, comparison=comparison)
            raise GivenUp(f"going back was given up: training stands at frame {here}, as before.") from None
        finally:
            self.note(comparison)

    def _home(self, progress: Progress) -> bool:
        self.watch(replace(progress, home=True))
        return True
