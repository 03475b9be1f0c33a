"""The track: the commands of one branch from frame 0 on, and what they raised."""

from __future__ import annotations

from autograd_tui.engine.values.command import Command
from autograd_tui.engine.values.command_log import CommandLog
from autograd_tui.engine.values.frame import Frame, TorchError
from autograd_tui.engine.values.recording import Step, Stretch


class Track:
    """Enough to run one branch again, frame by frame."""

    def __init__(self) -> None:
        self.commands = CommandLog()  # the n-th one led to frame n
        self.errors: dict[int, TorchError] = {}  # by frame

    def __len__(self) -> int:
        return len(self.commands)

    def append(self, command: Command, frame: Frame) -> None:
        """Take note of a command that has led to a frame."""
        self.commands.append(command)
        if frame.error:
            self.errors[frame.index] = frame.error

    def forget_after(self, index: int) -> None:
        """Leave the commands after frame `index`: another one has been run from there."""
        self.commands.forget_after(index)
        self.errors = {each: error for each, error in self.errors.items() if each <= index}

    def copy(self) -> Track:
        """Give a track of its own, which goes on without this one."""
        other = Track()
        other.commands, other.errors = self.commands.copy(), dict(self.errors)
        return other

    def raised_between(self, start: int, end: int) -> bool:
        """Tell whether any command after frame `start`, up to frame `end`, raised."""
        return any(start < index <= end for index in self.errors)

    def recorded(self, end: int) -> list[Stretch]:
        """Give the commands up to frame `end` with what they raised."""
        found, start = [], 0
        for pattern, times in self.commands.stretches(0, end):
            ends = start + len(pattern) * times
            if not self.raised_between(start, ends):
                found.append(Stretch(tuple(map(Step, pattern)), times))
            else:
                turns = range(start, ends, len(pattern))
                found += [Stretch(self.steps(turn, turn + len(pattern))) for turn in turns]
            start = ends
        return found

    def steps(self, start: int, end: int) -> tuple[Step, ...]:
        """Give the commands after frame `start`, up to frame `end`, one by one with what they raised."""
        commands = enumerate(self.commands.between(start, end), start + 1)
        return tuple(Step(command, self._raised(index)) for index, command in commands)

    def _raised(self, index: int) -> str | None:
        error = self.errors.get(index)
        return error.type if error else None
