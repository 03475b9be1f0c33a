"""The first row, which says what is trained and which frame is shown, and the note above the last one."""

from __future__ import annotations

from dataclasses import dataclass

from textual.reactive import var

from autograd_tui.core.frame import Frame
from autograd_tui.text.frame_summary import status_line
from autograd_tui.text.styled_text import Line, one_line, wrapped
from autograd_tui.tui.panels.panel import Panel


class StatusPanel(Panel):
    """One row; before the session is open it says what is being opened."""

    newest: var[int] = var(0)
    unkept: var[str] = var("")  # a mark

    def watch_newest(self) -> None:
        """Count the newest frame."""
        self.redraw()

    def watch_unkept(self) -> None:
        """Mark a run that is not kept."""
        self.redraw()

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw the row."""
        return [status_line(frame, self.about, self.newest, width, unkept=self.unkept)] if self.about else []


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
