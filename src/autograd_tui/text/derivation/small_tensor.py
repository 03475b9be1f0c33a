"""Arithmetic of tensors with few values in Python floats, with PyTorch's broadcasting and its NaN and infinity.

Not NumPy: its exp and log may differ from the math module in the last digit, and it warns where Python raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from autograd_tui.core.trace import Value

Shape = tuple[int, ...]
MAX_SIZE = 64  # values of a gradient that is worked in full


@dataclass(frozen=True, slots=True)
class SmallTensor:
    """All values of a tensor, in row-major order."""

    shape: Shape
    values: tuple[float, ...]

    @classmethod
    def of(cls, value: Value | None) -> SmallTensor | None:
        """Return the values of a traced tensor; None where it is too large to have them all."""
        if value is None or value.stats.values is None:
            return None
        return cls(value.stats.shape, value.stats.values)

    @property
    def max_abs(self) -> float:
        """The largest absolute value that is finite, 0 where there is none."""
        return max((abs(value) for value in self.values if math.isfinite(value)), default=0.0)

    def at(self, index: Shape) -> float:
        """Return the value at an index of a shape that this tensor broadcasts to."""
        offset = 0
        for size, at in zip(self.shape, index[len(index) - len(self.shape) :], strict=True):
            offset = offset * size + (at if size > 1 else 0)
        return self.values[offset]

    def broadcast_at(self, index: Shape) -> float | None:
        """Return the value at an index of any shape; None where this tensor does not broadcast to that shape."""
        own = index[len(index) - len(self.shape) :]
        fits = len(self.shape) <= len(index) and all(
            size == 1 or at < size for size, at in zip(self.shape, own, strict=True)
        )
        return self.at(index) if fits else None

    def reshaped(self, shape: Shape) -> SmallTensor:
        return SmallTensor(shape, self.values)


def indices(shape: Shape) -> Iterator[Shape]:
    """Return all indices of a shape in row-major order."""
    return product(*map(range, shape))


def full(shape: Shape, number: float = 0.0) -> SmallTensor:
    """Return a tensor whose every value is one number."""
    return SmallTensor(shape, (number,) * math.prod(shape))


def scatter_add(shape: Shape, parts: Iterator[tuple[Shape, float]]) -> SmallTensor:
    """Return a tensor that holds at each index the sum of the numbers given for it, 0 where there is none."""
    sums = dict.fromkeys(indices(shape), 0.0)
    for index, number in parts:
        sums[index] += number
    return SmallTensor(shape, tuple(sums.values()))


def broadcast_shape(*shapes: Shape) -> Shape:
    """Return the shape that shapes are broadcast to together."""
    longest = max(map(len, shapes), default=0)
    padded = [(1,) * (longest - len(shape)) + shape for shape in shapes]
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True))


def map_values(function: Callable[..., float], *tensors: SmallTensor | None) -> SmallTensor | None:
    """Apply a function value by value to broadcast tensors; None if a tensor is None or the function raises."""
    operands = [tensor for tensor in tensors if tensor is not None]
    if len(operands) < len(tensors):
        return None
    shape = broadcast_shape(*(tensor.shape for tensor in operands))
    try:
        return SmallTensor(
            shape, tuple(function(*(tensor.at(index) for tensor in operands)) for index in indices(shape))
        )
    except (ArithmeticError, ValueError):  # 1/0, log(-1): PyTorch has infinity and NaN for them
        return None


def summed_to(tensor: SmallTensor, shape: Shape) -> SmallTensor:
    """Sum a tensor to a shape that broadcasts to its own, as autograd does for a broadcast input."""
    ahead = len(tensor.shape) - len(shape)

    def home(index: Shape) -> Shape:
        return tuple(at if size > 1 else 0 for at, size in zip(index[ahead:], shape, strict=True))

    return scatter_add(shape, ((home(index), tensor.at(index)) for index in indices(tensor.shape)))


def summed_over(tensor: SmallTensor, dims: Sequence[int]) -> SmallTensor:
    """Sum over dimensions and keep them with size 1."""
    summed_dims = {dim % len(tensor.shape) for dim in dims} if tensor.shape else set()
    return summed_to(tensor, tuple(1 if dim in summed_dims else size for dim, size in enumerate(tensor.shape)))


def permuted(tensor: SmallTensor, dims: Sequence[int]) -> SmallTensor:
    """Reorder the dimensions, as `Tensor.permute`."""
    dims = [dim % len(tensor.shape) for dim in dims]
    shape = tuple(tensor.shape[dim] for dim in dims)

    def origin(index: Shape) -> Shape:
        return tuple(at for _, at in sorted(zip(dims, index, strict=True)))

    return SmallTensor(shape, tuple(tensor.at(origin(index)) for index in indices(shape)))


def transposed(tensor: SmallTensor | None) -> SmallTensor | None:
    """Swap the last two dimensions; a tensor of fewer stays as it is."""
    if tensor is None or len(tensor.shape) < 2:
        return tensor
    rest = range(len(tensor.shape) - 2)
    return permuted(tensor, [*rest, len(tensor.shape) - 1, len(tensor.shape) - 2])


def matrix_product(left: SmallTensor | None, right: SmallTensor | None) -> SmallTensor | None:
    """Multiply matrices, or batches of equal size; both need two dimensions. None where the shapes do not match."""
    if left is None or right is None or len(left.shape) != len(right.shape) or left.shape[-1] != right.shape[-2]:
        return None
    shape = (*left.shape[:-1], right.shape[-1])
    return SmallTensor(
        shape, tuple(exact_sum(x * y for x, y in product_terms(left, right, index)) for index in indices(shape))
    )


def product_terms(left: SmallTensor, right: SmallTensor, index: Shape) -> list[tuple[float, float]]:
    """Return the pairs of numbers whose products add up to one value of a matrix product."""
    *ahead, row, column = index
    return [(left.at((*ahead, row, k)), right.at((*ahead, k, column))) for k in range(left.shape[-1])]


# Arithmetic that has infinity and NaN where Python raises, as PyTorch does.


def quotient(a: float, b: float) -> float:
    """Return a / b: infinity or NaN where b is 0."""
    if b or math.isnan(a) or not a:
        return a / b if b else math.nan
    return math.copysign(math.inf, a) * math.copysign(1.0, b)


def logarithm(x: float) -> float:
    """Return the natural logarithm: of 0 it is -inf, below that NaN."""
    return math.log(x) if x > 0 else -math.inf if x == 0 else math.nan


def root(x: float) -> float:
    """Return the square root: NaN below 0."""
    return math.nan if x < 0 else math.sqrt(x)


def exponential(x: float) -> float:
    """Return e^x: infinity where it is too large."""
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def power(base: float, exponent: float) -> float:
    """Return base^exponent: NaN for a negative base with a fractional exponent."""
    try:
        result = base**exponent
    except ZeroDivisionError:
        return math.copysign(math.inf, base) if exponent % 2 == 1 else math.inf
    except OverflowError:
        return -math.inf if base < 0 and exponent % 2 == 1 else math.inf
    return math.nan if isinstance(result, complex) else result


def sine_or_cosine(function: Callable[[float], float], x: float) -> float:
    """Return `math.sin` or `math.cos` of a number: NaN for infinity."""
    return math.nan if math.isinf(x) else function(x)


def sigmoid(x: float) -> float:
    """Return 1 / (1 + e^-x), computed without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def exact_sum(values: Iterable[float]) -> float:
    """Return a sum that was rounded once; infinity or NaN where `math.fsum` would raise."""
    numbers = list(values)
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):  # a sum that is too large, or of infinities of both signs
        return sum(numbers)


TOLERANCES = {"float64": 1e-9, "float16": 4e-3, "bfloat16": 3e-2}  # of a few operations one after the other
FLOAT32_TOLERANCE = 2e-5  # float32, and what is narrower than the shown digits


MAX_FINITE = {"float64": 1.797e308, "float16": 65504.0}
MAX_FLOAT32 = 3.4028e38  # of float32 and bfloat16


def overflow_message(computed: SmallTensor, recorded: Value) -> str:
    """Return a sentence if `computed` overflows the dtype of `recorded`, which then has infinity or NaN; else ""."""
    maximum = MAX_FINITE.get(recorded.stats.dtype, MAX_FLOAT32)
    if not recorded.nonfinite or computed.max_abs <= maximum:
        return ""
    return f"Too large for {recorded.stats.dtype}, which holds numbers up to {maximum:.2g}."


def tolerance_of(values: Iterable[Value | None]) -> float:
    """Return the relative error that rounding may leave in arithmetic with such tensors: the coarsest dtype's."""
    kinds = [value.stats.dtype for value in values if value is not None and "float" in value.stats.dtype]
    return max((TOLERANCES.get(kind, FLOAT32_TOLERANCE) for kind in kinds), default=FLOAT32_TOLERANCE)


def is_close(computed: float, recorded: float, *, tolerance: float, magnitude: float) -> bool:
    """Return whether two numbers differ by at most `tolerance` × the largest, `magnitude` included; NaN equals NaN."""
    if math.isnan(computed) or math.isnan(recorded):
        return math.isnan(computed) and math.isnan(recorded)
    if math.isinf(computed) or math.isinf(recorded):
        return computed == recorded
    return abs(computed - recorded) <= tolerance * max(magnitude, abs(computed), abs(recorded))


def all_close(computed: SmallTensor, recorded: SmallTensor, *, tolerance: float, magnitude: float) -> bool:
    """Return whether all elements are near the recorded ones, in row-major order; shapes may differ."""
    elements = zip(computed.values, recorded.values, strict=False)
    same = len(computed.values) == len(recorded.values)
    return same and all(is_close(one, other, tolerance=tolerance, magnitude=magnitude) for one, other in elements)
