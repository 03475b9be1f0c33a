"""Stand-in until the chain rule is written: what goes in and comes out."""

from __future__ import annotations

from autograd_tui.engine.trace import Op, Trace
from autograd_tui.text.inside.value_words import value_words
from autograd_tui.text.line import Line


def chain_rule_lines(trace: Trace, op: Op, width: int) -> list[Line]:
    """Give what goes in and comes out."""
    rows = [("upstream  ", op.grad_in), ("downstream", op.grad_out)]
    return [[(f"{name} {value_words(value, width - 12)}", "")] for name, values in rows for value in values]
