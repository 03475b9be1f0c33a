"""The first row, which says what is trained and which frame is shown, and the note above the last one."""

from __future__ import annotations

from autograd_tui.core.frame import Frame
from autograd_tui.text.frame_summary import status_line
from autograd_tui.text.hidden_results import HiddenResults
from autograd_tui.text.styled_text import Line, one_line, wrapped
from autograd_tui.tui.panels.panel import Panel


class StatusPanel(Panel):
    """One row; before the session is open it says what is being opened."""

    DRAWN_FROM = ("frame", "about", "newest", "unkept")

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw the row."""
        newest, unkept = self.view.newest, self.view.unkept
        return [status_line(frame, self.about, newest, width, unkept=unkept)] if self.about else []

    def cover(self, hidden: HiddenResults, width: int, height: int) -> list[Line]:
        """Draw the row as it is: it holds no results."""
        assert self.frame is not None
        return self.draw(self.frame, width, height)


class NotePanel(Panel):
    """Shows the note, or nothing; a long sentence lies over the panels for as long as it is there."""

    DEFAULT_CSS = "NotePanel { height: auto; }"

    DRAWN_FROM = ("note",)

    def rows_wanted(self) -> int:
        """Take as many rows as the sentence needs."""
        return max(len(self._sentence(self.app.size.width)), 1)

    def lines(self, width: int, height: int) -> list[Line]:
        """Draw the sentence, whether or not there is a frame yet."""
        return self._sentence(width)

    def _sentence(self, width: int) -> list[Line]:
        note = self.view.note
        if note is None:
            return []
        return [[(" ", note.style), *row] for row in wrapped(one_line(note.text), width - 2, style=note.style)]
