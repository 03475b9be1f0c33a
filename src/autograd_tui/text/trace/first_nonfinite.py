"""Describes the first NaN or infinity in an operation's result: how many there are, where, and from which inputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from autograd_tui.core.trace import NonFinite, Operation, Value
from autograd_tui.text.derivation.small_tensor import SmallTensor
from autograd_tui.text.equation import wrapped_rows
from autograd_tui.text.numbers import count, terse
from autograd_tui.text.styled_text import Line

MAX_LISTED_INPUTS = 4  # whose ranges are written


def nonfinite_of(op: Operation, output: int) -> NonFinite | None:
    """Return the first non-finite value of an operation's result number `output`; None where all are finite."""
    return next((each for each in op.not_finite if each.output == output), None)


def element_at_first(found: NonFinite, given: Iterable[Value | None], value: Value) -> SmallTensor | None:
    """Return the element of `value` at the position of the first NaN, as a scalar; None where it is not known.

    `given` are the tensors that `found.given` has the elements of. A smaller `value` is broadcast.
    """
    for each, number in zip(given, found.given, strict=False):
        if each is value and number is not None:
            return SmallTensor((), (number,))
    tensor = SmallTensor.of(value)
    number = tensor.broadcast_at(found.place) if tensor else None
    return None if number is None else SmallTensor((), (number,))


def nonfinite_counts(found: NonFinite, size: int) -> str:
    """Write the counts: "3 of 16 values are NaN"; "2 of 8 values are NaN and 1 is infinite"."""
    counts = [(number, kind) for number, kind in ((found.nans, "NaN"), (found.infinities, "infinite")) if number]
    words = [f"{count(number)} of {count(size)} values {_is_or_are(number)} {kind}" for number, kind in counts[:1]]
    return " and ".join([*words, *(f"{count(number)} {_is_or_are(number)} {kind}" for number, kind in counts[1:])])


def _is_or_are(number: int) -> str:
    return "is" if number == 1 else "are"


def nonfinite_lines(
    found: NonFinite, made: Value, given: Sequence[tuple[str, Value]], equation: str, width: int, *, there: bool = False
) -> list[Line]:
    """Describe the non-finite values of a result: how many, how the first came about, and the inputs' ranges.

    made: the result. given: the inputs by name. equation: the arithmetic of the first; "" where it is not known.
    there: without an equation, write the inputs' elements at its position.
    """
    position = f"[{', '.join(map(str, found.place))}]" if found.place else ""
    subject = f"The first, at {position}" if position else "It"
    inputs_there = _inputs_there(found, made, given) if there and not equation else ""
    origin = f" {subject}: {equation}." if equation else f" {subject}{inputs_there}." if position else ""
    lines = wrapped_rows(f"{nonfinite_counts(found, made.stats.size)}.{origin}", width, indent="  ", style="error")
    ranges = [(name, _range_words(value)) for name, value in given if value.stats.min is not None]
    inputs = [f"{name} {words}" for name, words in ranges if name != words]
    more = f" and {len(inputs) - MAX_LISTED_INPUTS} more" * (len(inputs) > MAX_LISTED_INPUTS)
    listed = f"What went in: {', '.join(inputs[:MAX_LISTED_INPUTS])}{more}."
    return [*lines, *(wrapped_rows(listed, width, indent="  ") if inputs else [])]


def _inputs_there(found: NonFinite, made: Value, given: Sequence[tuple[str, Value]]) -> str:
    """Write the elements at the position of the first, for inputs of the same shape."""
    pairs = ((name, each, number) for (name, each), number in zip(given, found.given, strict=False))
    words = [
        f"{name} is {terse(number)}"
        for name, each, number in pairs
        if number is not None and each.stats.min is not None and each.stats.shape == made.stats.shape
    ]
    return f", where {', '.join(words)}" if words else ""


def _range_words(value: Value) -> str:
    low, high = value.stats.min or 0.0, value.stats.max or 0.0
    if low != low:
        return "has NaN"
    return terse(low) if low == high else f"from {terse(low)} to {terse(high)}"
