"""The `.grad` of each parameter at the current operation of a trace."""

from __future__ import annotations

from autograd_tui.core.command import Phase
from autograd_tui.core.trace import Operation, Trace, Value
from autograd_tui.text.numbers import number
from autograd_tui.text.styled_text import Line, more_line, one_line, scrolled
from autograd_tui.text.table.table_rows import shorten_name
from autograd_tui.text.trace.tensor_words import dtype_words, value_words
from autograd_tui.text.trace.trace_position import TracePosition

MAX_NAME = 28  # characters


def grad_operations(trace: Trace) -> list[Operation]:
    """Return the operations that change a `.grad`, in order; in a step, those that use one."""
    if trace.is_by_parameter:
        return list(trace.ops)
    return [op for op in trace.ops if op.accumulates_into is not None]


def grad_lines(position: TracePosition, width: int, height: int) -> list[Line]:
    """Return a row for each parameter in the order of the trace, scrolled so that the next ones are in sight."""
    ops = grad_operations(position.trace)
    if not ops or height < 1:
        return []
    done_count = sum(op.number <= position.index for op in ops)
    count_line: list[Line] = []
    top, bottom = 0, len(ops)
    if len(ops) > height:
        room = max(height - 1, 1)
        range_in_sight = range(max(done_count - (room + 1) // 2, 0), done_count + room // 2)
        top = scrolled(0, range_in_sight, count=len(ops), room=room)
        bottom = top + room
        count_line = [more_line(top, bottom, len(ops))]
    name_width = min(max(len(_parameter_name(op)) for op in ops[top:bottom]), MAX_NAME, width // 2)
    return [*(_row(position, op, name_width, width) for op in ops[top:bottom]), *count_line]


def grad_summary(position: TracePosition) -> str:
    """Return how many parameters are done; "" where the phase has none."""
    ops = grad_operations(position.trace)
    verb = {Phase.STEP: "used", Phase.ZERO_GRAD: "cleared"}.get(position.trace.phase, "filled")
    if position.trace.error:
        filled = f"{sum(op.number <= position.index for op in ops)} filled before it raised"
        return filled if position.trace.phase is Phase.BACKWARD else ""
    return f"{sum(op.number <= position.index for op in ops)} of {len(ops)} {verb}" if ops else ""


def _row(position: TracePosition, op: Operation, name_width: int, width: int) -> Line:
    is_current, is_done = op.number == position.index, op.number <= position.index
    line: Line = [
        ("▶ " if is_current else "  ", "accent"),
        (f"{shorten_name(_parameter_name(op), name_width):<{name_width}}  ", "strong"),
    ]
    return [*line, *_grad_cells(position.trace, op, is_done, width - name_width - 4)]


def _grad_cells(trace: Trace, op: Operation, is_done: bool, room: int) -> Line:
    if trace.is_by_parameter:
        grad = op.named_input("grad")
        words, effect = _grad_words(grad, room), ""
        if is_done and not trace.error:
            effect = "  used" if trace.phase is Phase.STEP else " → None"
        return [(words[:room], "" if is_done else "strong"), (effect if len(words + effect) <= room else "", "accent")]
    before = "None" if op.grad_before is None else _grad_words(op.grad_before, room // 2 if is_done else room)
    if not is_done:
        until = f", until operation {op.number + 1}"
        return [(before, "dim"), (until if len(before) + len(until) <= room else "", "dim")]
    if trace.error and op.grad_after is not None:
        return _reverted_cells(before, op.grad_after, room)
    arrow, after = f"{before} → ", _grad_words(op.grad_after, room)
    return [(arrow if len(arrow) + len(after) <= room else "", "dim"), (after[:room], "strong")]


def _reverted_cells(before: str, filled: Value, room: int) -> Line:
    """Write a `.grad` that was filled before the backward raised and was then reverted, as fully as there is room."""
    for arrow in (f"{before} → ", "→ "):
        for tail in (", then taken back", ", taken back"):
            after = _grad_words(filled, room - len(arrow) - len(tail))
            if len(arrow) + len(after) + len(tail) <= room:
                return [(arrow, "dim"), (after, "strong"), (tail, "error")]
    return [("taken back"[:room], "error")]


def _grad_words(value: Value | None, room: int) -> str:
    """Write a tensor; where there is no room for a large one's shape, its norm alone."""
    words = value_words(value, max(room, 8))
    if value is None or value.stats.values is not None or "norm" in words:
        return words
    norm, dtype = f"norm {number(value.stats.norm)}", dtype_words(value)
    return norm + dtype if len(norm + dtype) <= room else norm


def _parameter_name(op: Operation) -> str:
    return one_line(op.accumulates_into or op.name)
