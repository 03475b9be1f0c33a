"""How far going back has come, and giving it up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autograd_tui.engine.values.errors import Refused


@dataclass(frozen=True, slots=True)
class Progress:
    """Frames that have been made again on the way to another one, of how many."""

    done: int
    of: int
    home: bool = False  # on the way to where training stood, which is not given up


Watch = Callable[[Progress], bool]  # is told of each frame or iteration on the way; False gives it up


class GivenUp(Refused):
    """Say that going back was given up, and that all is as it was."""


def unwatched(progress: Progress) -> bool:
    """Go on, whatever it takes."""
    return True
