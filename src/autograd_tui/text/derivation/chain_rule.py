"""The operation at hand, worked: what was computed from what, whatever the phase."""

from __future__ import annotations

from autograd_tui.core.command import Phase
from autograd_tui.core.trace import Operation, Trace
from autograd_tui.text.derivation.backward_node import backward_lines
from autograd_tui.text.derivation.forward_operation import forward_lines
from autograd_tui.text.derivation.optimizer_formulas import step_lines
from autograd_tui.text.equation import headed, rows
from autograd_tui.text.styled_text import Line, one_line
from autograd_tui.text.trace.tensor_words import value_words


def chain_rule_lines(trace: Trace, op: Operation, width: int) -> list[Line]:
    """Show upstream x local = downstream; forward: the operation; step: the optimizer's formula; all in numbers."""
    if trace.phase is Phase.FORWARD:
        return forward_lines(trace, op, width)
    if trace.phase is Phase.BACKWARD:
        return backward_lines(trace, op, width)
    if trace.phase is Phase.STEP and trace.error:
        said = f"{one_line(op.name)} is as it was: the step raised, and what it had moved was put back."
        return rows(said, width, style="error")
    if trace.phase is Phase.STEP:
        return step_lines(trace, op, width)
    return _cleared(op, width)


def _cleared(op: Operation, width: int) -> list[Line]:
    """Show what zero_grad did to one gradient."""
    before, after = (next((each for each in side if each.role == "grad"), None) for side in (op.inputs, op.output))
    head = f"{one_line(op.name)}.grad"
    if before is None and after is None:
        return headed(head, "None, and it stays None.", width)
    was, now = value_words(before, width - 4), value_words(after, width - 4)
    lines = headed(head, f"{was} → {now}", width, style="now")
    if after is None:
        lines += rows("The next backward starts from nothing here, instead of adding.", width, style="dim")
    return lines
