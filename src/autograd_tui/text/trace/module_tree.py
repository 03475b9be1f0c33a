"""The operations of a phase as a tree of modules, in the order in which they ran, and its lines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import NamedTuple

from autograd_tui.core.command import Phase
from autograd_tui.core.trace import Operation, Trace, Value
from autograd_tui.text.frame_summary import error_line
from autograd_tui.text.numbers import bar, count, number, terse
from autograd_tui.text.styled_text import Line, more_line, one_line, scrolled
from autograd_tui.text.table.table_rows import shorten_name
from autograd_tui.text.trace.health import first_alarm
from autograd_tui.text.trace.tensor_words import dtype_words
from autograd_tui.text.trace.trace_position import RowKey, TracePosition

CLOSED_MARK, OPEN_MARK = "▸ ", "▾ "
NORM_HEADINGS = {
    Phase.FORWARD: "|output|",
    Phase.BACKWARD: "|gradient|",
    Phase.STEP: "|gradient|",
    Phase.ZERO_GRAD: "|gradient|",
}
MIN_NORM_BAR = 0.04  # share of the width; a norm at the low end of the scale still has a bar
NORM_WIDTH = 11  # characters
MAX_BAR, MIN_BAR = 24, 6  # characters
CHANGE_WIDTH = 20  # characters of "before → after"; for large parameters these are norms
BEFORE_AND_AFTER, AFTER = "before → after", "→ after"
NAME_CUT_FOR_CHANGE = 8  # characters by which names are shorter where changes are shown
MAX_NAME, MIN_NAME = 40, 8
SCROLL_MARGIN = 3  # rows in sight before and after the current one


@dataclass(frozen=True, slots=True, eq=False)
class ModuleRow:
    """A row of the tree: a run of operations of one module, with the rows of its submodules, or one operation."""

    key: RowKey
    ops: range  # indices in the trace
    depth: int
    children: tuple[ModuleRow, ...] = ()


@dataclass(eq=False)
class ModuleTree:
    """The tree of one trace, which opens as deep as the screen has room for."""

    trace: Trace
    roots: tuple[ModuleRow, ...] = field(init=False)
    _open_depths: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.roots = _build_rows(self.trace, range(len(self.trace.ops)), depth=0)

    def rows(self, position: TracePosition, room: int) -> list[ModuleRow]:
        """Return the visible rows, top to bottom.

        All modules are open down to the depth at which the rows fit into `room` at every position. Rows toggled by
        hand and the modules around the current operation come on top of that, so there may be more rows than `room`.
        """
        if room not in self._open_depths:
            max_depth = max((row.depth for row in all_rows(self.roots)), default=0)
            depths = range(max_depth, 0, -1)
            self._open_depths[room] = next(
                (depth for depth in depths if _max_visible_rows(self.roots, depth)[0] <= room), 0
            )
        return list(_visible_rows(self.roots, position, self._open_depths[room]))


def _module_of(trace: Trace, op: Operation) -> str:
    """Return the path of an operation's module; in a step or zero_grad, of the module that has the parameter."""
    if trace.is_by_parameter:
        return op.name.rpartition(".")[0]
    return op.module


def _build_rows(trace: Trace, ops: range, depth: int) -> tuple[ModuleRow, ...]:
    """Group operations by the next part of their module's path; a group of one operation becomes a row for it."""
    rows: list[ModuleRow] = []
    for path, group in groupby(ops, lambda index: _path_prefix(_module_of(trace, trace.ops[index]), depth)):
        indices = list(group)
        span = range(indices[0], indices[-1] + 1)
        if path is None or len(span) == 1:
            leaves = (
                ModuleRow(RowKey(_module_of(trace, trace.ops[index]), index, True), range(index, index + 1), depth)
                for index in span
            )
            rows += leaves
        else:
            rows.append(ModuleRow(RowKey(path, span.start), span, depth, _build_rows(trace, span, depth + 1)))
    return tuple(rows)


def _path_prefix(module: str, depth: int) -> str | None:
    """Return the first `depth + 1` parts of a path; None where it has no more than `depth`."""
    parts = module.split(".") if module else []
    return ".".join(parts[: depth + 1]) if len(parts) > depth else None


def all_rows(rows: Sequence[ModuleRow]) -> Iterator[ModuleRow]:
    """Yield rows, each followed by its descendants."""
    for row in rows:
        yield row
        yield from all_rows(row.children)


def _visible_rows(rows: Sequence[ModuleRow], position: TracePosition, depth: int) -> Iterator[ModuleRow]:
    for row in rows:
        yield row
        if _is_open(row, position, depth):
            yield from _visible_rows(row.children, position, depth)


def _is_open(row: ModuleRow, position: TracePosition, depth: int) -> bool:
    """Return whether a row's children are visible. Around the current operation they always are."""
    is_unfolded = (row.depth < depth) != (row.key in position.toggled_keys)
    return bool(row.children) and (is_unfolded or position.index in row.ops)


def _max_visible_rows(rows: Sequence[ModuleRow], depth: int) -> tuple[int, int]:
    """Return the most rows that can be visible with modules open to `depth`, and how many are due to the current one.

    The modules around the current operation are open whatever `depth` is, which adds rows below it.
    """
    total, max_extra = len(rows), 0
    for row in rows:
        child_rows, child_extra = _max_visible_rows(row.children, depth)
        if row.depth < depth:
            total += child_rows - child_extra
            max_extra = max(max_extra, child_extra)
        else:
            max_extra = max(max_extra, child_rows)
    return total + max_extra, max_extra


class RowLabels:
    """Labels rows: indented by depth, and modules with a mark for open or closed."""

    def __init__(self, trace: Trace, *, leaves_room_for_marks: bool) -> None:
        self._trace, self._leaves_room_for_marks = trace, leaves_room_for_marks
        self._lists_parameters = trace.is_by_parameter

    def label(self, row: ModuleRow, width: int | None = None, *, is_open: bool = False) -> str:
        """Return the text before a row's numbers; in a given width the end of a name, and what stands around that."""
        indent = "  " * row.depth
        if row.key.is_operation:
            parts = f"{indent}{'  ' * self._leaves_room_for_marks}", one_line(self._operation_label(row)), ""
        else:
            unit = "parameters" if self._lists_parameters else "operations"
            mark = OPEN_MARK if is_open else CLOSED_MARK
            parts = f"{indent}{mark}", one_line(row.key.path), f"  {count(len(row.ops))} {unit}"
        before, name, after = parts
        if width is None:
            return before + name + after
        for end in (after, ""):
            room = width - len(before) - len(end)
            if room >= min(len(name), MIN_NAME):
                return before + shorten_name(name, room) + end
        return shorten_name(before + name, width)

    def _operation_label(self, row: ModuleRow) -> str:
        """Return an operation's name, after the part of its module's path that has no row of its own."""
        op, path = self._trace.ops[row.key.first_index], row.key.path
        module_suffix = ".".join(path.split(".")[row.depth :])
        if self._lists_parameters:
            name = op.name.rpartition(".")[2]
            return f"{module_suffix}.{name}" if module_suffix else name
        parameter = op.accumulates_into
        name = op.name if parameter is None else f"→ {parameter.removeprefix(f'{path}.' if path else '')}.grad"
        return f"{module_suffix} {name}" if module_suffix else name


@dataclass(frozen=True, slots=True)
class NormScale:
    """A logarithmic scale: the whole powers of ten around the norms of a phase."""

    low: int
    high: int

    @classmethod
    def of(cls, trace: Trace) -> NormScale:
        """Choose the scale for a trace. Zeros and non-finite norms are left out."""
        norms = (norm_of(trace, op) for op in trace.ops)
        powers = [math.log10(norm) for norm in norms if norm is not None and 0 < norm < math.inf]
        low = math.floor(min(powers, default=0.0))
        return cls(low, max(math.ceil(max(powers, default=0.0)), low + 1))

    def bar(self, norm: float, width: int) -> str:
        """Draw a norm as a bar of at most `width` characters."""
        if not norm or not math.isfinite(norm):
            return bar(norm, width)
        share = (math.log10(norm) - self.low) / (self.high - self.low)
        return bar(MIN_NORM_BAR + (1 - MIN_NORM_BAR) * share, width)


def norm_of(trace: Trace, op: Operation) -> float | None:
    """Return the norm of a call's output, of a node's incoming gradient, or in a step of the parameter's gradient."""
    if trace.phase is Phase.FORWARD:
        return _joint_norm(op.output)
    if trace.phase is Phase.BACKWARD:
        return _joint_norm(op.grad_in)
    return _joint_norm([value for value in op.inputs if value.role == "grad"])


def norm_over(trace: Trace, ops: Sequence[Operation]) -> float | None:
    """Return a module's norm: of its output, its incoming gradient, or all its parameters' gradients together.

    `ops` are its operations in the order of the trace.
    """
    if not ops:
        return None
    if trace.phase is Phase.FORWARD:
        return norm_of(trace, ops[-1])
    if trace.phase is Phase.BACKWARD:
        return norm_of(trace, ops[0])
    norms = [norm for op in ops if (norm := norm_of(trace, op)) is not None]
    return math.hypot(*norms) if norms else None


def _joint_norm(values: Iterable[Value | None]) -> float | None:
    """Return the norm over several tensors; NaN where one has a non-finite value, unless a norm is infinite."""
    tensors = [value for value in values if value is not None]
    norms = [value.stats.norm for value in tensors if value.stats.norm is not None]
    if any(value.nonfinite for value in tensors) and not any(map(math.isinf, norms)):
        return math.nan
    return math.hypot(*norms) if norms else None


class ColumnWidths(NamedTuple):
    """The width of each column, in characters."""

    name: int
    bar: int
    change: int
    dtype: int


class ModuleTreeView:
    """Draws the module tree of one trace."""

    def __init__(self, tree: ModuleTree) -> None:
        self.tree, self._trace = tree, tree.trace
        self._scale = NormScale.of(tree.trace)
        self._alarm_index = first_alarm(tree.trace)  # earlier infinities, such as a mask's, are no alarm
        self._labels = RowLabels(tree.trace, leaves_room_for_marks=any(row.children for row in tree.roots))
        self._dtypes = [_dtype(tree.trace, op) for op in tree.trace.ops]
        self._shows_changes = tree.trace.is_by_parameter
        # Hidden rows count too, so that the columns stay in place when a module opens.
        self._max_label = max(len(self._labels.label(row)) for row in all_rows(tree.roots))
        self._room = 1
        self._first_row = 0  # of the last drawing, so that rows scroll as little as possible

    def rows_wanted(self) -> int:
        """Return the height that shows everything: all rows, a heading and the error."""
        return sum(1 for _ in all_rows(self.tree.roots)) + 1 + (self._trace.error is not None)

    def moved(self, position: TracePosition, by: int) -> TracePosition:
        """Move the cursor by some rows; without a cursor, start from the current operation."""
        rows = self.tree.rows(position, self._room)
        return position.with_cursor(rows[min(max(_current_row(rows, position) + by, 0), len(rows) - 1)].key)

    def opened(self, position: TracePosition) -> TracePosition | None:
        """Open or close the module under the cursor, or go to the operation there; None where there is no cursor."""
        if position.cursor is None:
            return None
        return (
            position.at(position.cursor.first_index)
            if position.cursor.is_operation
            else position.toggled(position.cursor)
        )

    def lines(self, position: TracePosition, width: int, height: int) -> list[Line]:
        """Draw the rows that fit, always with the row of the cursor or else of the current operation."""
        error = self._trace.error
        error_row: list[Line] = [[(one_line(f"! {error_line(error)}", width), "error")]] if error else []
        self._room = max(height - 1 - len(error_row), 1)
        rows = self.tree.rows(position, self._room)
        opened = {row.key for row, after in pairwise(rows) if after.depth > row.depth}
        shown, more = self._fitted(rows, position)
        widths = self._widths(width)
        lines = [self._row(position, row, widths, is_open=row.key in opened) for row in shown]
        return [self._heading(widths, width), *lines, *more, *error_row]

    def _fitted(self, rows: list[ModuleRow], position: TracePosition) -> tuple[list[ModuleRow], list[Line]]:
        """Return the rows that fit, and where some do not, a line that counts them."""
        if len(rows) <= self._room:
            return rows, []
        room = max(self._room - 1, 1)
        row, spare = _current_row(rows, position), min((room - 1) // 2, SCROLL_MARGIN)
        range_in_sight = range(max(row - spare, 0), row + 1 + spare)
        self._first_row = top = scrolled(self._first_row, range_in_sight, count=len(rows), room=room)
        return rows[top : top + room], [more_line(top, top + room, len(rows))]

    def _widths(self, width: int) -> ColumnWidths:
        max_name = MAX_NAME - NAME_CUT_FOR_CHANGE * self._shows_changes
        name = max(min(self._max_label, max_name, width - NORM_WIDTH - MIN_BAR - 4), MIN_NAME)
        dtype = max(map(len, self._dtypes), default=0) * (not self._shows_changes)
        rest = max(width - name - NORM_WIDTH - dtype - 4, 0)
        bar = min(max(rest - CHANGE_WIDTH * self._shows_changes, 0), MAX_BAR)
        bar = bar if bar >= MIN_BAR else 0
        return ColumnWidths(
            name, bar, (rest - bar) * self._shows_changes, min(dtype, max(width - name - NORM_WIDTH - bar - 4, 0))
        )

    def _heading(self, widths: ColumnWidths, width: int) -> Line:
        low, high = (f"1e{power}" for power in (self._scale.low, self._scale.high))
        scale = (
            f"  {low}{'log':^{widths.bar - len(low + high)}}{high}" if widths.bar >= 14 else "  log" * (widths.bar > 0)
        )
        change = f"  {BEFORE_AND_AFTER if widths.change > len(BEFORE_AND_AFTER) + 1 else AFTER}" * self._shows_changes
        heading = (
            f"  {'':<{widths.name}}{NORM_HEADINGS[self._trace.phase]:>{NORM_WIDTH}}{scale:<{widths.bar + 2}}{change}"
        )
        return [(heading[:width].rstrip(), "dim")]

    def _row(self, position: TracePosition, row: ModuleRow, widths: ColumnWidths, *, is_open: bool) -> Line:
        ops = self._trace.ops[row.ops.start : min(row.ops.stop, position.index + 1)]
        is_leaf, has_cursor = row.key.is_operation, row.key == position.cursor
        is_current = is_leaf and position.index in row.ops
        label = self._labels.label(row, widths.name, is_open=is_open)
        name = label.lstrip()
        weight = "" if is_leaf else "strong"
        style = "now" if is_current else "accent" if has_cursor else "dim" if not ops else weight
        return [
            ("▶ " if is_current else "→ " if has_cursor else "  ", "accent"),
            (" " * (len(label) - len(name)), ""),
            (name, style),
            (" " * (widths.name - len(label)), ""),
            *self._norm_cells(ops, row, widths.bar, is_current=is_current),
            *self._change_cell(ops, row, widths.change),
            (self._dtypes[row.ops.start][: widths.dtype] if ops and is_leaf else "", "accent"),
        ]

    def _norm_cells(self, ops: Sequence[Operation], row: ModuleRow, bar_width: int, *, is_current: bool) -> Line:
        """Write the norm and draw its bar, once the position has reached the row."""
        if not ops:
            return [(f"{'·':>{NORM_WIDTH}}", "dim")]
        norm = norm_of(self._trace, ops[0]) if row.key.is_operation else norm_over(self._trace, ops)
        if norm is None:
            return [(f"{'-':>{NORM_WIDTH}}{'':{bar_width + 2}}", "dim")]
        is_nonfinite = not math.isfinite(norm)
        norm_bar = self._scale.bar(norm, bar_width) if bar_width and not is_nonfinite else ""
        is_alarming = is_nonfinite and self._alarm_index is not None and ops[-1].number >= self._alarm_index
        style = "error" if is_alarming else "strong" if is_current else ""
        return [(f"{number(norm):>{NORM_WIDTH}}", style), (f"  {norm_bar:<{bar_width}}", "up")]

    def _change_cell(self, ops: Sequence[Operation], row: ModuleRow, room: int) -> Line:
        """Write one parameter before and after a step, or its gradient before and after zero_grad."""
        if not ops or not row.key.is_operation or not room:
            return []
        role = "value" if self._trace.phase is Phase.STEP else "grad"
        before, after = ops[0].named_input(role), ops[0].named_output(role)
        if before is None:
            return []
        text = f"  {_number_or_norm(before)} → {_number_or_norm(after)}"
        return [((text if len(text) <= room else f"  → {_number_or_norm(after)}")[:room], "strong")]


def _dtype(trace: Trace, op: Operation) -> str:
    """Return the dtype of the tensor that an operation's norm is of; "" for float32."""
    values = op.output if trace.phase is Phase.FORWARD else op.grad_in
    return next((f" {dtype_words(value)}" for value in values if value is not None and dtype_words(value)), "")


def _current_row(rows: Sequence[ModuleRow], position: TracePosition) -> int:
    """Return the index of the row under the cursor, or else of the current operation."""
    current = 0
    for index, row in enumerate(rows):
        if row.key == position.cursor:
            return index
        if row.key.is_operation and position.index in row.ops:
            current = index
    return current


def _number_or_norm(value: Value | None) -> str:
    """Write the value of a tensor of one element, or else the norm."""
    if value is None:
        return "None"
    stats = value.stats
    if stats.size == 1 and stats.values:
        return terse(stats.values[0])
    return terse(stats.norm) if stats.norm is not None else "-"
