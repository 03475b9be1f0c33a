"""What the cursor of the table is on, in full."""

from __future__ import annotations

from textual.reactive import var

from autograd_tui.engine.values.frame import Frame
from autograd_tui.engine.values.inspection import Inspection
from autograd_tui.text.layers import Layers
from autograd_tui.text.line import Line
from autograd_tui.text.selected import layer_lines, nothing_lines, parameter_lines
from autograd_tui.text.table_view import TableView
from autograd_tui.tui.panels.panel import Panel


class SelectedPanel(Panel):
    """A parameter, its gradient and what the optimizer remembers of it; or the sums of a layer."""

    view: var[TableView] = var(TableView())
    inspection: var[Inspection | None] = var(None)  # set before the frame, which then draws both

    def watch_view(self) -> None:
        """Show what the cursor is on now."""
        self.redraw()

    def watch_inspection(self) -> None:
        """Show exact numbers, or no longer."""
        self.redraw()

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw the lines; an inspection of another frame is not used."""
        cursor = self.view.cursor
        if cursor is None:
            return nothing_lines(width)
        if cursor.place is not None:
            also = self.about.tied.get(frame.params.layout.names[cursor.place], ()) if self.about else ()
            return parameter_lines(frame, cursor.place, inspection=self.inspection, width=width, also=also)
        places = Layers.of(frame.params.layout.names).groups[cursor.layer]
        return layer_lines(frame, cursor.layer, places, width=width)
