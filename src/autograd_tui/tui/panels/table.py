"""The parameter table of a large model, the row selected in full, and the model's buffers."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.message import Message

from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History
from autograd_tui.text.sparkline import TREND_VALUES
from autograd_tui.text.styled_text import Line, more_line, scrolled
from autograd_tui.text.table.gradient_status import gradient_summary
from autograd_tui.text.table.layers import Layers, ParameterColumns, ViewRow, count_rows, list_rows, row_parameters
from autograd_tui.text.table.selected_row import best_to_show, layer_lines, no_selection_lines, parameter_lines
from autograd_tui.text.table.table_rows import TableLayout, TableRows, buffer_lines
from autograd_tui.tui.panels.panel import Panel

HINT_GAP = " · "
MIN_ROWS_WITH_SUMMARY = 14  # from which a table says what is true of all gradients though not all its rows fit


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


class SelectedPanel(Panel):
    """A parameter, its gradient and what the optimizer remembers of it; or the sums of a layer."""

    DRAWN_FROM = (*Panel.DRAWN_FROM, "table", "inspection")

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw the lines; an inspection of another frame is not used."""
        cursor = self.view.table.cursor
        if cursor is not None:
            self.retitle("Selected")
        if cursor is None:
            return self._largest(frame, width, height)
        if cursor.parameter is not None:
            also = self.about.tied.get(frame.params.layout.names[cursor.parameter], ()) if self.about else ()
            inspection = self.view.inspection
            return parameter_lines(
                frame, cursor.parameter, inspection=inspection, width=width, height=height, also=also
            )
        places = Layers.of(frame.params.layout.names).groups[cursor.layer]
        return layer_lines(frame, cursor.layer, places, width=width)

    def _largest(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Describe what says most, until somebody chooses a parameter."""
        index = best_to_show(frame)
        if index is None:
            self.retitle("Selected")
            return no_selection_lines(width)
        of = "gradient" if frame.grads.backwards[index] else "parameter"
        titles = [f"The largest {of}{keys}" for keys in ("   ↑ ↓ choose another", "   ↑ ↓", "")]
        self.retitle(next((title for title in titles if len(title) <= width - 2), titles[-1]))
        return parameter_lines(frame, index, inspection=None, width=width, height=height)


class TablePanel(RowPanel):
    """A row a layer; an opened one's parameters stand below it."""

    DEFAULT_CSS = "TablePanel { height: auto; max-height: 60%; }"
    DRAWN_FROM = (*RowPanel.DRAWN_FROM, "history")

    def __init__(self, *, title: str = "", hint: str = "") -> None:
        super().__init__(title=title)
        self._drawn: tuple[Frame, History | None, ParameterColumns, TableRows] | None = None  # of one frame
        self._hint = self.border_subtitle = hint

    def on_resize(self) -> None:
        """Name on the frame as much as it has room for."""
        parts = self._hint.split(HINT_GAP)
        hints = [HINT_GAP.join(parts[:count]) for count in range(len(parts), 0, -1)]
        self.border_subtitle = next((hint for hint in hints if len(hint) <= self.content_size.width - 2), "")

    def rows_wanted(self) -> int:
        """Take a row for each one there is, the heading, the total, and what is true of all gradients."""
        return self.count() + 3

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw the rows that fit; where room is short, the words below go first, then the total, then the heading."""
        columns, table = self._numbers(frame)
        listed = self.listed(frame, columns)
        shape = table.shape(self.view.table, listed, width)
        above = [table.heading(shape)] if height >= 3 else []
        has_total = height >= 5 and height != len(above) + len(listed)  # rather all the layers than their total
        below = [table.total(shape)] if has_total else []
        if height >= len(above) + len(listed) + len(below) + 1 or height >= MIN_ROWS_WITH_SUMMARY:
            below.append(_gradients(frame, shape, width))
        visible, more = self.fitting(listed, height - len(above) - len(below))
        self._shown = [*[None] * len(above), *visible]
        return [*above, *(table.row(shape, row) for row in visible), *more, *below]

    def _numbers(self, frame: Frame) -> tuple[ParameterColumns, TableRows]:
        history = self.view.history
        if self._drawn is None or self._drawn[0] is not frame or self._drawn[1] is not history:
            columns = ParameterColumns.of(frame)
            covered = self.frame is not None and frame.grads is not self.frame.grads
            grads = history.grads.latest(frame.index - covered, TREND_VALUES) if history else None
            self._drawn = frame, history, columns, TableRows(frame, self.grouped(frame), columns, grads)
        return self._drawn[2], self._drawn[3]


def _gradients(frame: Frame, shape: TableLayout, width: int) -> Line:
    """Return what is true of all gradients, as far as there is room."""
    first, *rest = gradient_summary(frame)
    line = f"   {'.grad':<{shape.name_width}} {first}"
    for part in rest:
        if len(line) + len(part) + 2 <= width:
            line += f", {part}"
    return [(line, "dim")]


class BuffersPanel(Panel):
    """What the last forward has changed, then the few that fit: first those of the layer under the cursor."""

    DRAWN_FROM = (*Panel.DRAWN_FROM, "table")

    def rows_wanted(self) -> int:
        """Take a row for each buffer, and those that say what has changed."""
        if self.frame is None:
            return 1
        return len(buffer_lines(self.frame, "", self.offered_width, 1)) + len(self.frame.buffers) - 1

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        layer = self.view.table.cursor.layer if self.view.table.cursor else ""
        return buffer_lines(frame, layer, width, height)
