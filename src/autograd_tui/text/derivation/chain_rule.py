"""The chain rule panel's lines for one operation of any phase; those of a step and of zero_grad are made here."""

from __future__ import annotations

from autograd_tui.core.command import Phase
from autograd_tui.core.optimizer_spec import OptimizerSpec
from autograd_tui.core.trace import Operation, Trace
from autograd_tui.text.derivation.backward_lines import backward_lines
from autograd_tui.text.derivation.forward_lines import forward_lines
from autograd_tui.text.derivation.optimizer_step import STEP_RULES, ParameterUpdate
from autograd_tui.text.equation import headed_rows, wrapped_rows
from autograd_tui.text.styled_text import Line, one_line
from autograd_tui.text.trace.tensor_words import value_words


def chain_rule_lines(trace: Trace, op: Operation, width: int) -> list[Line]:
    """Write an operation in numbers.

    Forward: the operation's formula. Backward: upstream × local = downstream for each input. Step: the optimizer's
    formula for one parameter. Zero_grad: the gradient before and after.
    """
    if trace.phase is Phase.FORWARD:
        return forward_lines(trace, op, width)
    if trace.phase is Phase.BACKWARD:
        return backward_lines(trace, op, width)
    if trace.phase is Phase.STEP and trace.error:
        message = f"{one_line(op.name)} is as it was: the step raised, and what it had moved was put back."
        return wrapped_rows(message, width, style="error")
    if trace.phase is Phase.STEP:
        return _step_lines(trace, op, width)
    return _zero_grad_lines(op, width)


def _step_lines(trace: Trace, op: Operation, width: int) -> list[Line]:
    """Write how the optimizer moved one parameter; of a tensor of many values, the first in numbers."""
    update, value = ParameterUpdate.traced(trace, op), op.named_output("value")
    before_after = _before_after_lines(op, "value", one_line(op.name), width)
    if op.named_input("grad") is None:
        return [*before_after, *wrapped_rows("Its gradient is None: the optimizer passed over it.", width, style="dim")]
    optimizer = OptimizerSpec.parse(update.optimizer).name if update.optimizer else ""
    rule = STEP_RULES.get(optimizer)
    if rule is not None and update.has_numbers:
        return [*rule(update).lines(op, width), *(before_after if value and value.stats.size > 1 else [])]
    lines = before_after
    for role in dict.fromkeys(value.role for value in (*op.inputs, *op.output)):  # the gradient and the state
        lines += _before_after_lines(op, role, one_line(role), width) if role != "value" else []
    message = f"No formula is known here for {optimizer or 'this optimizer'}: before and after."
    return [*lines, *wrapped_rows(message, width, style="dim")]


def _before_after_lines(op: Operation, role: str, name: str, width: int) -> list[Line]:
    before, after, room = op.named_input(role), op.named_output(role), max(width // 2 - 4, 12)
    old, new = value_words(before, room), value_words(after, room)
    is_unchanged = old == new and before and after and role != "value"
    return headed_rows(name, new if is_unchanged else f"{old} → {new}", width)


def _zero_grad_lines(op: Operation, width: int) -> list[Line]:
    before, after = op.named_input("grad"), op.named_output("grad")
    head = f"{one_line(op.name)}.grad"
    if before is None and after is None:
        return headed_rows(head, "None, and it stays None.", width)
    old, new = value_words(before, width - 4), value_words(after, width - 4)
    lines = headed_rows(head, f"{old} → {new}", width, style="now")
    if after is None:
        lines += wrapped_rows("The next backward starts from nothing here, instead of adding.", width, style="dim")
    return lines
