"""What the program has to say: a refusal, what runs and for how long, a mode and how to leave it."""

from __future__ import annotations

from dataclasses import dataclass

from textual.reactive import var

from autograd_tui.text.styled_text import Line, one_line, wrapped
from autograd_tui.tui.panels.panel import Panel


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence and its style."""

    text: str
    style: str = ""


class NotePanel(Panel):
    """Shows the note, or nothing; a long sentence lies over the panels for as long as it is there."""

    DEFAULT_CSS = "NotePanel { height: auto; }"

    note: var[Note | None] = var(None)

    def watch_note(self) -> None:
        """Show another sentence."""
        self._make_room()
        self.redraw()

    def rows_wanted(self) -> int:
        """Take as many rows as the sentence needs."""
        return max(len(self._sentence(self.app.size.width)), 1)

    def lines(self, width: int, height: int) -> list[Line]:
        """Draw the sentence, whether or not there is a frame yet."""
        return self._sentence(width)

    def _sentence(self, width: int) -> list[Line]:
        if self.note is None:
            return []
        rows = wrapped(one_line(self.note.text), width - 2, style=self.note.style)
        return [[(" ", self.note.style), *row] for row in rows]
