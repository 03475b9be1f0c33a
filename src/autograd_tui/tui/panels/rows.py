"""A panel with a row a parameter or layer, one of them under the cursor; keys and the mouse move it."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.message import Message

from autograd_tui.core.frame import Frame
from autograd_tui.text.styled_text import Line, more_line, scrolled
from autograd_tui.text.table.layers import Layers, ParameterColumns
from autograd_tui.text.table.table_view import ViewRow, count_rows, list_rows, row_parameters
from autograd_tui.tui.panels.panel import Panel


class RowPanel(Panel):
    """Shows as many rows as fit, the one under the cursor always among them."""

    DRAWN_FROM = (*Panel.DRAWN_FROM, "table")

    def __init__(self, *, title: str = "") -> None:
        super().__init__(title=title)
        self._grouped = Layers((), {})  # worked out once for each model
        self._top = 0  # the first row shown
        self._shown: list[ViewRow | None] = []  # by line; None where there is something else

    class Clicked(Message):
        """The mouse has chosen a row."""

        def __init__(self, row: ViewRow) -> None:
            super().__init__()
            self.row = row

    class Turned(Message):
        """The mouse wheel has moved the cursor."""

        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

    def on_click(self, event: events.Click) -> None:
        offset = self.under(event)
        row = self._shown[offset.y] if offset is not None and offset.y < len(self._shown) else None
        if row is not None:
            self.post_message(self.Clicked(row))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Move the cursor up."""
        event.stop()
        self.post_message(self.Turned(-1))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Move the cursor down."""
        event.stop()
        self.post_message(self.Turned(1))

    def grouped(self, frame: Frame) -> Layers:
        """Return the layers of the model, which are those of the frame before."""
        if self._grouped.names is not frame.params.layout.names:
            self._grouped = Layers.of(frame.params.layout.names)
        return self._grouped

    def count(self) -> int:
        """Return how many rows there are."""
        return count_rows(self.grouped(self.frame), self.view.table) if self.frame is not None else 2

    def listed(self, frame: Frame, columns: ParameterColumns) -> list[ViewRow]:
        """Return all rows from first to last."""
        return list_rows(self.grouped(frame), columns, self.view.table)

    def fitting(self, listed: Sequence[ViewRow], room: int) -> tuple[Sequence[ViewRow], list[Line]]:
        """Choose the rows that fit; where not all do, give a line too that counts the others."""
        if len(listed) <= room:
            self._top = 0
            return listed, []
        room = max(room - 1, 1)
        self._top = scrolled(self._top, self._wanted(listed), count=len(listed), room=room)
        bottom = self._top + room
        return listed[self._top : bottom], [more_line(self._top, bottom, len(listed))]

    def marked(self, row: ViewRow, line: Line) -> Line:
        """Point at the row under the cursor, once there is a cursor."""
        if self.view.table.cursor is None:
            return line
        if row != self.view.table.cursor:
            return [("  ", ""), *line]
        return [("▶ ", "accent"), (line[0][0], "now"), *line[1:]]

    def _wanted(self, listed: Sequence[ViewRow]) -> range:
        """Return which rows are to be seen: the one under the cursor, and below an opened layer its parameters."""
        cursor = self.view.table.cursor
        if cursor is None or cursor not in listed:
            return range(0)
        index = listed.index(cursor)
        opened = cursor.parameter is None and cursor.layer in self.view.table.opened
        return range(index, index + 1 + (len(row_parameters(self._grouped, cursor)) if opened else 0))
