"""A gradient arriving at a leaf: the moment at which `.grad` is filled or added to."""

from __future__ import annotations

from autograd_tui.engine.values.trace import Op, Value
from autograd_tui.text.equation import exact, worked
from autograd_tui.text.inside.agreement import agrees, near, rounding
from autograd_tui.text.inside.rows import headed, rows
from autograd_tui.text.inside.small import Small, each
from autograd_tui.text.inside.value_words import nested, value_words
from autograd_tui.text.line import Line, one_line

FILLED = "It was None: the first gradient to arrive is stored as it is."
THERE = "A gradient was there already: no zero_grad since the backward before."


def is_accumulation(op: Op) -> bool:
    """Tell whether a node fills or adds to a `.grad`."""
    return op.accumulates_into is not None or op.name.endswith("AccumulateGrad")


UNDONE = "The backward raised afterwards, so it was taken back: it is {} again."


def accumulation_lines(op: Op, width: int, *, undone: bool = False) -> list[Line]:
    """Say what is added to which `.grad`; `undone`: the backward raised afterwards."""
    lines = _added(op, width)
    if undone and op.grad_after is not None:
        lines += rows(UNDONE.format(_words(op.grad_before, width)), width, style="error")
    return lines


def _added(op: Op, width: int) -> list[Line]:
    name = one_line(op.accumulates_into or "")
    head = f"{name}.grad" if name else "a leaf that is no parameter"
    came = next((value for value in op.grad_in if value is not None), None)
    before, after, arrived = (_words(value, width) for value in (op.grad_before, op.grad_after, came))
    if came is None or op.grad_after is None:
        return headed(head, f"{arrived} arrived." if came else "no gradient came: nothing changes.", width)
    if not _adds_up(op.grad_before, came, op.grad_after):
        said = f"was {before}, and {arrived} arrived, yet it holds {after}: something, such as a hook, changed it."
        return [*headed(head, said, width, style="warn")]
    added = f"({arrived})" if arrived.startswith("-") else arrived
    if op.grad_before is None:
        return [*headed(head, f"None + {added} = {after}", width, style="now"), *rows(FILLED, width, style="dim")]
    said = f"{_addition(op.grad_before, came, op.grad_after, width)} (adds to what was there)"
    return [*headed(head, said, width, style="now"), *rows(THERE, width, style="dim")]


def _addition(before: Value, came: Value, after: Value, width: int) -> str:
    """Write the sum; of large tensors in words, since norms do not add up as the values do."""
    was, arrived, now = (_words(value, width) for value in (before, came, after))
    known = [(value.stats.values, value.stats.shape) for value in (before, came, after) if value.stats.values]
    if len(known) < 3 or not all(map(str.startswith, (was, arrived, now), (nested(*each) for each in known))):
        return f"{was}, plus {arrived}, is {now}"
    one, other = (nested(*each, write=exact) for each in known[:2])
    return worked(f"{one} + {f'({other})' if other.startswith('-') else other}", known[2][0], now)


def _adds_up(before: Value | None, came: Value, after: Value) -> bool:
    """Tell whether what is there now is the sum; of tensors too large to tell, that it can be."""
    error, old, new, now = rounding((came, before)), Small.of(before), Small.of(came), Small.of(after)
    if new is None or now is None:
        norms = came.stats.norm, after.stats.norm
        known = before is None and norms[0] is not None and norms[1] is not None
        return not known or near(norms[0] or 0.0, norms[1] or 0.0, error=error, size=0.0)
    sums = new if before is None else each(lambda one, other: one + other, old, new)
    return sums is None or agrees(sums, now, error=error, size=max(sums.largest, new.largest))


def _words(value: Value | None, width: int) -> str:
    """Write all values where they are few and fit, else so much that three tensors stand in a row."""
    small = value is None or value.stats.values is not None
    return value_words(value, width - 4 if small else width // 3)
