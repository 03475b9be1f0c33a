"""Warnings about a traced phase: NaN and infinity, in-place hazards, dead units, vanishing and exploding gradients."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence

from autograd_tui.core.command import Phase
from autograd_tui.core.trace import InplaceHazard, Node, Operation, Trace, Value
from autograd_tui.text.equation import wrapped_rows
from autograd_tui.text.numbers import count, parse_integers, terse
from autograd_tui.text.styled_text import Line, one_line
from autograd_tui.text.trace.tensor_words import has_nan, name_of, op_name, saved_name

MAX_LISTED_CASES = 3  # of one kind
SOFTMAX_NAMES = ("softmax", "log_softmax")
ATTENTION_NAMES = ("multi_head_attention_forward", "scaled_dot_product_attention")
MIN_DEAD_SHARE = 0.5  # of a layer's units, for a warning
VANISHING_RATIO = 1e-4  # of a layer's gradient norm to the largest
EXPLODING_NORM = 1e4  # of one layer
SECOND_BACKWARD = "a second time"  # in PyTorch's message
MAX_LISTED_LINES = 3  # of code, in one sentence
LayerNorms = dict[str, float]  # by the name of a module
# They return memory as it is, so a NaN in their output means nothing.
UNINITIALIZED = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted")
_INFINITY_WORD = re.compile(r"\binf\b")


def health_lines(trace: Trace, width: int = 80) -> list[Line]:
    """Return the warnings about a phase, the most serious first."""
    sentences = [*_nonfinite_sentences(trace)]
    if trace.phase is Phase.FORWARD:
        sentences += [*((each, "error") for each in _hazard_sentences(trace)), *_dead_unit_sentences(trace)]
    if trace.phase is Phase.BACKWARD:
        reasons = (reason for op in trace.ops if op.raised for reason in why_it_raised(trace, op))
        sentences += [*((each, "error") for each in reasons), *(() if trace.error else _gradient_sentences(trace))]
    return [line for sentence, style in sentences for line in wrapped_rows(sentence, width, style=style)]


def _nonfinite_sentences(trace: Trace) -> Iterator[tuple[str, str]]:
    index = first_alarm(trace)
    if index is None:
        return
    op = trace.ops[index]
    outputs = [value for value in outgoing(op) if value.nonfinite]
    wrong = next((value for value in outputs if has_nan(value)), outputs[0])
    where = f" in {one_line(op.module)}" if op.module and trace.phase is not Phase.STEP else ""
    who = f"{one_line(op.name)}{where}, {index + 1} of {len(trace.ops)}"
    amount = _count_words(wrong, _alarm_count(op, wrong))
    yield f"First {_kind(wrong)}: {amount} out of {who}. {_cause_sentence(trace, op, wrong)}", "error"


def _cause_sentence(trace: Trace, op: Operation, wrong: Value) -> str:
    """Return whether non-finite values came in with the inputs, or were made here, and from what."""
    forward = trace.forward or trace
    masks, nonfinite = MaskTensors(forward), [value for value in incoming(trace, op) if value.nonfinite]
    sources = [value for value in nonfinite if not (has_nan(wrong) and masks.has(value))]
    sources = [value for value in sources if has_nan(value)] or sources
    if sources:
        return f"It was already in what went in: {_tensor_counts(trace, op, sources)}.{_forward_origin(trace, sources)}"
    if masks.has(wrong):
        return "The code asked for it, and it comes to the loss."
    if nonfinite:
        reason = _masked_row_sentence(trace, op) or f"A mask went in: {_tensor_counts(trace, op, nonfinite)}."
        return f"It was made here. {reason}"
    if not incoming(trace, op):
        return "What went in is not known."
    if _keeps_unknown(trace, op):
        return "What came in was finite: it was made here, or was in what it keeps, which is not known."
    return "Everything that went in was finite: it was made here."


def _keeps_unknown(trace: Trace, op: Operation) -> bool:
    """Return whether a node of a backward has used tensors that it had saved, and that were not looked at."""
    node = trace.node_of(op)
    return node is not None and node.saved is None and not op.inputs and not op.is_accumulation


def _forward_origin(trace: Trace, sources: Sequence[Value]) -> str:
    """Return where in the forward the non-finite values began; "" where a backward got none from its forward."""
    makers = [value.maker for value in sources if value.maker is not None]
    index = first_alarm(trace.forward) if trace.forward and makers else None
    if index is None or trace.forward is None or index > max(makers):
        return ""
    beginning = "" if index in makers else f"It began in the forward, at {op_name(trace, index)}."
    sentences = (beginning, _masked_row_sentence(trace.forward, trace.forward.ops[index]))
    return "".join(f" {sentence}" for sentence in sentences if sentence)


def _kind(value: Value) -> str:
    """Return "NaN" where there is one, else "infinity"."""
    return "NaN" if has_nan(value) else "infinity"


def _alarm_count(op: Operation, wrong: Value) -> int:
    """Return how many values are NaN, or without NaN infinite."""
    outputs = (*op.grad_out,) if op.grad_in else op.output
    first = next((each for each in op.not_finite if outputs[each.output] is wrong), None)
    return wrong.nonfinite if first is None else first.nans or first.infinities


def _count_words(value: Value, number: int | None = None) -> str:
    return f"{count(value.nonfinite if number is None else number)} of {count(value.stats.size)} values"


def _tensor_counts(trace: Trace, op: Operation, values: Sequence[Value]) -> str:
    """List tensors with their counts of non-finite values."""
    listed = values[:MAX_LISTED_CASES]
    return ", ".join(f"{_tensor_label(trace, op, value)} ({_count_words(value)})" for value in listed)


def _tensor_label(trace: Trace, op: Operation, value: Value) -> str:
    if value.role == "grad" and not value.name:
        return "the upstream gradient"
    node = trace.node_of(op)
    return name_of(trace, value) if node is None or value.role == "grad" else saved_name(trace, node, value)


def _masked_row_sentence(trace: Trace, op: Operation) -> str:
    """Return which rows made a softmax NaN; "" for anything else.

    Where no input has NaN, only a row of nothing but -inf does.
    """
    masks, outputs = [value for value in op.inputs if is_mask(value)], op.output[:1]
    if not masks or not any(map(has_nan, outputs)) or any(map(has_nan, op.inputs)):
        return ""
    if op.name in ATTENTION_NAMES:
        counts = _tensor_counts(trace, op, masks)
        return f"A mask went in, {counts}: a row that it masks wholly is 0 / 0 in the softmax."
    if op.name not in SOFTMAX_NAMES:
        return ""
    dim, shape = parse_integers(dict(op.settings).get("dim")), masks[0].stats.shape
    number = outputs[0].nonfinite // max(shape[dim[0]] if dim and shape else 1, 1)
    subject = "A row of {} has" if number == 1 else f"{count(number)} rows of {{}} have"
    return f"{subject.format(name_of(trace, masks[0]))} nothing but -inf: softmax has 0 / 0 there."


def _hazard_sentences(forward: Trace) -> Iterator[str]:
    """Yield a sentence for each saved tensor that was changed in place, with the lines that changed it."""
    for node in forward.nodes:
        for hazard in node.inplace_hazards:
            sentence = _hazard_sentence(forward, node, hazard)
            yield f"{sentence} {one_line(node.name)} keeps it as it was: its backward will raise."


def is_second_backward(trace: Trace) -> bool:
    """Return whether a backward raised because an earlier one had freed its graph."""
    return trace.error is not None and SECOND_BACKWARD in trace.error.message


def why_it_raised(trace: Trace, op: Operation) -> list[str]:
    """Return sentences that say why a node raised; none where PyTorch's message says all that is known."""
    node = trace.node_of(op) if op.raised else None
    if node is None:
        return []
    if is_second_backward(trace):
        return ["What it had saved was freed by the backward before: that is why this one fails."]
    return [_hazard_sentence(trace, node, hazard) for hazard in node.inplace_hazards]


def _hazard_sentence(trace: Trace, node: Node, hazard: InplaceHazard) -> str:
    saved = f"{saved_name(trace, node, hazard.value)} was kept at version {hazard.value.version}"
    if not hazard.changed_by:
        change = f"{one_line(hazard.command)} changed it" if hazard.command else "it was changed"
        return f"{saved}; {change} after the forward: version {hazard.version}."
    lines: dict[tuple[str, int], str] = {}  # a line with several operations, as h[0] += 1, is named by the first
    for index in hazard.changed_by:
        source = trace.forward_ops[index].source
        position = ("", index) if source is None else (source.file, source.line)
        lines.setdefault(position, op_name(trace, index) + (f" (line {source.line})" if source else ""))
    more = " and more" * (len(lines) > MAX_LISTED_LINES)
    return f"{saved}; {', '.join([*lines.values()][:MAX_LISTED_LINES])}{more} changed it: version {hazard.version}."


def _dead_unit_sentences(trace: Trace) -> Iterator[tuple[str, str]]:
    """Yield sentences with styles about relus whose units are mostly 0 for the whole batch."""
    shares = [(op.dead[0] / op.dead[1], op) for op in trace.ops if op.dead and op.dead[0]]
    bad = sorted((pair for pair in shares if pair[0] >= MIN_DEAD_SHARE), key=lambda pair: -pair[0])
    for _, op in bad[:MAX_LISTED_CASES]:
        assert op.dead is not None
        where = f" in {one_line(op.module)}" if op.module else ""
        yield (
            f"{one_line(op.name)} {op.number + 1}{where}: {op.dead[0]} of {op.dead[1]} units are 0 for all inputs.",
            "warn",
        )
    others = len(shares) - min(len(bad), MAX_LISTED_CASES)
    if others:
        dead, units = (sum(op.dead[side] for _, op in shares if op.dead) for side in (0, 1))
        yield f"Dead units in {len(shares)} relus together: {dead} of {units}, 0 for the whole batch.", "dim"


def _gradient_sentences(trace: Trace) -> Iterator[tuple[str, str]]:
    """Yield sentences with their styles that compare the gradient norms of the layers in this backward."""
    norms = _layer_norms(trace)
    finite = {name: norm for name, norm in norms.items() if math.isfinite(norm)}
    zero_layers = [name for name, norm in finite.items() if norm == 0]
    if zero_layers:
        yield (
            f"The gradient is exactly 0 for {_name_list(zero_layers)}: a step by it alone moves nothing there.",
            "warn",
        )
    nonzero = {name: norm for name, norm in finite.items() if norm > 0}
    if not nonzero:
        return
    smallest, largest = (choose(nonzero, key=nonzero.__getitem__) for choose in (min, max))
    if nonzero[smallest] <= VANISHING_RATIO * nonzero[largest]:
        yield _trend_sentence(nonzero, smallest, largest), "warn"
    elif nonzero[largest] >= EXPLODING_NORM:
        yield f"Gradients explode: norm {terse(nonzero[largest])} in {one_line(largest)}.", "warn"


def _trend_sentence(norms: LayerNorms, smallest: str, largest: str) -> str:
    """Return how the norm changes between two layers, starting at the one that autograd reached first."""
    order = list(norms)
    first, last = sorted((smallest, largest), key=order.index)
    word = "explode" if last == largest else "vanish"
    ends = (f"norm {terse(norms[layer])} in {one_line(layer)}" for layer in (first, last))
    return f"Gradients {word} on their way back from the loss: {', then '.join(ends)}."


def _layer_norms(trace: Trace) -> LayerNorms:
    """Return the gradient norm of each module's own parameters in this backward, in the order of autograd's engine."""
    squares: dict[str, float] = {}
    for op in trace.ops:
        if not (op.is_accumulation and op.accumulates_into and op.grad_in and op.grad_in[0]):
            continue
        layer, norm = op.accumulates_into.rpartition(".")[0] or op.accumulates_into, op.grad_in[0].stats.norm
        if norm is not None:
            squares[layer] = math.hypot(squares.get(layer, 0.0), norm)
    return squares


def _name_list(names: list[str]) -> str:
    shown = ", ".join(map(one_line, names[:3]))
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def first_alarm(trace: Trace) -> int | None:
    """Return the index of the operation that raises the alarm; None where there is none."""
    nonfinite_ops = [
        op for op in trace.ops if any(value.nonfinite for value in outgoing(op)) and op.name not in UNINITIALIZED
    ]
    if not nonfinite_ops:
        return None
    if trace.phase not in (Phase.FORWARD, Phase.BACKWARD):
        return next((op.number for op in nonfinite_ops if _gains_nonfinite(op)), None)
    nan_index = next((op.number for op in nonfinite_ops if _makes_nan(op)), None)
    in_forward, masks = trace.phase is Phase.FORWARD, MaskTensors(trace)
    sources = _forward_sources(trace, nonfinite_ops) if in_forward else _backward_sources(trace, nonfinite_ops)
    indices = [] if nan_index is None else [nan_index]
    for end in _alarm_ends(trace):
        origins = _origins_of(end.number, sources)
        # Where a mask led to a NaN, the alarm is where the NaN was made, not at the mask. The same goes for an error.
        ignores_masks = in_forward and (end.raised or any(map(has_nan, (*incoming(trace, end), *outgoing(end)))))
        indices += [
            op.number
            for op in nonfinite_ops
            if op.number in origins and not (ignores_masks and any(map(masks.has, op.output)))
        ]
    return min(indices, default=None)


class MaskTensors:
    """The tensors of a forward whose infinities the code asked for, so that they are no alarm.

    These are results of a call with `inf` among its settings, such as a fill value, and what is computed from them.
    A tensor from before the forward counts where -inf is all that is not finite in it, unless it is a parameter.
    """

    def __init__(self, forward: Trace) -> None:
        self._params, self._makers = {node.param for node in forward.nodes}, set[int]()
        for op in forward.ops:
            outputs = [value for value in op.output if value.nonfinite]
            inputs = [value for value in op.inputs if value.nonfinite]
            if not outputs or any(map(has_nan, outputs)) or not all(map(self.has, inputs)):
                continue
            is_asked_for = any(_INFINITY_WORD.search(setting) for _, setting in op.settings)
            if inputs or is_asked_for or (not op.nodes and all(map(is_mask, outputs))):
                self._makers.add(op.number)

    def has(self, value: Value) -> bool:
        """Return whether a tensor is one of them."""
        if has_nan(value) or not value.nonfinite or value.role == "grad":
            return False
        return value.maker in self._makers or (
            value.maker is None and is_mask(value) and value.name not in self._params
        )


def is_mask(value: Value) -> bool:
    """Return whether -inf is all that is not finite in a tensor."""
    stats = value.stats
    low, high = (min(stats.values), max(stats.values)) if stats.values else (stats.min, stats.max)
    return low == -math.inf and high is not None and high < math.inf


def incoming(trace: Trace, op: Operation) -> list[Value]:
    """Return an operation's inputs; in a backward, the incoming gradients, the `.grad` before and the saved tensors."""
    if trace.phase is not Phase.BACKWARD:
        return list(op.inputs)
    saved = trace.nodes[op.node].saved if op.node is not None and trace.nodes else None
    tensors = (*op.grad_in, op.grad_before, *(op.inputs if saved is None else saved))
    return [value for value in tensors if value is not None]


def outgoing(op: Operation) -> list[Value]:
    """Return an operation's outputs; in a backward, its outgoing gradients and the `.grad` after it."""
    tensors = (*op.grad_out, op.grad_after) if op.grad_in else op.output
    return [value for value in tensors if value is not None]


def _makes_nan(op: Operation) -> bool:
    return any(map(has_nan, outgoing(op)))


def _gains_nonfinite(op: Operation) -> bool:
    """Return whether a step leaves NaN, or more infinities than before: a mask always has some."""
    counts_before = {value.role: value.nonfinite for value in op.inputs}
    return any(has_nan(value) or value.nonfinite > counts_before.get(value.role, 0) for value in op.output)


def _alarm_ends(trace: Trace) -> Iterator[Operation]:
    """Yield the operations where a non-finite value matters: the loss, a filled `.grad`, and where a phase raised."""
    for op in trace.ops:
        raised_here = trace.error is not None and op.number == len(trace.ops) - 1
        if trace.phase is Phase.BACKWARD:
            gradients = [value for value in op.grad_in if value is not None]
            values = outgoing(op) if op.is_accumulation else gradients * raised_here
        else:
            values = [value for value in op.output if value.name == "loss" or 0 in op.nodes] or [
                *op.inputs
            ] * raised_here
        if any(value.nonfinite for value in values):
            yield op


def _origins_of(end: int, sources: Callable[[int], Sequence[int]]) -> set[int]:
    """Return the indices of an operation and of all from which it got non-finite values, directly or not."""
    indices, stack = set[int](), [end]
    while stack:
        index = stack.pop()
        if index not in indices:
            indices.add(index)
            stack += sources(index)
    return indices


def _forward_sources(trace: Trace, nonfinite_ops: Sequence[Operation]) -> Callable[[int], list[int]]:
    """Return a function from an operation's index to those of the operations that gave it non-finite values."""
    indices = {op.number for op in nonfinite_ops}

    def sources(index: int) -> list[int]:
        makers = [value.maker for value in trace.ops[index].inputs if value.nonfinite]
        known_makers = [maker for maker in makers if maker is not None and maker in indices]
        if all(maker is None or maker in indices for maker in makers):
            return known_makers
        # A finite result became non-finite later, through a view: any earlier change in place may have done it.
        return known_makers + [op.number for op in nonfinite_ops if op.mutates and op.number < index]

    return sources


def _backward_sources(trace: Trace, nonfinite_ops: Sequence[Operation]) -> Callable[[int], list[int]]:
    senders: dict[int | None, list[int]] = {}
    for op in nonfinite_ops:
        next_nodes = trace.nodes[op.node].next if op.node is not None else ()
        for gradient, next_node in zip(op.grad_out, next_nodes, strict=False):
            if gradient is not None and gradient.nonfinite:
                senders.setdefault(next_node, []).append(op.number)
    return lambda index: senders.get(trace.ops[index].node, [])
