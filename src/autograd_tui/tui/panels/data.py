"""The batch, the prediction, and how far they are apart."""

from __future__ import annotations

from autograd_tui.engine.values.frame import Frame
from autograd_tui.text.data_table import data_lines
from autograd_tui.text.line import Line
from autograd_tui.tui.panels.panel import Panel


class DataPanel(Panel):
    """Value by value where they are few, else a row a tensor."""

    DEFAULT_CSS = "DataPanel { height: auto; }"

    def rows_wanted(self) -> int:
        """Take a row for each line."""
        return len(self.lines(max(self.content_size.width, 40), 6)) or 1

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw the table."""
        return data_lines(frame, self.about, width) if self.about else []
