"""The way back: from a checkpoint, by running the same commands again, to any frame."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from autograd_tui.engine.checkpoint_line import CheckpointLine
from autograd_tui.engine.command import Command, Phase
from autograd_tui.engine.command_log import ITERATION, CommandLog, Pattern
from autograd_tui.engine.frame import Frame, TorchError
from autograd_tui.engine.recording import Step, Stretch
from autograd_tui.engine.trainer import Trainer

WHOLE = 4  # iterations at the end of many that are run again with all their frames: one is needed, some for the arrows
MOST_FOUND = 64


class WayBack:
    """The commands of one branch, what they raised, and the checkpoints among them."""

    def __init__(self, trainer: Trainer, checkpoints: CheckpointLine) -> None:
        self.commands = CommandLog()  # the n-th one led to frame n
        self.checkpoints = checkpoints
        self._trainer = trainer
        self._errors: dict[int, TorchError] = {}  # by frame

    def append(self, command: Command, frame: Frame) -> None:
        """Take note of a command that has led to a frame."""
        self.commands.append(command)
        if frame.error:
            self._errors[frame.index] = frame.error

    def forget_after(self, index: int) -> None:
        """Leave the commands after frame `index`: another one has been run from there."""
        self.commands.forget_after(index)
        self.checkpoints.forget_after(index)
        self._errors = {each: error for each, error in self._errors.items() if each <= index}

    def recorded(self, end: int) -> list[Stretch]:
        """Give the commands up to frame `end` with what they raised."""
        found, start = [], 0
        for pattern, times in self.commands.stretches(0, end):
            ends = start + len(pattern) * times
            if not any(start < index <= ends for index in self._errors):
                found.append(Stretch(tuple(map(Step, pattern)), times))
            else:
                found += [Stretch(self._steps(pattern, start + len(pattern) * turn)) for turn in range(times)]
            start = ends
        return found

    def _steps(self, pattern: Pattern, start: int) -> tuple[Step, ...]:
        errors = [self._errors.get(start + place) for place in range(1, len(pattern) + 1)]
        return tuple(
            Step(command, error.type if error else None) for command, error in zip(pattern, errors, strict=True)
        )

    def go_to(self, index: int, *, from_here: bool = True, skipping: bool = True) -> list[Frame]:
        """Bring the trainer to frame `index`; give the last of the frames that were made again on the way.

        Not `from_here`: what the trainer holds now is not to be built upon. Not `skipping`: every frame is made.
        """
        checkpoint = self.checkpoints.before(index)
        if not (from_here and checkpoint.frame.index <= self._trainer.frame.index <= index):
            self._trainer.restore(checkpoint)
        found: deque[Frame] = deque(maxlen=MOST_FOUND)
        for pattern, times in self.commands.stretches(self._trainer.frame.index, index):
            skipped = self._skip(pattern, times) if skipping else 0
            if skipped is None:  # something outside the run has changed: its error belongs into a frame
                return self.go_to(index, from_here=False, skipping=False)
            if skipped:
                for command in pattern:
                    self._run_again(command)  # only the last of these frames shows nothing of an earlier iteration
                found = deque([self._trainer.frame], maxlen=MOST_FOUND)
            for _ in range(times - skipped - bool(skipped)):
                found.extend(self._run_again(command) for command in pattern)
        return list(found)

    def undo_half_a_step(self, frame: Frame) -> None:
        """Bring back what a step that raised, in `frame`, had already moved."""
        self.go_to(frame.index - 1, from_here=False)
        self._trainer.frame = frame

    def _skip(self, pattern: Pattern, times: int) -> int | None:
        """Run most of many whole iterations without frames; tell how many, or None where one raised."""
        start, many = self._trainer.frame.index, times - WHOLE
        raised = any(start < index <= start + len(pattern) * times for index in self._errors)
        if pattern != ITERATION or many < 1 or raised:
            return 0
        stretch = self._trainer.iterate(lambda done, loss: done < many)
        return None if stretch.raised else many

    def _run_again(self, command: Command) -> Frame:
        """Run a command as it ran before; its error keeps its text, which may count what has happened since."""
        index = self._trainer.frame.index + 1
        error = self._errors.get(index)
        if error is None or command.phase is not Phase.STEP:  # a step that raised left nothing behind
            self._trainer.run(command)
        if error is not None:
            self._trainer.frame = replace(self._trainer.frame, index=index, command=command, error=error)
        return self._trainer.frame
