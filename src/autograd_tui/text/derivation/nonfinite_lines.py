"""The lines for a result with NaN or infinity: how many there are, how the first came about, and the inputs' ranges."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autograd_tui.core.trace import NonFinite, Operation, Value
from autograd_tui.text.derivation.derivation import Derivation
from autograd_tui.text.derivation.small_tensor import SmallTensor, overflow_message
from autograd_tui.text.equation import with_digits, wrapped_rows
from autograd_tui.text.numbers import count, estimate, terse
from autograd_tui.text.styled_text import Line

MAX_LISTED_INPUTS = 4  # whose ranges are written


def nonfinite_of(op: Operation, output: int) -> NonFinite | None:
    """Return the first non-finite value of an operation's result number `output`; None where all are finite."""
    return next((each for each in op.not_finite if each.output == output), None)


def nonfinite_lines(
    first: NonFinite,
    result: Value,
    inputs: Sequence[tuple[str, Value]],
    equation: str,
    width: int,
    *,
    with_elements: bool = False,
) -> list[Line]:
    """Describe the non-finite values of a result: how many, how the first came about, and the inputs' ranges.

    inputs: with their names. equation: the arithmetic of the first; "" where it is not known. with_elements: without an
    equation, write the inputs' elements at the position of the first.
    """
    position = f"[{', '.join(map(str, first.index))}]" if first.index else ""
    elements = _element_words(first, result, inputs) if with_elements and not equation else ""
    worked = f": {equation}" if equation else elements
    counts = nonfinite_counts(first, result.stats.size)
    said = f"{counts}. The first, at {position}{worked}." if position else f"{counts}{worked}."
    lines = wrapped_rows(said, width, indent="  ", style="error")
    return [*lines, *range_lines(inputs, width)]


def range_lines(inputs: Sequence[tuple[str, Value]], width: int, *, style: str = "") -> list[Line]:
    """Write the least and the greatest value of what went in, as far as they are known."""
    ranges = [(name, _range_words(value)) for name, value in inputs if value.stats.min is not None]
    ranged_inputs = [f"{name} {words}" for name, words in ranges if name != words]
    more = f" and {len(ranged_inputs) - MAX_LISTED_INPUTS} more" * (len(ranged_inputs) > MAX_LISTED_INPUTS)
    listed = f"What went in: {', '.join(ranged_inputs[:MAX_LISTED_INPUTS])}{more}."
    return wrapped_rows(listed, width, indent="  ", style=style) if ranged_inputs else []


def nonfinite_counts(first: NonFinite, size: int) -> str:
    """Write the counts: "3 of 16 values are NaN"; "2 of 8 values are NaN and 1 is infinite"; "It is NaN"."""
    if size == 1:
        return f"It is {'NaN' if first.nans else 'infinite'}"
    counts = [(number, kind) for number, kind in ((first.nans, "NaN"), (first.infinities, "infinite")) if number]
    words = [f"{count(number)} of {count(size)} values {_is_or_are(number)} {kind}" for number, kind in counts[:1]]
    return " and ".join([*words, *(f"{count(number)} {_is_or_are(number)} {kind}" for number, kind in counts[1:])])


def finite_example_lines(worked: float, result: Value, inputs: Sequence[tuple[str, Value]], width: int) -> list[Line]:
    """Return that a `worked` value is finite where others of its tensor are not, and in which inputs some are."""
    if not result.nonfinite or not math.isfinite(worked):
        return []
    number, size = result.nonfinite, result.stats.size
    names = [name for name, value in inputs if value.nonfinite]
    cause = f", as are some of {' and '.join(names)}" if names else ""
    others = f"{count(number)} of {count(size)} values {_is_or_are(number)} NaN or infinite{cause}"
    return wrapped_rows(f"This value is finite; {others}.", width, indent="  ", style="error")


def _is_or_are(number: int) -> str:
    return "is" if number == 1 else "are"


def _element_words(first: NonFinite, result: Value, inputs: Sequence[tuple[str, Value]]) -> str:
    """Write the elements at the position of the first, for inputs of the same shape."""
    pairs = ((name, value, number) for (name, value), number in zip(inputs, first.input_values, strict=False))
    words = [
        f"{name} is {terse(number)}"
        for name, value, number in pairs
        if number is not None and value.stats.min is not None and value.stats.shape == result.stats.shape
    ]
    return f", where {', '.join(words)}" if words else ""


def _range_words(value: Value) -> str:
    low, high = value.stats.min or 0.0, value.stats.max or 0.0
    if low != low:
        return "has NaN"
    if value.stats.range_sampled:
        return f"from {estimate(low)} to {estimate(high)}"
    return terse(low) if low == high else f"from {terse(low)} to {terse(high)}"


def nonfinite_equation(derivation: Derivation | None, first: NonFinite, recorded: Value, tolerance: float) -> str:
    """Write the arithmetic of a non-finite value; "" where its formula does not give it.

    derivation: worked for that value alone.
    """
    if not (derivation and derivation.elementwise and derivation.result and derivation.arithmetic):
        return ""
    agrees = derivation.agrees(SmallTensor((), (first.value,)), tolerance)
    if not agrees and not overflow_message(derivation.result, recorded):
        return ""
    return f"{with_digits(derivation.arithmetic)} = {terse(first.value)}"
