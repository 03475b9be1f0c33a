"""What observes a run: the observer of everything that runs, and the callback that can cancel what takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from autograd_tui.core.command_log import Pattern
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History


@dataclass(frozen=True, slots=True)
class Problem:
    """What of a run is not stored on disk."""

    mark: str  # in a word or two: "not kept"
    sentence: str


class RunObserver(Protocol):
    """Called with everything that runs, as a journal's writer is; it never raises, and never holds training up long."""

    def on_command(self, command: str, frame: Frame) -> None:
        """Take in one command that has led to a frame."""

    def on_free_run(self, commands: Iterable[tuple[Pattern, int]], start: int, frame: Frame) -> None:
        """Take in commands that ran without frames, from frame `start` to another."""

    def on_free_run_end(self) -> None:
        """Take in that such a run has ended."""

    def on_rewind(self, frame: Frame) -> None:
        """Take in that training is at an earlier frame of its branch again."""

    def on_branch_left(self, number: int, loss: float | None) -> None:
        """Take in that the present run is about to become the branch of this number, with its last loss."""

    def on_branch_taken(self, number: int, frame: Frame) -> None:
        """Take in that training is at the end of a branch."""

    def on_checkpoint(self, checkpoint: Any, history: History, *, last: bool = False) -> None:
        """Store the newest checkpoint, unless the last one stored is recent; its tensors are reused soon.

        last: the run ends, so that no newer one follows.
        checkpoint: an `engine.training.checkpoint.Checkpoint`, which core does not know.
        """

    def on_shown(self, frame: Frame, newest: int, history: History) -> None:
        """Take in that a screen shows a frame, and the index of the newest one."""

    def on_idle(self) -> None:
        """Take in that nothing follows for now."""

    def close(self, *, in_order: bool) -> None:
        """End, and take in whether the run was left in order."""

    @property
    def problem(self) -> Problem | None:
        """What is not stored, for as long as that is so."""

    def take_problem(self) -> str | None:
        """Return a sentence about `problem`, once, where it has changed since the last call."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How many frames of a replay are computed, slopes of a gradient check or points of a surface are measured."""

    done: int
    of: int  # of a gradient check 0 until it is known
    home: bool = False  # on the way back to where training was, which cannot be cancelled
    gradient: str = ""  # the one that is checked; "" for going back
    surface: bool = False  # whether points of a loss surface are measured


ProgressCallback = Callable[[Progress], bool]  # called at each frame, iteration or forward on the way; False cancels


class Cancelled(Refused):
    """Going back was cancelled, and all is as it was."""


class Interrupted(Refused):
    """What was asked for was interrupted; the sentence says where training stands, as before if it can."""


def unwatched(progress: Progress) -> bool:
    """Go on, whatever it takes."""
    return True
