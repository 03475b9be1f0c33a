"""A gradient arriving at a leaf: the moment at which `.grad` is filled or added to."""

from __future__ import annotations

from autograd_tui.engine.trace import Op, Trace, Value
from autograd_tui.text.inside.agreement import agrees, rounding
from autograd_tui.text.inside.rows import headed, rows
from autograd_tui.text.inside.small import Small, each
from autograd_tui.text.inside.value_words import nested, value_words
from autograd_tui.text.line import Line, one_line


def is_accumulation(op: Op) -> bool:
    """Tell whether a node fills or adds to a `.grad`."""
    return op.accumulates_into is not None or op.name.endswith("AccumulateGrad")


def accumulation_lines(trace: Trace, op: Op, width: int) -> list[Line]:
    """Say what is added to which `.grad`."""
    name = one_line(op.accumulates_into or "a leaf that is no parameter")
    came = next((value for value in op.grad_in if value is not None), None)
    head = f"{name}.grad" if op.accumulates_into else name
    before, after, arrived = (_words(value, width) for value in (op.grad_before, op.grad_after, came))
    if came is None:
        return headed(head, "no gradient came: nothing changes.", width)
    arrived = f"({arrived})" if arrived.startswith("-") else arrived
    if op.grad_after is None:
        return headed(head, f"{arrived} arrived.", width)
    if op.grad_before is None:
        said = f"None + {arrived} = {after}"
        return [*headed(head, said, width, style="now"), *rows(_filled(name), width, style="dim")]
    adds = "(adds to what was there)"
    sums = each(lambda old, new: old + new, Small.of(op.grad_before), Small.of(came))
    known = Small.of(op.grad_after)
    if sums is None or known is None:
        return [*headed(head, f"{before} + {arrived} = {after} {adds}", width, style="now"), *_twice(width)]
    size = max(sums.largest, known.largest)
    if agrees(sums, known, error=rounding((came, op.grad_before)), size=size):
        return [*headed(head, f"{before} + {arrived} = {after} {adds}", width, style="now"), *_twice(width)]
    said = f"{before}, and {arrived} arrived: their sum is {nested(sums.values, sums.shape)}, yet it holds {after}."
    return headed(head, said, width, style="warn")


def _words(value: Value | None, width: int) -> str:
    """Write all values where they are few and fit, else so much that three tensors stand in a row."""
    small = value is None or value.stats.values is not None
    return value_words(value, width - 4 if small else width // 3)


def _filled(name: str) -> str:
    return f"{name}.grad was None: this is the first gradient to arrive, so it is stored as it is."


def _twice(width: int) -> list[Line]:
    said = "A gradient was there already, from a backward before this one: zero_grad had not cleared it."
    return rows(said, width, style="dim")
