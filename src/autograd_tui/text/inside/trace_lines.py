"""A recorded phase as plain lines, one an operation, for where there is no screen."""

from __future__ import annotations

from autograd_tui.engine.values.command import Phase
from autograd_tui.engine.values.trace import Op, Trace, Value
from autograd_tui.text.inside.overwritten import why_it_raised
from autograd_tui.text.inside.value_words import name_of, value_words
from autograd_tui.text.line import printable

WIDTH = 48  # columns for one tensor's values


def trace_lines(trace: Trace) -> list[str]:
    """Write what each operation was given and what came of it; notes about the recording stand last."""
    lines = [f"{op.number + 1:>10}  {op.name:<24}  {_what(trace, op)}{_where(op)}" for op in trace.ops]
    return [printable(line) for line in (*lines, *(f"{'':>10}  {note}" for note in trace.notes))]


def _what(trace: Trace, op: Op) -> str:
    if op.accumulates_into:
        undone = ", then taken back" if trace.error and op.grad_after is not None else ""
        return f"{op.accumulates_into}.grad  {_values((op.grad_before,))} -> {_values((op.grad_after,))}{undone}"
    if op.raised and trace.phase is Phase.BACKWARD:
        return " ".join((f"{_values(op.grad_in)} -> raised.", *why_it_raised(trace, op)))
    if op.grad_in or op.grad_out:
        return f"{_values(op.grad_in)} -> {_values(op.grad_out)}"
    given = ", ".join(f"{name_of(trace, value)} {value_words(value, WIDTH)}" for value in op.inputs)
    if op.raised:
        return f"{given or 'None'} -> raised"
    made = op.output if trace.phase is not Phase.STEP else tuple(each for each in op.output if each.role != "grad")
    return f"{given or 'None'} -> {_values(made) or 'None'}"


def _values(values: tuple[Value | None, ...]) -> str:
    return ", ".join(value_words(value, WIDTH) for value in values)


def _where(op: Op) -> str:
    return f"  in {op.module}" if op.module and op.module != op.name.rpartition(".")[0] else ""
