"""One derived result: its formula, its numbers, and whether they agree with what PyTorch computed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autograd_tui.text.derivation.rule_context import CallContext, NodeContext
from autograd_tui.text.derivation.small_tensor import (
    Shape,
    SmallTensor,
    all_close,
    broadcast_shape,
    full,
    map_values,
    summed_to,
)
from autograd_tui.text.equation import evaluated, exact, parenthesized, with_digits

MAX_WRITTEN_PRODUCTS = 4  # that are written one by one
MAX_LISTED_VALUES = 8  # above it only the first is worked
MAX_PRODUCT_TERMS = 4  # of a value of a matrix product that are written out
FIRST_VALUE = "first value: "  # in front of the arithmetic of one value of many


@dataclass(frozen=True, slots=True)
class Derivation:
    """What a rule derives: the output of a call, the gradient of one input of a node, or one row of a step.

    Of a gradient, `result` is upstream × local, before what broadcasting stretched is summed. Numbers are written in
    full in `arithmetic` and `local`; the presenter chooses their digits.
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

    def agrees(self, recorded: SmallTensor, error: float) -> bool:
        """Compare the sums with PyTorch's values, `error` relative to the largest number; longer sums round more."""
        assert self.result is not None
        terms = max(len(self.result.values) / len(recorded.values), 1)
        largest = max(self.magnitude, self.result.max_abs) * math.sqrt(terms)
        return all_close(self.summed_to(recorded.shape), recorded, tolerance=error, magnitude=largest)


ForwardRule = Callable[[CallContext], Derivation]
BackwardRule = Callable[[NodeContext], Sequence[Derivation]]


def times(
    context: NodeContext, index: int, formula: str, local: SmallTensor | None, *, by: str | None = None
) -> Derivation:
    """Multiply the upstream with the local derivative, value by value.

    `by`: how that was worked out, "" where it is only to be shown; None where the formula names it.
    """
    upstream = context.upstream
    result = map_values(lambda up, by: up * by, upstream, local)
    if upstream is None or local is None or result is None:
        return Derivation(formula, elementwise=True, index=index)
    shown = "" if by is None or len(result.values) > MAX_LISTED_VALUES else f"local: {_local(by, local)}"
    largest = product_magnitude(upstream, local)
    arithmetic = written_product(upstream, local)
    return Derivation(formula, result, arithmetic, largest, elementwise=True, index=index, local=shown)


def _local(by: str, local: SmallTensor) -> str:
    text = with_digits(written_values(local))
    return evaluated(by, local.values, text) if by else text


def scaled(context: NodeContext, index: int, formula: str, by: float | None) -> Derivation:
    """Multiply the upstream with one number; 1 hands it on as it is, None is a number that is not known."""
    upstream = context.upstream
    result = map_values(lambda up: up * (by or 0.0), upstream) if by is not None else None
    if upstream is None or by is None or result is None:
        return Derivation(formula, elementwise=True, index=index)
    few = len(upstream.values) <= MAX_LISTED_VALUES
    up = written_values(upstream) if few else f"{FIRST_VALUE}{exact(upstream.values[0])}"
    arithmetic = "" if by == 1 else f"{up} × {parenthesized(by)}"
    largest = product_magnitude(upstream, full((), by))
    return Derivation(formula, result, arithmetic, largest, elementwise=True, index=index, unchanged=by == 1)


def gradient(
    context: NodeContext,
    index: int,
    formula: str,
    result: SmallTensor | None = None,
    *,
    arithmetic: str = "",
    largest: float = 0,
) -> Derivation:
    """Take a gradient that is not worked value by value, `largest` the largest number that entered."""
    upstream = context.upstream
    largest = max(largest, upstream.max_abs if upstream else 0.0)
    return Derivation(formula, result, arithmetic, largest, index=index)


def product_magnitude(upstream: SmallTensor, local: SmallTensor) -> float:
    """Return the size of the largest number in a product, by which rounding is judged."""
    return upstream.max_abs * max(local.max_abs, 1.0)


def written_values(tensor: SmallTensor) -> str:
    """Write values in full in one row, whatever their shape."""
    written = ", ".join(map(exact, tensor.values))
    return written if len(tensor.values) == 1 else f"[{written}]"


def written_product(upstream: SmallTensor, local: SmallTensor) -> str:
    """Write an elementwise product: [2 × 1, 3 × 2], or [2, 3, ...] × [1, 2, ...], or the first element if long."""
    shape = broadcast_shape(upstream.shape, local.shape)
    both = map_values(lambda up, _: up, upstream, local), map_values(lambda _, by: by, upstream, local)
    if both[0] is None or both[1] is None or len(both[0].values) > MAX_LISTED_VALUES:
        return f"{FIRST_VALUE}{exact(upstream.values[0])} × {parenthesized(local.values[0])}"
    if len(both[0].values) > MAX_WRITTEN_PRODUCTS:
        return f"{written_values(both[0])} × {written_values(both[1])}"
    terms = [f"{exact(up)} × {parenthesized(by)}" for up, by in zip(both[0].values, both[1].values, strict=True)]
    return terms[0] if not shape or len(terms) == 1 else f"[{', '.join(terms)}]"


def written_products(pairs: Sequence[tuple[float, float]]) -> str:
    """Write a sum of products with its signs: 2 × 3 - 1 × (-4)."""
    signed = [f"{'-' if a < 0 else '+'} {exact(abs(a))} × {parenthesized(b)}" for a, b in pairs]
    return re.sub("^- ", "-", " ".join(signed).removeprefix("+ "))


def written_sum(terms: SmallTensor) -> str:
    """Write a sum with its signs, its numbers in full: 2 + 1.3333 - 2."""
    first, *rest = terms.values
    signed = [f"{'-' if math.copysign(1, number) < 0 else '+'} {exact(abs(number))}" for number in rest]
    return " ".join([exact(first), *signed])
