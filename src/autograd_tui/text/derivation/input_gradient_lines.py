"""The lines for the gradient of one input of a node: formula, numbers, and whether PyTorch has the same."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from autograd_tui.core.trace import NonFinite, Value
from autograd_tui.text.derivation.derivation import (
    Derivation,
    agreeing_lines,
    arithmetic_lines,
    contradiction_lines,
    first_value_lines,
    result_lines,
    written_result,
    written_sum,
)
from autograd_tui.text.derivation.nonfinite_lines import (
    finite_example_lines,
    nonfinite_equation,
    nonfinite_lines,
    nonfinite_of,
)
from autograd_tui.text.derivation.rule_context import LETTERS, BackwardRule, NodeContext
from autograd_tui.text.derivation.small_tensor import SmallTensor, broadcast_shape, overflow_message, tolerance_of
from autograd_tui.text.equation import evaluated, headed_rows, wrapped_rows
from autograd_tui.text.numbers import terse
from autograd_tui.text.styled_text import Line
from autograd_tui.text.trace.tensor_words import nested, saved_name, shape_words, value_words

MAX_WRITTEN_TERMS = 8  # of a sum that is written out
CAUSE = ": something else was computed, or changed it."


def input_gradient_lines(context: NodeContext, index: int, rule: BackwardRule | None, width: int) -> list[Line]:
    """Write the gradient of one input: its formula, the arithmetic, and what is not finite in it."""
    recorded, head = context.op.grad_out[index], f"to {context.target(index)}"
    if recorded is None:
        return headed_rows(head, _why_none(context, index), width)
    derivation, nonfinite = _derivation(context, index, rule), nonfinite_of(context.op, index)
    lines = _number_lines(context, derivation, recorded, rule, width) if derivation else None
    if derivation is None or lines is None:
        lines = headed_rows(head, f"got {value_words(recorded, width - 6)}", width)
    else:
        letter = LETTERS[index % len(LETTERS)]
        if re.search(rf"\b{letter}\b", derivation.formula) and context.name(index) == letter:
            head = f"{head} ({letter})"
        local = wrapped_rows(derivation.local, width, indent="  ") if derivation.local else []
        stretched = _broadcast_note(context, derivation, recorded)
        lines = [*_headline(head, derivation.formula, stretched, width), *local, *lines]
    return [*lines, *(_nonfinite_lines(context, nonfinite, recorded, rule, width) if nonfinite else [])]


def _nonfinite_lines(
    context: NodeContext, nonfinite: NonFinite, recorded: Value, rule: BackwardRule | None, width: int
) -> list[Line]:
    """Write how much of a gradient is NaN or infinite, and how the first such element was computed."""
    saved, upstreams = context.saved_values, context.op.grad_in
    names = [] if context.node is None else [saved_name(context.trace, context.node, value) for value in saved]
    inputs = [*(("upstream", value) for value in upstreams if value is not None), *zip(names, saved, strict=False)]
    derivation = _derivation(replace(context, one_value=True, nonfinite=nonfinite), nonfinite.output, rule)
    equation = nonfinite_equation(derivation, nonfinite, recorded, _tolerance(context, recorded))
    if equation:
        numbers = zip(names, nonfinite.input_values[len(upstreams) :], strict=False)
        pairs = ((name, terse(number)) for name, number in numbers if number is not None)
        where = ", ".join(f"{name} is {written}" for name, written in pairs if name != written)
        equation += f", where {where}" if where else ""
    return nonfinite_lines(nonfinite, recorded, inputs, equation, width, with_elements=rule is None)


def _derivation(context: NodeContext, index: int, rule: BackwardRule | None) -> Derivation | None:
    return next((derivation for derivation in rule(context) if derivation.index == index), None) if rule else None


def _headline(head: str, formula: str, stretched: str, width: int) -> list[Line]:
    """Write where the gradient goes and by which formula; what was stretched in the same row if it fits."""
    whole = f"{formula}, {stretched}" if stretched else formula
    if not stretched or len(head) + 2 + len(whole) <= width:
        return headed_rows(head, whole, width)
    return [*headed_rows(head, formula, width), *wrapped_rows(stretched, width, indent="  ")]


def _why_none(context: NodeContext, index: int) -> str:
    node = context.node
    if node is None or index >= len(node.next) or node.next[index] is not None:
        return "None: the node gave no gradient for it."
    if not context.is_whole_call:
        return "None: autograd follows nothing there."
    return "None: it needs no gradient." if context.call_input(index) else "None: it is no tensor."


def _number_lines(
    context: NodeContext, derivation: Derivation, recorded: Value, rule: BackwardRule | None, width: int
) -> list[Line] | None:
    """Write the arithmetic and its result, compared with PyTorch's.

    Returns None where the formula does not hold and need not: the node is one of several of its call, whose settings
    need not be this node's.
    """
    values, result = SmallTensor.of(recorded), derivation.result
    written = value_words(recorded, width - 4)
    if not (result and values and broadcast_shape(result.shape, values.shape) == result.shape):
        first = _first_value_lines(context, derivation, recorded, rule, width)
        return None if first is None else [*first, *result_lines(written, width)]
    if derivation.agrees(values, _tolerance(context, recorded)):
        return _agreeing_lines(context, derivation, recorded, values, width)
    if sentence := overflow_message(result, recorded):
        return [*wrapped_rows(sentence, width, indent="  "), *result_lines(written, width)]
    return _contradiction_lines(context, derivation.summed_to(values.shape), recorded, width)


def _contradiction_lines(context: NodeContext, computed: SmallTensor, recorded: Value, width: int) -> list[Line] | None:
    if not context.is_whole_call:
        return None
    return contradiction_lines(nested(computed.values, computed.shape), recorded, width, cause=CAUSE)


def _tolerance(context: NodeContext, recorded: Value) -> float:
    return tolerance_of((recorded, *context.op.grad_in, *context.saved_values))


def _agreeing_lines(
    context: NodeContext, derivation: Derivation, recorded: Value, values: SmallTensor, width: int
) -> list[Line]:
    """Write the arithmetic, the sum of what was stretched last."""
    assert derivation.result is not None
    written = written_result(recorded, values, width)
    if len(derivation.result.values) > len(values.values):
        return [*_term_lines(derivation, derivation.result, width), *_sum_lines(derivation.result, values, width)]
    if derivation.unchanged:
        return wrapped_rows(f"{_unchanged_text(context, recorded)}: {written}", width, indent="  ", style="now")
    works_nonfinite = nonfinite_of(context.op, derivation.index) is not None
    return agreeing_lines(derivation, values, written, width, works_nonfinite=works_nonfinite)


def _unchanged_text(context: NodeContext, recorded: Value) -> str:
    """Write that a gradient is passed on unchanged, save a change of dtype."""
    upstream = context.upstream_value
    same = upstream is None or upstream.stats.dtype == recorded.stats.dtype
    return "handed on as it is" if same else f"handed on as {recorded.stats.dtype}"


def _term_lines(derivation: Derivation, terms: SmallTensor, width: int) -> list[Line]:
    """Write the terms that broadcasting makes a sum of, unless they are the unchanged upstream."""
    if derivation.of_first_value:
        return first_value_lines(derivation, terms, width)
    if derivation.unchanged:
        return []
    return arithmetic_lines(derivation, terms.values, nested(terms.values, terms.shape), width, style="")


def _sum_lines(terms: SmallTensor, values: SmallTensor, width: int) -> list[Line]:
    written = nested(values.values, values.shape)
    if len(values.values) == 1 and len(terms.values) <= MAX_WRITTEN_TERMS:
        return wrapped_rows(evaluated(written_sum(terms), values.values, written), width, indent="  ", style="now")
    return result_lines(written, width)


def _first_value_lines(
    context: NodeContext, derivation: Derivation, recorded: Value, rule: BackwardRule | None, width: int
) -> list[Line] | None:
    """Write the first element of a large tensor in numbers; None if PyTorch has another and that is no error."""
    upstream, first = context.upstream_value, replace(context, one_value=True)
    values = first.small(recorded)
    if not (derivation.elementwise and values and upstream) or upstream.stats.shape != recorded.stats.shape:
        return []
    one = _derivation(first, derivation.index, rule)
    if nonfinite_of(context.op, derivation.index) or one is None or one.result is None:  # another value is worked
        return []
    if not one.agrees(values, _tolerance(context, recorded)):
        return _contradiction_lines(context, one.result, recorded, width)
    if one.unchanged:
        return wrapped_rows(_unchanged_text(context, recorded), width, indent="  ")
    example = finite_example_lines(values.values[0], recorded, [("upstream", upstream)], width)
    return [*first_value_lines(one, values, width), *example]


def _broadcast_note(context: NodeContext, derivation: Derivation, recorded: Value) -> str:
    """Write that the gradient of a broadcast input is summed; "" if the input was not broadcast."""
    upstream = context.upstream_value if derivation.elementwise else None
    result = derivation.result
    shape = result.shape if result else upstream.stats.shape if upstream else recorded.stats.shape
    count = math.prod(shape) // max(recorded.stats.size, 1)
    if count < 2:
        return ""
    name, shapes = context.target(derivation.index), f"{shape_words(recorded.stats.shape)} to {shape_words(shape)}"
    return f"summed over {count}: {name} was stretched from {shapes}"
