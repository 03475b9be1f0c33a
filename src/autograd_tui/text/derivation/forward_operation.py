"""What a forward operation computed from what, and what its nodes keep for backward."""

from __future__ import annotations

from autograd_tui.core.trace import Node, NonFinite, Operation, Trace, Value
from autograd_tui.text.derivation.forward_call import (
    ELEMENTWISE_RULES,
    LAYER_RULES,
    MATRIX_RULES,
    CallContext,
    Computed,
    ForwardRule,
)
from autograd_tui.text.derivation.input_gradient import MOST_LISTED
from autograd_tui.text.derivation.small_tensor import SmallTensor, agrees, near, overflow, rounding
from autograd_tui.text.equation import headed, rows, with_digits, worked
from autograd_tui.text.numbers import terse
from autograd_tui.text.styled_text import Line, one_line
from autograd_tui.text.trace.expression import expression, inner, plain_name, short_name
from autograd_tui.text.trace.first_nonfinite import not_finite_lines
from autograd_tui.text.trace.tensor_words import dtype_change, kept_name, name_of, nested, shape_words, value_words

OF_ONE_NUMBER = (  # without a formula here
    *("acos", "acosh", "arccos", "arcsin", "asin", "atanh", "digamma", "erfinv", "expm1", "lgamma", "log10", "log1p"),
    *("log2", "logit", "reciprocal", "tan"),
)
FEW = 4  # nodes of one operation that are all named
RULES: dict[str, ForwardRule] = {
    **ELEMENTWISE_RULES,
    **LAYER_RULES,
    **MATRIX_RULES,
}


def forward_lines(trace: Trace, op: Operation, width: int) -> list[Line]:
    """Show what was computed, in numbers where they are few."""
    if op.raised:
        return _raised(trace, op, width)
    rule = None if op.opaque or not (op.inputs and op.output) or _complex(op) else RULES.get(plain_name(op.name))
    if rule is None:
        found = _not_finite(trace, op, None, width)
        return [*_unknown(trace, op, width), *found, *_dtypes(op, width), *saved_lines(trace, op, width)]
    computed, output = rule(CallContext(trace, op)), op.output[0]
    head = _named(trace, output)
    lines = rows(f"{head}{computed.formula}", width, style="strong")
    lines += [*_numbers(trace, op, rule, computed, width), *_not_finite(trace, op, rule, width)]
    lines += _stretched(trace, op, computed, width)
    if op.mutates:
        said = f"It changed {name_of(trace, op.inputs[0])} in place: the old values are gone."
        lines += rows(said, width, style="dim")
    return [*lines, *_dtypes(op, width), *saved_lines(trace, op, width)]


def _not_finite(trace: Trace, op: Operation, rule: ForwardRule | None, width: int) -> list[Line]:
    """Say of what came out how much is not finite, and how the first of it came about."""
    lines: list[Line] = []
    for found in op.not_finite:
        made, given = op.output[found.output], [(name_of(trace, value), value) for value in op.inputs]
        one = rule(CallContext(trace, op, first=True, at=found)) if rule and found.output == 0 else None
        too_large = overflow(one.result, made) if one and one.result else ""
        equation, there = _equation(op, found, one, too_large), rule is None or "softmax" in op.name
        lines += not_finite_lines(found, made, given, equation, width, there=there)
        lines += rows(too_large, width, indent="  ") if too_large else []
    return lines


def _equation(op: Operation, found: NonFinite, one: Computed | None, too_large: str) -> str:
    """Write how the first value that is not finite was computed, as far as that is known."""
    value = terse(found.value)
    if one and one.by_value and one.result and one.worked:
        fits = near(
            one.result.values[0], found.value, error=rounding((*op.inputs, *op.output)), size=one.result.largest
        )
        return f"{with_digits(one.worked)} = {value}" if fits or too_large else ""
    alone = plain_name(op.name) in OF_ONE_NUMBER and len(op.inputs) == 1 and found.given[0] is not None
    return f"{plain_name(op.name)}({terse(found.given[0] or 0.0)}) = {value}" if alone else ""


def _dtypes(op: Operation, width: int) -> list[Line]:
    said = dtype_change(op.inputs, op.output)
    return rows(said, width) if said else []


def _named(trace: Trace, output: Value) -> str:
    return f"{short_name(trace, output)} = " if output.name else ""


def _complex(op: Operation) -> bool:
    return any(value.stats.dtype.startswith("complex") for value in (*op.inputs, *op.output))


def _raised(trace: Trace, op: Operation, width: int) -> list[Line]:
    last = " The forward went on without it." * (op.number + 1 < len(trace.ops))
    lines = rows(f"{one_line(op.name)} raised: nothing came out of it.{last}", width, style="error")
    for value in op.inputs:
        lines += headed(f"from {name_of(trace, value)}", value_words(value, width - 4), width, style="")
    return lines


def _unknown(trace: Trace, op: Operation, width: int) -> list[Line]:
    name = one_line(op.name)
    said = f"No formula is known here for {name}."
    if op.opaque or not op.inputs:
        said = f"{name}: known by what came out of it alone." if op.opaque else f"{name}: made from no tensor."
    lines = rows(said, width, style="dim")
    for value in op.inputs:
        lines += headed(f"from {name_of(trace, value)}", value_words(value, width - 4), width, style="")
    for value in op.output:
        lines += rows(f"= {value_words(value, width - 4)}", width, indent="  ", style="now")
    return lines


def _numbers(trace: Trace, op: Operation, rule: ForwardRule, computed: Computed, width: int) -> list[Line]:
    """Write the arithmetic, if it gives what PyTorch has; of a large tensor that of the first value."""
    output = op.output[0]
    known, result = SmallTensor.of(output), computed.result
    if not (result and known and result.shape == known.shape):
        return _first(trace, op, rule, computed, width)
    few = len(known.values) <= MOST_LISTED
    shown = nested(known.values, known.shape) if few else value_words(output, width - 4)
    if (said := overflow(result, output)) and op.not_finite:
        return rows(f"= {shown}", width, indent="  ")
    if said:
        return [*rows(said, width, indent="  "), *rows(f"= {shown}", width, indent="  ")]
    if not agrees(result, known, error=rounding((*op.inputs, output)), size=max(computed.size, result.largest)):
        return _contradicted(nested(result.values, result.shape), output, width)
    if computed.worked.startswith("first value") and op.not_finite:
        return rows(f"= {shown}", width, indent="  ", style="now")
    if computed.worked.startswith("first value"):
        first = rows(worked(computed.worked, known.values[:1], terse(known.values[0])), width, indent="  ")
        return [*first, *rows(f"= {shown}", width, indent="  ", style="now")]
    text = worked(computed.worked, known.values, shown) if computed.worked else f"= {shown}"
    return rows(text, width, indent="  ", style="now")


def _first(trace: Trace, op: Operation, rule: ForwardRule, computed: Computed, width: int) -> list[Line]:
    """Write what came out, and where it is made value by value how the first one was."""
    output, call = op.output[0], CallContext(trace, op, first=True)
    result = rows(f"= {value_words(output, width - 4)}", width, indent="  ", style="now")
    one, ours = rule(call) if computed.by_value else computed, call.small(output)
    if not (computed.by_value and one.result and ours and one.worked) or op.not_finite:
        return result
    size = max(one.size, one.result.largest)
    if not near(one.result.values[0], ours.values[0], error=rounding((*op.inputs, output)), size=size):
        if overflow(one.result, output):
            return result
        return _contradicted(f"{terse(one.result.values[0])} first", output, width)
    first = worked(f"first value: {one.worked}", ours.values[:1], terse(ours.values[0]))
    return [*rows(first, width, indent="  "), *result]


def _contradicted(computed: str, output: Value, width: int) -> list[Line]:
    said = f"this formula gives {computed}, but {value_words(output, width - 8)} came out."
    return rows(said, width, indent="  ", style="warn")


def _stretched(trace: Trace, op: Operation, computed: Computed, width: int) -> list[Line]:
    """Say which operand was repeated to fit the other."""
    if not computed.by_value or len(op.inputs) < 2:
        return []
    shape = op.output[0].stats.shape
    lines: list[Line] = []
    for value in op.inputs:
        if value.stats.size < op.output[0].stats.size and value.stats.shape:
            name = expression(trace, value)
            said = f"{name} was stretched from {shape_words(value.stats.shape)} to {shape_words(shape)}."
            lines += rows(said, width, style="dim", indent="  ")
    return lines


def saved_lines(trace: Trace, op: Operation, width: int) -> list[Line]:
    """Say what each node keeps for backward and, for a product, why that is enough."""
    nodes = [trace.nodes[number] for number in op.nodes]
    if not nodes:
        said = "It made no node of the graph below the loss: backward has nothing to do for it."
        if trace.error:
            said = "The forward raised later: there is no loss, and no graph to go back through."
        return rows(said, width, style="dim")
    keeping = [node for node in nodes if node.saved or node.saved is None]
    shown = nodes if len(nodes) <= FEW else keeping
    kept = [_saved(trace, op, node) for node in shown]
    if len(shown) < len(nodes):
        kept.insert(0, f"It left {len(nodes)} nodes. Those that only hand gradients on keep no tensor.")
    return [line for each in kept for line in rows(each, width, style="dim")]


def _saved(trace: Trace, op: Operation, node: Node) -> str:
    name = one_line(node.name)
    if node.saved is None:
        return f"{name}: what it keeps for backward is not known."
    if not node.saved:
        return f"{name} keeps no tensor: its backward needs none."
    kept = ", ".join(dict.fromkeys(_kept(trace, node, value) for value in node.saved))
    return f"{name} keeps {kept} for backward.{_enough(trace, op, node)}"


def _kept(trace: Trace, node: Node, value: Value) -> str:
    own = value.name or value.maker is not None
    return inner(expression(trace, value)) if own else kept_name(trace, node, value)


def _enough(trace: Trace, op: Operation, node: Node) -> str:
    """Say why a product saves the one factor and not the other."""
    if node.name != "MulBackward0" or len(op.inputs) != 2 or len(op.nodes) != 1 or len(node.next) != 2:
        return ""
    kept = {value.role for value in node.saved or ()}
    left, right = (inner(expression(trace, value)) for value in op.inputs)
    if kept == {"other"} and node.next[1] is None:
        return _why(left, right)
    if kept == {"self"} and node.next[0] is None:
        return _why(right, left)
    return f" Each is the derivative of the other: {left}'s gradient needs {right}, {right}'s needs {left}."


def _why(follows: str, other: str) -> str:
    """Name the factor that autograd follows, and the one that needs no gradient."""
    why = f"the gradient of {follows} needs {other}; {other} needs no gradient, so {follows} is not kept."
    return f" That is enough: {why}"
