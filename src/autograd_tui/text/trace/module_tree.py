"""The operations of a phase as a tree of modules, in the order in which they ran."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from autograd_tui.core.trace import Operation, Trace
from autograd_tui.text.numbers import count
from autograd_tui.text.styled_text import one_line
from autograd_tui.text.trace.trace_position import RowKey, TracePosition


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


CLOSED_MARK, OPEN_MARK = "▸ ", "▾ "


class RowLabels:
    """Labels rows: indented by depth, and modules with a mark for open or closed."""

    def __init__(self, trace: Trace, *, leaves_room_for_marks: bool) -> None:
        self._trace, self._leaves_room_for_marks = trace, leaves_room_for_marks
        self._lists_parameters = trace.is_by_parameter

    def label(self, row: ModuleRow, *, is_open: bool = False) -> str:
        """Return the text before a row's numbers."""
        indent = "  " * row.depth
        if row.key.is_operation:
            return f"{indent}{'  ' * self._leaves_room_for_marks}{one_line(self._operation_label(row))}"
        unit = "parameters" if self._lists_parameters else "operations"
        mark = OPEN_MARK if is_open else CLOSED_MARK
        return f"{indent}{mark}{one_line(row.key.path)}  {count(len(row.ops))} {unit}"

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
