"""The `.grad` of each parameter as far as the walk has come."""

from __future__ import annotations

from autograd_tui.core.command import Phase
from autograd_tui.core.trace import Operation, Trace, Value
from autograd_tui.text.numbers import number
from autograd_tui.text.styled_text import Line, more_line, one_line, scrolled
from autograd_tui.text.table.table_rows import shortened
from autograd_tui.text.trace.tensor_words import dtype_words, value_words
from autograd_tui.text.trace.walk import Walk

MOST_NAME = 28


def filling(trace: Trace) -> list[Operation]:
    """Give the operations that change a `.grad`, in order; of a step, those that use one."""
    if trace.phase in (Phase.STEP, Phase.ZERO_GRAD):
        return list(trace.ops)
    return [op for op in trace.ops if op.accumulates_into is not None]


def grad_lines(walk: Walk, width: int, height: int) -> list[Line]:
    """Write a row a parameter, in the order in which they have their turn; those about to come are in sight."""
    ops = filling(walk.trace)
    if not ops or height < 1:
        return []
    done = sum(op.number <= walk.index for op in ops)
    more: list[Line] = []
    top, bottom = 0, len(ops)
    if len(ops) > height:
        room = max(height - 1, 1)
        top = scrolled(0, range(max(done - (room + 1) // 2, 0), done + room // 2), count=len(ops), room=room)
        bottom = top + room
        more = [more_line(top, bottom, len(ops))]
    names = min(max(len(_name(op)) for op in ops[top:bottom]), MOST_NAME, width // 2)
    return [*(_row(walk, op, names, width) for op in ops[top:bottom]), *more]


def summary(walk: Walk) -> str:
    """Count those that have had their turn."""
    ops = filling(walk.trace)
    verb = {Phase.STEP: "used", Phase.ZERO_GRAD: "cleared"}.get(walk.trace.phase, "filled")
    if walk.trace.error:
        filled = f"{sum(op.number <= walk.index for op in ops)} filled before it raised"
        return filled if walk.trace.phase is Phase.BACKWARD else ""
    return f"{sum(op.number <= walk.index for op in ops)} of {len(ops)} {verb}" if ops else ""


def _row(walk: Walk, op: Operation, names: int, width: int) -> Line:
    here, done = op.number == walk.index, op.number <= walk.index
    line: Line = [("▶ " if here else "  ", "accent"), (f"{shortened(_name(op), names):<{names}}  ", "strong")]
    return [*line, *_state(walk.trace, op, done, width - names - 4)]


def _state(trace: Trace, op: Operation, done: bool, room: int) -> Line:
    phase = trace.phase
    if phase in (Phase.STEP, Phase.ZERO_GRAD):
        held = next((value for value in op.inputs if value.role == "grad"), None)
        words, then = _words(held, room), ("  used" if phase is Phase.STEP else " → None") * (done and not trace.error)
        return [(words[:room], "" if done else "strong"), (then if len(words + then) <= room else "", "accent")]
    before = "None" if op.grad_before is None else _words(op.grad_before, room // 2 if done else room)
    if not done:
        until = f", until operation {op.number + 1}"
        return [(before, "dim"), (until if len(before) + len(until) <= room else "", "dim")]
    if trace.error and op.grad_after is not None:
        return _undone(before, op.grad_after, room)
    arrow, after = f"{before} → ", _words(op.grad_after, room)
    return [(arrow if len(arrow) + len(after) <= room else "", "dim"), (after[:room], "strong")]


def _undone(before: str, filled: Value, room: int) -> Line:
    """Write what a backward that raised afterwards had put there, as fully as there is room for."""
    for arrow in (f"{before} → ", "→ "):
        for tail in (", then taken back", ", taken back"):
            after = _words(filled, room - len(arrow) - len(tail))
            if len(arrow) + len(after) + len(tail) <= room:
                return [(arrow, "dim"), (after, "strong"), (tail, "error")]
    return [("taken back"[:room], "error")]


def _words(value: Value | None, room: int) -> str:
    """Write a tensor, of a large one the norm alone where there is no room for its shape too."""
    words = value_words(value, max(room, 8))
    if value is None or value.stats.values is not None or "norm" in words:
        return words
    norm, dtype = f"norm {number(value.stats.norm)}", dtype_words(value)
    return norm + dtype if len(norm + dtype) <= room else norm


def _name(op: Operation) -> str:
    return one_line(op.accumulates_into or op.name)
