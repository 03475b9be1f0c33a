"""The lines for one forward call: its formula in numbers, and what its graph nodes save for backward."""

from __future__ import annotations

from dataclasses import replace

from autograd_tui.core.trace import Node, NonFinite, Operation, Trace, Value
from autograd_tui.text.derivation.derivation import (
    Derivation,
    agreeing_lines,
    contradiction_lines,
    dtype_lines,
    finite_example_lines,
    first_value_lines,
    is_complex,
    nonfinite_equation,
    nonfinite_lines,
    range_lines,
    result_lines,
    written_result,
)
from autograd_tui.text.derivation.forward_rules import FORWARD_RULES
from autograd_tui.text.derivation.rule_context import CallContext, ForwardRule
from autograd_tui.text.derivation.small_tensor import SmallTensor, overflow_message, tolerance_of
from autograd_tui.text.equation import headed_rows, wrapped_rows
from autograd_tui.text.numbers import terse
from autograd_tui.text.styled_text import Line, one_line
from autograd_tui.text.trace.tensor_words import (
    expression,
    inner,
    name_of,
    nested,
    plain_name,
    saved_name,
    shape_words,
    short_name,
    value_words,
)

UNARY_FUNCTIONS = (  # without a formula here
    *("acos", "acosh", "arccos", "arcsin", "asin", "atanh", "digamma", "erfinv", "expm1", "lgamma", "log10", "log1p"),
    *("log2", "logit", "reciprocal", "tan"),
)
MAX_NAMED_NODES = 4  # nodes of one operation that are all named


def forward_lines(trace: Trace, op: Operation, width: int) -> list[Line]:
    """Write what a call computed, in numbers where they are few."""
    if op.raised:
        consequence = " The forward went on without it." * (op.number + 1 < len(trace.ops))
        sentence = f"{one_line(op.name)} raised: nothing came out of it.{consequence}"
        return [*wrapped_rows(sentence, width, style="error"), *_input_lines(trace, op, width)]
    is_known = op.inputs and op.output and not op.opaque and not is_complex((*op.inputs, *op.output))
    rule, call = FORWARD_RULES.get(plain_name(op.name)) if is_known else None, CallContext(trace, op)
    if rule is None:
        lines = [*_unknown_lines(trace, op, width), *_nonfinite_lines(call, None, width)]
    else:
        lines = _formula_lines(call, rule, width)
    lines += dtype_lines(op.inputs, op.output, width)
    if rule is not None and not op.not_finite and any(value.stats.values is None for value in op.inputs):
        lines += range_lines([(name_of(trace, value), value) for value in op.inputs], width, style="dim")
    return [*lines, *saved_lines(trace, op, width)]


def _input_lines(trace: Trace, op: Operation, width: int) -> list[Line]:
    heads = [(f"from {name_of(trace, value)}", value_words(value, width - 4)) for value in op.inputs]
    return [line for head, words in heads for line in headed_rows(head, words, width, style="")]


def _unknown_lines(trace: Trace, op: Operation, width: int) -> list[Line]:
    name = one_line(op.name)
    sentence = f"No formula is known here for {name}."
    if op.opaque or not op.inputs:
        sentence = f"{name}: known by what came out of it alone." if op.opaque else f"{name}: made from no tensor."
    lines = [*wrapped_rows(sentence, width, style="dim"), *_input_lines(trace, op, width)]
    for value in op.output:
        lines += result_lines(value_words(value, width - 4), width)
    return lines


def _formula_lines(call: CallContext, rule: ForwardRule, width: int) -> list[Line]:
    """Write a call's formula and its numbers, and what was stretched or changed in place."""
    derivation, op, output = rule(call), call.op, call.op.output[0]
    assignment = f"{short_name(call.trace, output)} = " if output.name else ""
    lines = wrapped_rows(f"{assignment}{derivation.formula}", width, style="strong")
    lines += [*_number_lines(call, rule, derivation, width), *_nonfinite_lines(call, rule, width)]
    if derivation.elementwise and len(op.inputs) > 1:
        for value in op.inputs:
            if value.stats.size < output.stats.size and value.stats.shape:
                shapes = f"{shape_words(value.stats.shape)} to {shape_words(output.stats.shape)}"
                sentence = f"{expression(call.trace, value)} was stretched from {shapes}."
                lines += wrapped_rows(sentence, width, style="dim", indent="  ")
    if op.mutates:
        sentence = f"It changed {name_of(call.trace, op.inputs[0])} in place: the old values are gone."
        lines += wrapped_rows(sentence, width, style="dim")
    return lines


def _number_lines(call: CallContext, rule: ForwardRule, derivation: Derivation, width: int) -> list[Line]:
    """Write the arithmetic, if it gives what PyTorch has; of a large tensor that of the first value."""
    output = call.op.output[0]
    recorded, result = SmallTensor.of(output), derivation.result
    if not (result and recorded and result.shape == recorded.shape):
        return _first_value_lines(call, rule, derivation, width)
    written = written_result(output, recorded, width)
    if sentence := overflow_message(result, output):
        lines = [] if call.op.not_finite else wrapped_rows(sentence, width, indent="  ")
        return [*lines, *result_lines(written, width, style="")]
    if not derivation.agrees(recorded, _tolerance(call)):
        return contradiction_lines(nested(result.values, result.shape), output, width)
    return agreeing_lines(derivation, recorded, written, width, works_nonfinite=bool(call.op.not_finite))


def _first_value_lines(call: CallContext, rule: ForwardRule, derivation: Derivation, width: int) -> list[Line]:
    """Write the result, and for an elementwise function how its first element was computed."""
    output = call.op.output[0]
    lines = result_lines(value_words(output, width - 4), width)
    if not derivation.elementwise or call.op.not_finite:
        return lines
    call = replace(call, one_value=True)
    first, recorded = rule(call), call.small(output)
    if not (first.result and recorded and first.arithmetic):
        return lines
    if first.agrees(recorded, _tolerance(call)):
        inputs = [(name_of(call.trace, value), value) for value in call.op.inputs]
        example = finite_example_lines(recorded.values[0], output, inputs, width)
        return [*first_value_lines(first, recorded, width), *example, *lines]
    if overflow_message(first.result, output):
        return lines
    return contradiction_lines(f"{terse(first.result.values[0])} first", output, width)


def _tolerance(call: CallContext) -> float:
    return tolerance_of((*call.op.inputs, *call.op.output))


def _nonfinite_lines(call: CallContext, rule: ForwardRule | None, width: int) -> list[Line]:
    """Write how much of each output is NaN or infinite, and how the first such element was computed."""
    op, lines = call.op, list[Line]()
    inputs = [(name_of(call.trace, value), value) for value in op.inputs]
    for first in op.not_finite:
        output = op.output[first.output]
        derivation = rule(replace(call, one_value=True, nonfinite=first)) if rule and first.output == 0 else None
        equation = nonfinite_equation(derivation, first, output, _tolerance(call)) or _unary_equation(op, first)
        with_elements = rule is None or "softmax" in op.name
        lines += nonfinite_lines(first, output, inputs, equation, width, with_elements=with_elements)
        sentence = overflow_message(derivation.result, output) if derivation and derivation.result else ""
        lines += wrapped_rows(sentence, width, indent="  ") if sentence else []
    return lines


def _unary_equation(op: Operation, first: NonFinite) -> str:
    """Write a function of one number, of which no formula is known, with the number that came out; "" for others."""
    name, number = plain_name(op.name), first.input_values[0] if len(op.inputs) == 1 else None
    if name not in UNARY_FUNCTIONS or number is None:
        return ""
    return f"{name}({terse(number)}) = {terse(first.value)}"


def saved_lines(trace: Trace, op: Operation, width: int) -> list[Line]:
    """Write what each node saves for backward and, for a product, why that is enough."""
    nodes = [trace.nodes[number] for number in op.nodes]
    if not nodes:
        sentence = "It made no node of the graph below the loss: backward has nothing to do for it."
        if trace.error:
            sentence = "The forward raised later: there is no loss, and no graph to go back through."
        return wrapped_rows(sentence, width, style="dim")
    saving = [node for node in nodes if node.saved or node.saved is None]
    shown = nodes if len(nodes) <= MAX_NAMED_NODES else saving
    sentences = [_saved_sentence(trace, op, node) for node in shown]
    if len(shown) < len(nodes):
        sentences.insert(0, f"It left {len(nodes)} nodes. Those that only hand gradients on keep no tensor.")
    return [line for saved_sentence in sentences for line in wrapped_rows(saved_sentence, width, style="dim")]


def _saved_sentence(trace: Trace, op: Operation, node: Node) -> str:
    name = one_line(node.name)
    if node.saved is None:
        return f"{name}: what it keeps for backward is not known."
    if not node.saved:
        return f"{name} keeps no tensor: its backward needs none."
    names = ", ".join(dict.fromkeys(_saved_name(trace, node, value) for value in node.saved))
    return f"{name} keeps {names} for backward.{_why_enough(trace, op, node)}"


def _saved_name(trace: Trace, node: Node, value: Value) -> str:
    has_name = value.name or value.maker is not None
    return inner(expression(trace, value)) if has_name else saved_name(trace, node, value)


def _why_enough(trace: Trace, op: Operation, node: Node) -> str:
    """Return why a product saves one factor and not the other."""
    if node.name != "MulBackward0" or len(op.inputs) != 2 or len(op.nodes) != 1 or len(node.next) != 2:
        return ""
    roles = {value.role for value in node.saved or ()}
    left, right = (inner(expression(trace, value)) for value in op.inputs)
    if roles == {"other"} and node.next[1] is None:
        return _reason(left, right)
    if roles == {"self"} and node.next[0] is None:
        return _reason(right, left)
    return f" Each is the derivative of the other: {left}'s gradient needs {right}, {right}'s needs {left}."


def _reason(followed: str, other: str) -> str:
    """Return the factor that autograd follows, and the one that needs no gradient."""
    reason = f"the gradient of {followed} needs {other}; {other} needs no gradient, so {followed} is not kept."
    return f" That is enough: {reason}"
