"""Who takes down what a session does, as it happens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from autograd_tui.engine.values.command_log import Pattern
from autograd_tui.engine.values.frame import Frame
from autograd_tui.engine.values.history import History

if TYPE_CHECKING:
    from autograd_tui.engine.training.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Problem:
    """What of a run is not kept."""

    mark: str  # in a word or two: "not kept"
    sentence: str


class Recorder(Protocol):
    """Is told of everything that ran; it never raises, and never holds training up for long."""

    def ran(self, command: str, frame: Frame) -> None:
        """Take down one command that has led to a frame."""

    def ran_freely(self, commands: Iterable[tuple[Pattern, int]], start: int, frame: Frame) -> None:
        """Take down what ran without frames, from frame `start` to another."""

    def finish_run(self) -> None:
        """Take down that such a run has ended."""

    def went_back(self, frame: Frame) -> None:
        """Take down that training stands at an earlier frame of its branch again."""

    def left_branch(self, number: int, loss: float | None) -> None:
        """Take down that the present run is about to be left, by which number it can be had, and its last loss."""

    def took_branch(self, number: int, frame: Frame) -> None:
        """Take down that training stands at the end of a run that had been left."""

    def keep(self, checkpoint: Checkpoint, history: History) -> None:
        """Keep the newest checkpoint on disk, where the last one there is long ago; its tensors are soon used anew."""

    def drew(self, frame: Frame, newest: int, history: History) -> None:
        """Take down that a screen shows a frame, and which one is the newest."""

    def rest(self) -> None:
        """Take down that nothing follows for now."""

    def close(self, *, in_order: bool) -> None:
        """Take down what is left, and whether the run was left in order, and end."""

    @property
    def problem(self) -> Problem | None:
        """What is not kept, for as long as that is so."""

    def take_problem(self) -> str | None:
        """Give a sentence, once, where that is another than when this was asked last."""
