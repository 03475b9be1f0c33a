"""What was rewound over: branches that one can return to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.frame import Frame
from autograd_tui.engine.values.history import History
from autograd_tui.engine.values.track import Track

MOST = 100  # the newest ones are kept; a track is small, a history up to 200 kB


@dataclass(frozen=True, slots=True)
class Branch:
    """A whole run from frame 0 on, as it was when another command was run from one of its frames; it never changes."""

    number: int  # in order of abandonment, from 1, and never given twice
    track: Track
    history: History | None  # None where another program ran it: taking it runs it once more
    fork: int  # the last frame that it shared with what took its place
    told: float | None = None  # its last loss, where there is no history
    ends_as: Callable[[Frame], bool] | None = None  # there, whether a frame is the one that it ended with

    def __len__(self) -> int:
        return len(self.track)

    @property
    def loss(self) -> float | None:
        """Give the last loss that it measured."""
        return self.told if self.history is None else self.history.last_loss


class Branches:
    """Branches in order of abandonment; the one that is returned to leaves the list."""

    def __init__(self) -> None:
        self._left = 0  # by now
        self.kept: tuple[Branch, ...] = ()  # replaced, never changed: any thread may read it

    def leave(self, track: Track, history: History | None, *, fork: int, told: float | None = None) -> Branch | None:
        """Keep a run whose frames after `fork` are about to be left, where there are any, as a branch; give it."""
        if len(track) <= fork:
            return None
        self._left += 1
        left = Branch(self._left, track, history, fork, told)
        self.kept = (*self.kept, left)[-MOST:]
        return left

    def get(self, number: int) -> Branch:
        """Give a branch by its number; raises Refused where there is none, or none any more."""
        found = next((branch for branch in self.kept if branch.number == number), None)
        if found is None:
            numbers = [str(branch.number) for branch in self.kept]
            there = f"there is {' '.join(numbers[-8:])}" if numbers else "nothing has been rewound over yet"
            raise Refused(f"there is no branch {number}: {there}.")
        return found

    def remove(self, branch: Branch) -> None:
        """Take a branch out: it is the present one now."""
        self.kept = tuple(each for each in self.kept if each is not branch)
