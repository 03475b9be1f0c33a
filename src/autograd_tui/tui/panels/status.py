"""The first row: what is trained, how, where, and which frame is shown."""

from __future__ import annotations

from textual.reactive import var

from autograd_tui.core.frame import Frame
from autograd_tui.text.frame_summary import status_line
from autograd_tui.text.styled_text import Line
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
