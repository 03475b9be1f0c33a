"""Stand-in until operations are written."""

from __future__ import annotations

from autograd_tui.engine.trace import Op, Trace
from autograd_tui.text.inside.value_words import value_words
from autograd_tui.text.line import Line


def operation_lines(trace: Trace, op: Op, width: int) -> list[Line]:
    """Give name, inputs and output."""
    rows = [("in ", op.inputs), ("out", op.output)]
    return [[(op.name, "strong")]] + [
        [(f"{name} {value_words(value, width - 12)}", "")] for name, values in rows for value in values
    ]
