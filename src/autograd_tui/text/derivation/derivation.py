"""One derived result: its formula, its numbers, whether PyTorch has the same, and the rows that show it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autograd_tui.core.trace import NonFinite, Operation, Value
from autograd_tui.text.derivation.small_tensor import (
    Shape,
    SmallTensor,
    all_close,
    map_values,
    overflow_message,
    summed_to,
)
from autograd_tui.text.equation import evaluated, exact, parenthesized, with_digits, wrapped_rows
from autograd_tui.text.numbers import count, estimate, terse
from autograd_tui.text.styled_text import Line
from autograd_tui.text.trace.tensor_words import nested, value_words

MAX_WRITTEN_PAIRS = 4  # that are written one by one
MAX_LISTED_VALUES = 8  # above it only the first is worked
MAX_PRODUCT_TERMS = 4  # of a value of a matrix product that are written out
FIRST_VALUE = "first value: "  # in front of the arithmetic of one value of many
MAX_LISTED_INPUTS = 4  # whose ranges are written


@dataclass(frozen=True, slots=True)
class Derivation:
    """What a rule derives: the output of a call, or the gradient of one input of a node.

    Of a gradient, `result` is upstream × local, before what broadcasting stretched is summed. Numbers are written in
    full in `arithmetic` and `local`; the rows below choose their digits.
    """

    formula: str  # "w × x", "d(w × x)/dw = x"
    result: SmallTensor | None = None  # None where a number that it needs was not recorded
    arithmetic: str = ""  # of `result`, "[2 × 1, 2 × 2]"; "" where there is nothing to show
    magnitude: float = 0.0  # of the largest number that entered: rounding is judged by it
    elementwise: bool = False  # so it can be worked for one value alone
    index: int = 0  # of a gradient: which input of the node
    local: str = ""  # the local derivative in numbers, where the formula does not show them
    unchanged: bool = False  # the upstream itself

    @property
    def of_first_value(self) -> bool:
        """Whether `arithmetic` works the first of several values."""
        return self.arithmetic.startswith(FIRST_VALUE)

    def summed_to(self, shape: Shape) -> SmallTensor:
        """Return the result with what broadcasting had stretched from `shape` added up."""
        assert self.result is not None
        return summed_to(self.result, shape)

    def agrees(self, recorded: SmallTensor, tolerance: float) -> bool:
        """Return whether PyTorch's values are the same, by `tolerance` × the largest number; longer sums round more."""
        assert self.result is not None
        terms = max(len(self.result.values) / len(recorded.values), 1)
        largest = max(self.magnitude, self.result.max_abs) * math.sqrt(terms)
        return all_close(self.summed_to(recorded.shape), recorded, tolerance=tolerance, magnitude=largest)


def product_magnitude(upstream: SmallTensor, local: SmallTensor) -> float:
    """Return the size of the largest number in a product, by which rounding is judged."""
    return upstream.max_abs * max(local.max_abs, 1.0)


def written_values(tensor: SmallTensor) -> str:
    """Write values in full in one row, whatever their shape."""
    written = ", ".join(map(exact, tensor.values))
    return written if len(tensor.values) == 1 else f"[{written}]"


def written_or_first(tensor: SmallTensor) -> str:
    """Write values in full in one row, the first alone where they are many."""
    is_short = len(tensor.values) <= MAX_LISTED_VALUES
    return written_values(tensor) if is_short else f"{FIRST_VALUE}{exact(tensor.values[0])}"


def written_pairs(left: SmallTensor, sign: str, right: SmallTensor) -> str:
    """Write arithmetic value by value: [2 × 1, 3 × 2], or [2, 3, ...] × [1, 2, ...], or the first alone if long."""
    lefts, rights = map_values(lambda a, _: a, left, right), map_values(lambda _, b: b, left, right)
    assert lefts is not None
    assert rights is not None
    if len(lefts.values) > MAX_LISTED_VALUES:
        return FIRST_VALUE + _pair(lefts.values[0], sign, rights.values[0])
    if len(lefts.values) > MAX_WRITTEN_PAIRS:
        return f"{written_values(lefts)} {sign} {written_values(rights)}"
    terms = [_pair(a, sign, b) for a, b in zip(lefts.values, rights.values, strict=True)]
    return terms[0] if len(terms) == 1 else f"[{', '.join(terms)}]"


def _pair(a: float, sign: str, b: float) -> str:
    if sign == "^":
        return f"{parenthesized(a)}^{parenthesized(b)}"
    return f"{exact(a)} {sign} {parenthesized(b)}"


def written_products(pairs: Sequence[tuple[float, float]]) -> str:
    """Write a sum of products with its signs: 2 × 3 - 1 × (-4)."""
    signed = [f"{'-' if a < 0 else '+'} {exact(abs(a))} × {parenthesized(b)}" for a, b in pairs]
    return re.sub("^- ", "-", " ".join(signed).removeprefix("+ "))


def written_sum(terms: SmallTensor) -> str:
    """Write a sum with its signs, its numbers in full: 2 + 1.3333 - 2."""
    first, *rest = terms.values
    signed = [f"{'-' if math.copysign(1, number) < 0 else '+'} {exact(abs(number))}" for number in rest]
    return " ".join([exact(first), *signed])


def written_result(recorded: Value, values: SmallTensor, width: int) -> str:
    """Write what PyTorch has: all values where they are few."""
    if len(values.values) <= MAX_LISTED_VALUES:
        return nested(values.values, values.shape)
    return value_words(recorded, width - 4)


def result_lines(written: str, width: int, *, style: str = "now") -> list[Line]:
    """Write what came out."""
    return wrapped_rows(f"= {written}", width, indent="  ", style=style)


def arithmetic_lines(
    derivation: Derivation, values: Sequence[float], written: str, width: int, *, style: str = "now"
) -> list[Line]:
    """Write the arithmetic and the `values` that it gives, as `written`; those alone where there is no arithmetic."""
    if not derivation.arithmetic:
        return result_lines(written, width, style=style)
    return wrapped_rows(evaluated(derivation.arithmetic, values, written), width, indent="  ", style=style)


def first_value_lines(derivation: Derivation, values: SmallTensor, width: int) -> list[Line]:
    """Write the first of several values with its arithmetic."""
    arithmetic = FIRST_VALUE + derivation.arithmetic.removeprefix(FIRST_VALUE)
    return wrapped_rows(evaluated(arithmetic, values.values[:1], terse(values.values[0])), width, indent="  ")


def agreeing_lines(
    derivation: Derivation, values: SmallTensor, written: str, width: int, *, works_nonfinite: bool
) -> list[Line]:
    """Write a derivation that agrees with PyTorch's `values`.

    works_nonfinite: another of its values, NaN or infinite, is worked instead of the first.
    """
    if not derivation.of_first_value:
        return arithmetic_lines(derivation, values.values, written, width)
    first = [] if works_nonfinite else first_value_lines(derivation, values, width)
    return [*first, *result_lines(written, width)]


def contradiction_lines(computed: str, recorded: Value, width: int, *, cause: str = "") -> list[Line]:
    """Write that the formula and PyTorch differ; with a `cause` in two sentences."""
    computed_text, recorded_text = f"this formula gives {computed},", f"but {value_words(recorded, width - 8)} came out"
    sentences = [computed_text, recorded_text + cause] if cause else [f"{computed_text} {recorded_text}."]
    return [line for text in sentences for line in wrapped_rows(text, width, indent="  ", style="warn")]


def dtype_lines(inputs: Iterable[Value | None], outputs: Iterable[Value | None], width: int) -> list[Line]:
    """Write that the outputs' floating-point dtypes differ from the inputs'; nothing where they do not."""
    before, after = (
        list(dict.fromkeys(value.stats.dtype for value in side if value and "float" in value.stats.dtype))
        for side in (inputs, outputs)
    )
    if not before or not after or set(before) == set(after):
        return []
    verbs = ("goes" if len(before) == 1 else "go"), ("comes" if len(after) == 1 else "come")
    return wrapped_rows(f"{' and '.join(before)} {verbs[0]} in, {' and '.join(after)} {verbs[1]} out.", width)


def is_complex(values: Iterable[Value | None]) -> bool:
    """Return whether one of some tensors has complex numbers, of which no arithmetic is known here."""
    return any(value is not None and value.stats.dtype.startswith("complex") for value in values)


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
