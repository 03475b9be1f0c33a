"""The first NaN or infinity that an operation made: how many there are, which one it is, and what it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from autograd_tui.core.trace import NonFinite, Operation, Value
from autograd_tui.text.derivation.small_tensor import SmallTensor
from autograd_tui.text.equation import rows
from autograd_tui.text.numbers import count, terse
from autograd_tui.text.styled_text import Line

MOST = 4  # tensors that are named


def found_in(op: Operation, output: int) -> NonFinite | None:
    """Give what is known of one result of an operation; None where that is finite."""
    return next((each for each in op.not_finite if each.output == output), None)


def at_place(found: NonFinite, given: Iterable[Value | None], value: Value) -> SmallTensor | None:
    """Take the one value of a tensor that stood where the first NaN is; `given`: those that it was looked up in."""
    for each, number in zip(given, found.given, strict=False):
        if each is value and number is not None:
            return SmallTensor((), (number,))
    known = SmallTensor.of(value)
    number = known.broadcast_at(found.place) if known else None
    return None if number is None else SmallTensor((), (number,))


def how_many(found: NonFinite, size: int) -> str:
    """Count them: "3 of 16 values are NaN"; "2 of 8 values are NaN and 1 is infinite"."""
    counted = [(many, kind) for many, kind in ((found.nans, "NaN"), (found.infinities, "infinite")) if many]
    said = [f"{count(many)} of {count(size)} values {_are(many)} {kind}" for many, kind in counted[:1]]
    return " and ".join([*said, *(f"{count(many)} {_are(many)} {kind}" for many, kind in counted[1:])])


def _are(many: int) -> str:
    return "is" if many == 1 else "are"


def not_finite_lines(
    found: NonFinite, made: Value, given: Sequence[tuple[str, Value]], equation: str, width: int, *, there: bool = False
) -> list[Line]:
    """Say how many are not finite, how the first came about, and between which bounds lay what went in, by its names.

    equation: the arithmetic of the first and its result; "" where it is not known. there: then say what stood there.
    """
    at = f"[{', '.join(map(str, found.place))}]" if found.place else ""
    which = f"The first, at {at}" if at else "It"
    stood = _there(found, made, given) if there and not equation else ""
    came = f" {which}: {equation}." if equation else f" {which}{stood}." if at else ""
    lines = rows(f"{how_many(found, made.stats.size)}.{came}", width, indent="  ", style="error")
    bounds = [
        f"{name} {_bounds(value)}" for name, value in given if value.stats.min is not None and name != _bounds(value)
    ]
    more = f" and {len(bounds) - MOST} more" * (len(bounds) > MOST)
    return [*lines, *(rows(f"What went in: {', '.join(bounds[:MOST])}{more}.", width, indent="  ") if bounds else [])]


def _there(found: NonFinite, made: Value, given: Sequence[tuple[str, Value]]) -> str:
    """Say what stood at the place of the first in what went in, where that has the same shape."""
    pairs = ((name, each, number) for (name, each), number in zip(given, found.given, strict=False))
    stood = [
        f"{name} is {terse(number)}"
        for name, each, number in pairs
        if number is not None and each.stats.min is not None and each.stats.shape == made.stats.shape
    ]
    return f", where {', '.join(stood)}" if stood else ""


def _bounds(value: Value) -> str:
    low, high = value.stats.min or 0.0, value.stats.max or 0.0
    if low != low:
        return "has NaN"
    return terse(low) if low == high else f"from {terse(low)} to {terse(high)}"
