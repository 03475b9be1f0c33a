"""The lines for one node of backward: its upstream, the gradient of each input, and accumulation into a leaf."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from autograd_tui.core.trace import NonFinite, Operation, Trace, Value
from autograd_tui.text.derivation.derivation import (
    Derivation,
    agreeing_lines,
    arithmetic_lines,
    contradiction_lines,
    dtype_lines,
    finite_example_lines,
    first_value_lines,
    is_complex,
    nonfinite_equation,
    nonfinite_lines,
    nonfinite_of,
    result_lines,
    written_result,
    written_sum,
)
from autograd_tui.text.derivation.function_gradients import ELEMENTWISE_RULES, LOSS_RULES, SHAPE_RULES
from autograd_tui.text.derivation.layer_gradients import MATRIX_RULES, NORMALIZATION_RULES, WINDOW_RULES
from autograd_tui.text.derivation.rule_context import LETTERS, BackwardRule, NodeContext
from autograd_tui.text.derivation.small_tensor import (
    SmallTensor,
    all_close,
    broadcast_shape,
    is_close,
    map_values,
    overflow_message,
    tolerance_of,
)
from autograd_tui.text.equation import evaluated, exact, headed_rows, wrapped_rows
from autograd_tui.text.numbers import terse
from autograd_tui.text.styled_text import Line, length, one_line, plain
from autograd_tui.text.trace.health import why_it_raised
from autograd_tui.text.trace.tensor_words import differential, expression, nested, saved_name, shape_words, value_words

BACKWARD_RULES: dict[str, BackwardRule] = {  # by the node's name
    **ELEMENTWISE_RULES,
    **LOSS_RULES,
    **MATRIX_RULES,
    **NORMALIZATION_RULES,
    **SHAPE_RULES,
    **WINDOW_RULES,
}
FIRST_GRADIENT = "It was None: the first gradient to arrive is stored as it is."
ACCUMULATED = "A gradient was there already: no zero_grad since the backward before."
TAKEN_BACK = "The backward raised afterwards, so it was taken back: it is {} again."
MAX_WRITTEN_TERMS = 8  # of a sum that is written out
CAUSE = ": something else was computed, or changed it."


def accumulation_lines(op: Operation, width: int, *, undone: bool) -> list[Line]:
    """Write what is added to a leaf's `.grad`; `undone` if the backward raised afterwards, which restores it."""
    lines = _accumulation(op, width)
    if undone and op.grad_after is not None:
        lines += wrapped_rows(TAKEN_BACK.format(_row_words(op.grad_before, width)), width, style="error")
    return lines


def _accumulation(op: Operation, width: int) -> list[Line]:
    name = one_line(op.accumulates_into or "")
    head = f"{name}.grad" if name else "a leaf that is no parameter"
    upstream = next((value for value in op.grad_in if value is not None), None)
    before, after, arriving = (_row_words(value, width) for value in (op.grad_before, op.grad_after, upstream))
    if upstream is None or op.grad_after is None:
        return headed_rows(head, f"{arriving} arrived." if upstream else "no gradient came: nothing changes.", width)
    if not _adds_up(op.grad_before, upstream, op.grad_after):
        sentence = f"was {before}, and {arriving} arrived, yet it holds {after}: something, such as a hook, changed it."
        return headed_rows(head, sentence, width, style="warn")
    if op.grad_before is None:
        sum_text, note = f"None + {_term(arriving)} = {after}", FIRST_GRADIENT
    else:
        sum_text = f"{_addition(op.grad_before, upstream, op.grad_after, width)} (adds to what was there)"
        note = ACCUMULATED
    return [*headed_rows(head, sum_text, width, style="now"), *wrapped_rows(note, width, style="dim")]


def _term(text: str) -> str:
    return f"({text})" if text.startswith("-") else text


def _addition(before: Value, upstream: Value, after: Value, width: int) -> str:
    """Write the sum; of large tensors in words, since norms do not add up as elements do."""
    values = (before, upstream, after)
    texts = [_row_words(value, width) for value in values]
    tensors = [(value.stats.values, value.stats.shape) for value in values if value.stats.values]
    if len(tensors) < 3 or not all(map(str.startswith, texts, (nested(*tensor) for tensor in tensors))):
        return f"{texts[0]}, plus {texts[1]}, is {texts[2]}"
    left, right = (nested(*tensor, write=exact) for tensor in tensors[:2])
    return evaluated(f"{left} + {_term(right)}", tensors[2][0], texts[2])


def _adds_up(before: Value | None, upstream: Value, after: Value) -> bool:
    """Return whether `after` is before + upstream, as far as the recorded elements or norms can tell."""
    tolerance, incoming, result = tolerance_of((upstream, before)), SmallTensor.of(upstream), SmallTensor.of(after)
    if incoming is None or result is None:
        norms = [value.stats.norm for value in (upstream, after) if before is None and value.stats.norm is not None]
        return len(norms) < 2 or is_close(*norms, tolerance=tolerance, magnitude=0.0)
    total = incoming
    if before is not None:
        total = map_values(lambda old, new: old + new, SmallTensor.of(before), incoming) or result
    magnitude = max(total.max_abs, incoming.max_abs)
    return all_close(total, result, tolerance=tolerance, magnitude=magnitude)


def _row_words(value: Value | None, width: int) -> str:
    """Write all elements if they are few, else a summary that fits three times in a row."""
    small = value is None or value.stats.values is not None
    return value_words(value, width - 4 if small else width // 3)


def backward_lines(trace: Trace, op: Operation, width: int) -> list[Line]:
    """Write the upstream, then upstream × local = downstream for each input of a node."""
    if op.is_accumulation:
        return accumulation_lines(op, width, undone=trace.error is not None)
    context = NodeContext(trace, op)
    rule = None if is_complex(op.grad_in) or any(op.grad_in[1:]) else BACKWARD_RULES.get(op.name)
    lines = upstream_lines(context, width)
    if rule is None and not op.raised:
        sentence = f"No formula is known here for {one_line(op.name)}: this is what came out of it."
        lines += wrapped_rows(sentence, width, style="dim")
    for index in range(len(op.grad_out)):
        lines += input_gradient_lines(context, index, rule, width)
    lines += dtype_lines(op.grad_in, op.grad_out, width)
    if not op.raised:
        return _with_freed_note(context, lines, width)
    for sentence in why_it_raised(trace, op):
        lines += wrapped_rows(sentence, width, style="error")
    return lines


def upstream_lines(context: NodeContext, width: int) -> list[Line]:
    """Write the gradients that a node received, and from which nodes."""
    lines: list[Line] = []
    for index, value in enumerate(context.op.grad_in):
        name = _upstream_of(context, index)
        label = "upstream" + (f" dL/{name}" if name else f" {index + 1}" * (len(context.op.grad_in) > 1))
        room = width - 2 if value is None or value.stats.values else max(width - len(label) - 2, width // 2)
        lines += headed_rows(label, value_words(value, room), width, style="accent")
    return [*lines, *_senders(context, width)]


def _upstream_of(context: NodeContext, index: int) -> str:
    """Return the tensor that the upstream is the gradient with respect to; "" inside a call of several nodes."""
    call = context.call
    if call is None or not call.nodes or context.op.node != min(call.nodes) or len(call.output) != 1 or index:
        return ""
    return differential(expression(context.trace, call.output[0]))


def _senders(context: NodeContext, width: int) -> list[Line]:
    """Write that backward starts here, or that the upstream is a sum of the gradients of several uses."""
    number, nodes = context.op.node, context.trace.nodes
    if number is None or len(context.op.grad_in) != 1:
        return []
    senders = [
        (op, index)
        for op in context.trace.ops[: context.op.number]
        if op.node is not None
        for index, after in enumerate(nodes[op.node].next)
        if after == number and index < len(op.grad_out) and op.grad_out[index] is not None
    ]
    if not senders and context.upstream and context.upstream.values == (1.0,):
        return wrapped_rows("backward starts here: dloss/dloss = 1", width, style="dim", indent="  ")
    if len(senders) < 2:
        return []
    gradients = " + ".join(_brief_words(op.grad_out[index]) for op, index in senders)
    names = ", ".join(one_line(op.name) for op, _ in senders)
    sentence = f"used {len(senders)} times, so the gradients of each use were added: {gradients}, from {names}"
    return wrapped_rows(sentence, width, style="dim", indent="  ")


def _brief_words(value: Value | None) -> str:
    if value is None or value.stats.values is not None:
        return value_words(value, 200)
    return f"norm {terse(value.stats.norm or 0.0)}"


def _with_freed_note(context: NodeContext, lines: list[Line], width: int) -> list[Line]:
    """Add a note that the node's saved tensors are freed, in the last row if it fits."""
    if not (context.node and context.node.saved):
        return lines
    short = "   What it had saved is freed now."
    if lines and plain(lines[-1]).startswith("to ") and length(lines[-1]) + len(short) <= width:
        return [*lines[:-1], [*lines[-1], (short, "dim")]]
    sentence = "What it had saved is freed now: that is why a second backward fails."
    return [*lines, *wrapped_rows(sentence, width, style="dim")]


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
