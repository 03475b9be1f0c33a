"""Which NaN or infinity is an alarm: the first NaN, or the first infinity that comes to the loss or to a gradient."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence

from autograd_tui.core.command import Phase
from autograd_tui.core.trace import Operation, Trace, Value
from autograd_tui.text.derivation.backward_node import is_accumulation
from autograd_tui.text.trace.tensor_words import has_nan

# What these give is whatever the memory held before.
UNINITIALIZED = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted")
_INFINITY = re.compile(r"\binf\b")


def first_trouble(trace: Trace) -> int | None:
    """Find the operation to begin with; None where all is well."""
    wild = [op for op in trace.ops if any(value.nonfinite for value in went(op)) and op.name not in UNINITIALIZED]
    if not wild:
        return None
    if trace.phase not in (Phase.FORWARD, Phase.BACKWARD):
        return next((op.number for op in wild if _newly_wild(op)), None)
    nan = next((op.number for op in wild if _made_nan(op)), None)
    in_forward, masks = trace.phase is Phase.FORWARD, Masks(trace)
    before = _before_in_forward(trace, wild) if in_forward else _before_in_backward(trace, wild)
    found = [] if nan is None else [nan]
    for end in _ends(trace):
        way = _way_to(end.number, before)
        # A NaN made of a mask begins where it was made, not with the mask; nor does what an operation refused.
        left_out = in_forward and (end.raised or any(map(has_nan, (*came(trace, end), *went(end)))))
        found += [op.number for op in wild if op.number in way and not (left_out and any(map(masks.has, op.output)))]
    return min(found, default=None)


class Masks:
    """The tensors of a forward whose infinities the code asked for by name, as a fill value, or took from such ones.

    What was there before is a mask where it has -inf alone, and is no parameter.
    """

    def __init__(self, forward: Trace) -> None:
        self._params, self._makers = {node.param for node in forward.nodes}, set[int]()
        for op in forward.ops:
            made = [value for value in op.output if value.nonfinite]
            given = [value for value in op.inputs if value.nonfinite]
            if not made or any(map(has_nan, made)) or not all(map(self.has, given)):
                continue
            named = any(_INFINITY.search(written) for _, written in op.settings)
            if given or named or (not op.nodes and all(map(is_mask, made))):
                self._makers.add(op.number)

    def has(self, value: Value) -> bool:
        """Tell whether a tensor is one of them."""
        if has_nan(value) or not value.nonfinite or value.role == "grad":
            return False
        return value.maker in self._makers or (
            value.maker is None and is_mask(value) and value.name not in self._params
        )


def is_mask(value: Value) -> bool:
    """Tell whether of all that is not finite there is -inf alone."""
    stats = value.stats
    low, high = (min(stats.values), max(stats.values)) if stats.values else (stats.min, stats.max)
    return low == -math.inf and high is not None and high < math.inf


def came(trace: Trace, op: Operation) -> list[Value]:
    """Give what went into an operation: of a backward the upstream, what was there to add to, and what was kept."""
    if trace.phase is not Phase.BACKWARD:
        return list(op.inputs)
    kept = trace.nodes[op.node].saved if op.node is not None and trace.nodes else None
    given = (*op.grad_in, op.grad_before, *(op.inputs if kept is None else kept))
    return [value for value in given if value is not None]


def went(op: Operation) -> list[Value]:
    """Give what came out of an operation."""
    given = (*op.grad_out, op.grad_after) if op.grad_in else op.output
    return [value for value in given if value is not None]


def _made_nan(op: Operation) -> bool:
    return any(map(has_nan, went(op)))


def _newly_wild(op: Operation) -> bool:
    """Tell whether a step has left NaN, or more infinities than a tensor had before, as a mask always has some."""
    before = {value.role: value.nonfinite for value in op.inputs}
    return any(has_nan(value) or value.nonfinite > before.get(value.role, 0) for value in op.output)


def _ends(trace: Trace) -> Iterator[Operation]:
    """Give what is not finite at its end: the loss, what came to a `.grad`, and where a phase raised."""
    for op in trace.ops:
        last = trace.error is not None and op.number == len(trace.ops) - 1
        if trace.phase is Phase.BACKWARD:
            values = went(op) if is_accumulation(op) else [value for value in op.grad_in if value is not None] * last
        else:
            values = [value for value in op.output if value.name == "loss"] or [*op.inputs] * last
        if any(value.nonfinite for value in values):
            yield op


def _way_to(end: int, before: Callable[[int], Sequence[int]]) -> set[int]:
    """Give an operation and all those from which what is not finite came to it."""
    found, stack = set[int](), [end]
    while stack:
        place = stack.pop()
        if place not in found:
            found.add(place)
            stack += before(place)
    return found


def _before_in_forward(trace: Trace, wild: Sequence[Operation]) -> Callable[[int], list[int]]:
    """Give a function that finds from where an operation got what is not finite."""
    places = {op.number for op in wild}

    def before(place: int) -> list[int]:
        makers = [value.maker for value in trace.ops[place].inputs if value.nonfinite]
        known = [maker for maker in makers if maker is not None and maker in places]
        lost = any(maker is not None and maker not in places for maker in makers)  # changed since, through a view
        return known + [op.number for op in wild if op.mutates and op.number < place] * lost

    return before


def _before_in_backward(trace: Trace, wild: Sequence[Operation]) -> Callable[[int], list[int]]:
    givers: dict[int | None, list[int]] = {}
    for op in wild:
        following = trace.nodes[op.node].next if op.node is not None else ()
        for gradient, after in zip(op.grad_out, following, strict=False):
            if gradient is not None and gradient.nonfinite:
                givers.setdefault(after, []).append(op.number)
    return lambda place: givers.get(trace.ops[place].node, [])
