"""The keys of the table: a cursor, layers that open, an order, names to find."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from autograd_tui.core.errors import Refused, clipped
from autograd_tui.core.frame import Frame
from autograd_tui.text.table.layers import MAX_PARAMETER_ROWS, Layers, ParameterColumns
from autograd_tui.text.table.view import find_parameter, list_rows, move_cursor, row_name, toggle_layer
from autograd_tui.tui.panels.rows import RowPanel
from autograd_tui.tui.panels.status import Note
from autograd_tui.tui.requests import Inspect
from autograd_tui.tui.training_screen import TrainingScreen


class TableKeys(TrainingScreen):
    """Changes the view of the table; what trains has no part in it."""

    def action_select(self, by: int) -> None:
        """Move the cursor of the table, by as many rows as were counted."""
        if self.frame is not None:
            self.view = move_cursor(self.view, list_rows(*_table(self.frame), self.view), by * self.take_count())
            self.say(None)

    def action_open(self) -> None:
        """Open or close the layer under the cursor; measure the parameter under it exactly."""
        cursor = self.view.cursor
        if self.frame is None or cursor is None:
            self.say(Note("↑ and ↓ select a row, which enter opens", "warn"))
        elif cursor.place is None:
            self.view = toggle_layer(self.view, cursor.layer)
        else:
            self.view = replace(self.view, asked=True)
            self.in_turn(partial(self._inspect, row_name(_table(self.frame)[0], cursor)))

    def _inspect(self, name: str) -> None:
        if self.looking is not None:
            self.say(Note("exact numbers are those of the frame where training stands: escape returns to it", "warn"))
        elif self.veil is not None:
            self.say(Note("the numbers are behind the veil: space shows them, and then enter measures exactly", "warn"))
        elif self.trainer.status.run is not None:
            self.say(Note("it runs: space pauses, and then enter measures exactly", "warn"))
        else:
            self.ask_beside(Inspect(name))

    def on_row_panel_clicked(self, event: RowPanel.Clicked) -> None:
        """Select a row; open the one that is selected."""
        if event.row == self.view.cursor:
            self.action_open()
        else:
            self.view = replace(self.view, cursor=event.row)

    def on_row_panel_turned(self, event: RowPanel.Turned) -> None:
        """Move the cursor of the table with the mouse wheel."""
        self.action_select(event.by)

    def sort_table(self, column: str) -> None:
        """Sort the table by a column, "model" for the model's order; raises Refused where it has few rows."""
        if self.frame is not None and len(self.frame.params) <= MAX_PARAMETER_ROWS:
            raise Refused(f"a table of {len(self.frame.params)} rows stays in the model's order.")
        self.view = replace(self.view, column=column)

    def find_parameter(self, text: str) -> None:
        """Move the cursor to the next parameter with `text`, or what was looked for last, in its name, or raise."""
        text = text or self.view.search
        if not text or self.frame is None:
            raise Refused("give a part of a parameter's name behind the /.")
        view = find_parameter(*_table(self.frame), self.view, text)
        if view is None:
            raise Refused(f'no parameter has "{clipped(text)}" in its name.')
        self.view = view


def _table(frame: Frame) -> tuple[Layers, ParameterColumns]:
    return Layers.of(frame.params.layout.names), ParameterColumns.of(frame)
