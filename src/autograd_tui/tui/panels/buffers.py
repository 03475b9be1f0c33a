"""The model's buffers, where it has any."""

from __future__ import annotations

from textual.reactive import var

from autograd_tui.core.frame import Frame
from autograd_tui.text.styled_text import Line
from autograd_tui.text.table.buffer_rows import buffer_lines
from autograd_tui.text.table.view import TableView
from autograd_tui.tui.panels.panel import Panel


class BuffersPanel(Panel):
    """What the last forward has changed, then the few that fit: first those of the layer under the cursor."""

    view: var[TableView] = var(TableView())

    def watch_view(self) -> None:
        """Show the buffers of another layer."""
        self.redraw()

    def rows_wanted(self) -> int:
        """Take a row for each buffer, and one to say what has changed."""
        return len(self.frame.buffers) + 1 if self.frame else 1

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw the rows."""
        layer = self.view.cursor.layer if self.view.cursor else ""
        return buffer_lines(frame, layer, width, height)
