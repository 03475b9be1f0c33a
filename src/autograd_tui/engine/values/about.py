"""What does not change while a session is open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autograd_tui.engine.values.command_log import CommandLog
from autograd_tui.engine.values.memory import BUDGET
from autograd_tui.engine.values.opening import Opening
from autograd_tui.engine.values.printed import quoted


@dataclass(frozen=True, slots=True)
class About:
    """A session's name, place and source lines."""

    title: str
    device: str
    seed: int
    opening: Opening
    names: tuple[str, str, str] = ("inputs", "targets", "prediction")  # as the source lines call them
    class_names: tuple[str, ...] = ()
    tied: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # a parameter's other names, where it has some
    listing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by phase, and "setup"

    memory: int = BUDGET  # bytes for checkpoints

    @property
    def command_line(self) -> str:
        """Give the command line that opens it at frame 0."""
        return self.opening.command_line

    def repeated(self, log: CommandLog) -> str:
        """Give the command line that opens it and runs commands."""
        commands = str(log)
        return f"{self.command_line} --do {quoted(commands)}" if commands else self.command_line
