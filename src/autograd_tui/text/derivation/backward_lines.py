"""The chain rule at one node: what came in, what goes to each input, and gradients that arrive at a leaf."""

from __future__ import annotations

from autograd_tui.core.trace import Operation, Trace, Value
from autograd_tui.text.derivation.downstream import downstream_lines
from autograd_tui.text.derivation.presenter import dtype_lines
from autograd_tui.text.derivation.rule_context import NodeContext
from autograd_tui.text.derivation.rules import BACKWARD_RULES
from autograd_tui.text.derivation.small_tensor import SmallTensor, all_close, is_close, map_values, tolerance_of
from autograd_tui.text.equation import evaluated, exact, headed_rows, wrapped_rows
from autograd_tui.text.numbers import terse
from autograd_tui.text.styled_text import Line, length, one_line, plain
from autograd_tui.text.trace.expression import differential, expression
from autograd_tui.text.trace.inplace_hazards import why_it_raised
from autograd_tui.text.trace.tensor_words import nested, value_words

FIRST_GRADIENT = "It was None: the first gradient to arrive is stored as it is."
ACCUMULATED = "A gradient was there already: no zero_grad since the backward before."


def is_accumulation(op: Operation) -> bool:
    """Tell whether a node fills or adds to a `.grad`."""
    return op.accumulates_into is not None or op.name.endswith("AccumulateGrad")


TAKEN_BACK = "The backward raised afterwards, so it was taken back: it is {} again."


def accumulation_lines(op: Operation, width: int, *, undone: bool = False) -> list[Line]:
    """Say what is added to which `.grad`; `undone`: the backward raised afterwards."""
    lines = _added(op, width)
    if undone and op.grad_after is not None:
        lines += wrapped_rows(TAKEN_BACK.format(_words(op.grad_before, width)), width, style="error")
    return lines


def _added(op: Operation, width: int) -> list[Line]:
    name = one_line(op.accumulates_into or "")
    head = f"{name}.grad" if name else "a leaf that is no parameter"
    upstream = next((value for value in op.grad_in if value is not None), None)
    before, after, arriving = (_words(value, width) for value in (op.grad_before, op.grad_after, upstream))
    if upstream is None or op.grad_after is None:
        return headed_rows(head, f"{arriving} arrived." if upstream else "no gradient came: nothing changes.", width)
    if not _adds_up(op.grad_before, upstream, op.grad_after):
        sentence = f"was {before}, and {arriving} arrived, yet it holds {after}: something, such as a hook, changed it."
        return [*headed_rows(head, sentence, width, style="warn")]
    added = f"({arriving})" if arriving.startswith("-") else arriving
    if op.grad_before is None:
        return [
            *headed_rows(head, f"None + {added} = {after}", width, style="now"),
            *wrapped_rows(FIRST_GRADIENT, width, style="dim"),
        ]
    sentence = f"{_addition(op.grad_before, upstream, op.grad_after, width)} (adds to what was there)"
    return [*headed_rows(head, sentence, width, style="now"), *wrapped_rows(ACCUMULATED, width, style="dim")]


def _addition(before: Value, upstream: Value, after: Value, width: int) -> str:
    """Write the sum; of large tensors in words, since norms do not add up as the values do."""
    was, arriving, now = (_words(value, width) for value in (before, upstream, after))
    known = [(value.stats.values, value.stats.shape) for value in (before, upstream, after) if value.stats.values]
    if len(known) < 3 or not all(map(str.startswith, (was, arriving, now), (nested(*each) for each in known))):
        return f"{was}, plus {arriving}, is {now}"
    one, other = (nested(*each, write=exact) for each in known[:2])
    return evaluated(f"{one} + {f'({other})' if other.startswith('-') else other}", known[2][0], now)


def _adds_up(before: Value | None, upstream: Value, after: Value) -> bool:
    """Tell whether what is there now is the sum; of tensors too large to tell, that it can be."""
    tolerance, old, new, now = (
        tolerance_of((upstream, before)),
        SmallTensor.of(before),
        SmallTensor.of(upstream),
        SmallTensor.of(after),
    )
    if new is None or now is None:
        norms = upstream.stats.norm, after.stats.norm
        known = before is None and norms[0] is not None and norms[1] is not None
        return not known or is_close(norms[0] or 0.0, norms[1] or 0.0, tolerance=tolerance, magnitude=0.0)
    sums = new if before is None else map_values(lambda one, other: one + other, old, new)
    return sums is None or all_close(sums, now, tolerance=tolerance, magnitude=max(sums.max_abs, new.max_abs))


def _words(value: Value | None, width: int) -> str:
    """Write all values where they are few and fit, else so much that three tensors stand in a row."""
    small = value is None or value.stats.values is not None
    return value_words(value, width - 4 if small else width // 3)


def backward_lines(trace: Trace, op: Operation, width: int) -> list[Line]:
    """Show upstream x local = downstream."""
    if is_accumulation(op):
        return accumulation_lines(op, width, undone=trace.error is not None)
    context = NodeContext(trace, op)
    rule = None if any(map(_complex, op.grad_in)) or any(op.grad_in[1:]) else BACKWARD_RULES.get(op.name)
    lines = upstream_lines(context, width)
    if rule is None and not op.raised:
        sentence = f"No formula is known here for {one_line(op.name)}: this is what came out of it."
        lines += wrapped_rows(sentence, width, style="dim")
    for index in range(len(op.grad_out)):
        lines += downstream_lines(context, index, rule, width)
    lines += dtype_lines(op.grad_in, op.grad_out, width)
    if op.raised:
        return [
            *lines,
            *(line for sentence in why_it_raised(trace, op) for line in wrapped_rows(sentence, width, style="error")),
        ]
    return _freed(context, lines, width)


def _complex(value: Value | None) -> bool:
    return value is not None and value.stats.dtype.startswith("complex")


def upstream_lines(context: NodeContext, width: int) -> list[Line]:
    """Show what came in, and from where."""
    lines: list[Line] = []
    for index, value in enumerate(context.op.grad_in):
        name = _made(context, index)
        label = "upstream" + (f" dL/{name}" if name else f" {index + 1}" * (len(context.op.grad_in) > 1))
        room = width - 2 if value is None or value.stats.values else max(width - len(label) - 2, width // 2)
        lines += headed_rows(label, value_words(value, room), width, style="accent")
    return [*lines, *_senders(context, width)]


def _made(context: NodeContext, index: int) -> str:
    """Name what the upstream is the gradient by; "" for something inside an operation."""
    call = context.call
    if call is None or not call.nodes or context.op.node != min(call.nodes) or len(call.output) != 1 or index:
        return ""
    return differential(expression(context.trace, call.output[0]))


def _senders(context: NodeContext, width: int) -> list[Line]:
    """Say where the upstream comes from: the start, or several nodes whose gradients the engine has added."""
    number, nodes = context.op.node, context.trace.nodes
    if number is None or len(context.op.grad_in) != 1:
        return []
    before = [
        (op, index)
        for op in context.trace.ops[: context.op.number]
        if op.node is not None
        for index, after in enumerate(nodes[op.node].next)
        if after == number and index < len(op.grad_out) and op.grad_out[index] is not None
    ]
    if not before and context.upstream and context.upstream.values == (1.0,):
        return wrapped_rows("backward starts here: dloss/dloss = 1", width, style="dim", indent="  ")
    if len(before) < 2:
        return []
    sent = " + ".join(_in_short(op.grad_out[index]) for op, index in before)
    names = ", ".join(one_line(op.name) for op, _ in before)
    sentence = f"used {len(before)} times, so the gradients of each use were added: {sent}, from {names}"
    return wrapped_rows(sentence, width, style="dim", indent="  ")


def _in_short(value: Value | None) -> str:
    if value is None or value.stats.values is not None:
        return value_words(value, 200)
    return f"norm {terse(value.stats.norm or 0.0)}"


def _freed(context: NodeContext, lines: list[Line], width: int) -> list[Line]:
    """Say that what the node had saved is gone; in few words behind the last row, where they fit."""
    if not (context.node and context.node.saved):
        return lines
    short = "   What it had saved is freed now."
    if lines and plain(lines[-1]).startswith("to ") and length(lines[-1]) + len(short) <= width:
        return [*lines[:-1], [*lines[-1], (short, "dim")]]
    sentence = "What it had saved is freed now: that is why a second backward fails."
    return [*lines, *wrapped_rows(sentence, width, style="dim")]
