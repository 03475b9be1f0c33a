"""How far going back or a proof has come, and giving it up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autograd_tui.engine.values.errors import Refused


@dataclass(frozen=True, slots=True)
class Progress:
    """Frames that have been made again on the way to another one, of how many; of a `proof` the slopes measured."""

    done: int
    of: int  # of a proof 0 until it is known
    home: bool = False  # on the way to where training stood, which is not given up
    proof: str = ""  # of what gradient


Watch = Callable[[Progress], bool]  # is told of each frame, iteration or forward on the way; False gives it up


class GivenUp(Refused):
    """Say that going back was given up, and that all is as it was."""


def unwatched(progress: Progress) -> bool:
    """Go on, whatever it takes."""
    return True
