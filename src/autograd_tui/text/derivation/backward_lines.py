"""The lines for one node of backward: its upstream, the gradient of each input, and accumulation into a leaf."""

from __future__ import annotations

from autograd_tui.core.trace import Operation, Trace, Value
from autograd_tui.text.derivation.derivation import dtype_lines, is_complex
from autograd_tui.text.derivation.elementwise_gradients import ELEMENTWISE_RULES
from autograd_tui.text.derivation.input_gradient_lines import input_gradient_lines
from autograd_tui.text.derivation.loss_gradients import LOSS_RULES
from autograd_tui.text.derivation.matrix_gradients import MATRIX_RULES
from autograd_tui.text.derivation.normalization_gradients import NORMALIZATION_RULES
from autograd_tui.text.derivation.rule_context import BackwardRule, NodeContext
from autograd_tui.text.derivation.shape_gradients import SHAPE_RULES
from autograd_tui.text.derivation.small_tensor import SmallTensor, all_close, is_close, map_values, tolerance_of
from autograd_tui.text.derivation.window_gradients import WINDOW_RULES
from autograd_tui.text.equation import evaluated, exact, headed_rows, wrapped_rows
from autograd_tui.text.numbers import terse
from autograd_tui.text.styled_text import Line, length, one_line, plain
from autograd_tui.text.trace.expression import differential, expression
from autograd_tui.text.trace.health import why_it_raised
from autograd_tui.text.trace.tensor_words import nested, value_words

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
