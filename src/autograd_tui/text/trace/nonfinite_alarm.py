"""Which NaN or infinity is an alarm: the first NaN, or the first infinity that reaches the loss or a gradient."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence

from autograd_tui.core.command import Phase
from autograd_tui.core.trace import Operation, Trace, Value
from autograd_tui.text.trace.tensor_words import has_nan

# They return memory as it is, so a NaN in their output means nothing.
UNINITIALIZED = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted")
_INFINITY_WORD = re.compile(r"\binf\b")


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
