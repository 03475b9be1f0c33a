"""One row for what the program has to say: a refusal, what runs and for how long, a mode and how to leave it."""

from __future__ import annotations

from dataclasses import dataclass

from textual.reactive import var

from autograd_tui.text.line import Line
from autograd_tui.tui.panels.panel import Panel


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence and its style."""

    text: str
    style: str = ""


class NotePanel(Panel):
    """Shows the note, or nothing."""

    note: var[Note | None] = var(None)

    def watch_note(self) -> None:
        """Show another sentence."""
        self.redraw()

    def lines(self, width: int, height: int) -> list[Line]:
        """Draw the sentence, whether or not there is a frame yet."""
        return [[(f" {self.note.text}", self.note.style)]] if self.note else []
