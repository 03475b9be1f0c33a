"""What does not change while a session is open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class About:
    """A session's name, place and source lines."""

    title: str
    device: str
    seed: int
    command_line: str  # that opens it at frame 0
    names: tuple[str, str, str] = ("inputs", "targets", "prediction")  # as the source lines call them
    class_names: tuple[str, ...] = ()
    tied: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # a parameter's other names, where it has some
    listing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by phase, and "setup"
