"""Tensors small enough to be worked by hand, and whether a number worked out agrees with the recorded one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from autograd_tui.core.trace import Value

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SmallTensor:
    """All values of a tensor, in row-major order."""

    shape: Shape
    values: tuple[float, ...]

    @classmethod
    def of(cls, value: Value | None) -> SmallTensor | None:
        """Take the values of a traced tensor; None where it is too large to have them all."""
        if value is None or value.stats.values is None:
            return None
        return cls(value.stats.shape, value.stats.values)

    @property
    def largest(self) -> float:
        """Give the greatest finite size among the values, 0 where there is none."""
        return max((abs(each) for each in self.values if math.isfinite(each)), default=0.0)

    def at(self, place: Shape) -> float:
        """Look up one value; along what has size 1 or is missing it is the same everywhere, as in broadcasting."""
        own = place[len(place) - len(self.shape) :]
        index = 0
        for size, each in zip(self.shape, own, strict=True):
            index = index * size + (each if size > 1 else 0)
        return self.values[index]

    def broadcast_at(self, place: Shape) -> float | None:
        """Look up one value at a place of a shape that this one is broadcast to; None where it is not."""
        own = place[len(place) - len(self.shape) :]
        fits = len(self.shape) <= len(place) and all(
            size == 1 or at < size for size, at in zip(self.shape, own, strict=True)
        )
        return self.at(place) if fits else None

    def reshaped(self, shape: Shape) -> SmallTensor:
        return SmallTensor(shape, self.values)


def indices(shape: Shape) -> Iterator[Shape]:
    """Go through a tensor's places in row-major order."""
    return product(*map(range, shape))


def filled(shape: Shape, number: float = 0.0) -> SmallTensor:
    """Make a tensor of one number."""
    return SmallTensor(shape, (number,) * math.prod(shape))


def collected(shape: Shape, parts: Iterator[tuple[Shape, float]]) -> SmallTensor:
    """Add numbers up at their places."""
    sums = dict.fromkeys(indices(shape), 0.0)
    for place, number in parts:
        sums[place] += number
    return SmallTensor(shape, tuple(sums.values()))


def broadcast(*shapes: Shape) -> Shape:
    """Give the shape that shapes are stretched to together."""
    longest = max(map(len, shapes), default=0)
    padded = [(1,) * (longest - len(shape)) + shape for shape in shapes]
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True))


def map_values(function: Callable[..., float], *tensors: SmallTensor | None) -> SmallTensor | None:
    """Apply a function value by value, stretching as PyTorch does; None where a tensor or a result is not known."""
    known = [tensor for tensor in tensors if tensor is not None]
    if len(known) < len(tensors):
        return None
    shape = broadcast(*(tensor.shape for tensor in known))
    try:
        return SmallTensor(shape, tuple(function(*(tensor.at(place) for tensor in known)) for place in indices(shape)))
    except (ArithmeticError, ValueError):  # 1/0, log(-1): PyTorch has infinity and NaN for them
        return None


def summed_to(tensor: SmallTensor, shape: Shape) -> SmallTensor:
    """Add up what broadcasting had stretched."""
    ahead = len(tensor.shape) - len(shape)

    def home(place: Shape) -> Shape:
        return tuple(at if size > 1 else 0 for at, size in zip(place[ahead:], shape, strict=True))

    return collected(shape, ((home(place), tensor.at(place)) for place in indices(tensor.shape)))


def summed_over(tensor: SmallTensor, dims: Sequence[int]) -> SmallTensor:
    """Add up along some dimensions, which stay with size 1."""
    gone = {dim % len(tensor.shape) for dim in dims} if tensor.shape else set()
    return summed_to(tensor, tuple(1 if dim in gone else size for dim, size in enumerate(tensor.shape)))


def permuted(tensor: SmallTensor, dims: Sequence[int]) -> SmallTensor:
    """Reorder the dimensions, as `Tensor.permute`."""
    dims = [dim % len(tensor.shape) for dim in dims]
    shape = tuple(tensor.shape[dim] for dim in dims)

    def origin(place: Shape) -> Shape:
        return tuple(at for _, at in sorted(zip(dims, place, strict=True)))

    return SmallTensor(shape, tuple(tensor.at(origin(place)) for place in indices(shape)))


def turned(tensor: SmallTensor | None) -> SmallTensor | None:
    """Swap the last two dimensions."""
    if tensor is None or len(tensor.shape) < 2:
        return tensor
    rest = range(len(tensor.shape) - 2)
    return permuted(tensor, [*rest, len(tensor.shape) - 1, len(tensor.shape) - 2])


def multiplied(left: SmallTensor | None, right: SmallTensor | None) -> SmallTensor | None:
    """Multiply matrices, or batches of them of one size; both with at least two dimensions."""
    if left is None or right is None or len(left.shape) != len(right.shape) or left.shape[-1] != right.shape[-2]:
        return None
    shape = (*left.shape[:-1], right.shape[-1])
    return SmallTensor(shape, tuple(exact_sum(x * y for x, y in pairs(left, right, place)) for place in indices(shape)))


def pairs(left: SmallTensor, right: SmallTensor, place: Shape) -> list[tuple[float, float]]:
    """Give the pairs of numbers whose products add up to one value of a matrix product."""
    *ahead, row, column = place
    return [(left.at((*ahead, row, k)), right.at((*ahead, k, column))) for k in range(left.shape[-1])]


# Arithmetic that has infinity and NaN where Python raises, as PyTorch does.


def quotient(a: float, b: float) -> float:
    """Divide, also by 0."""
    if b or math.isnan(a) or not a:
        return a / b if b else math.nan
    return math.copysign(math.inf, a) * math.copysign(1.0, b)


def logarithm(x: float) -> float:
    """Take the logarithm: of 0 it is -inf, below that NaN."""
    return math.log(x) if x > 0 else -math.inf if x == 0 else math.nan


def root(x: float) -> float:
    """Take the square root: NaN below 0."""
    return math.nan if x < 0 else math.sqrt(x)


def exponential(x: float) -> float:
    """Take e^x: infinity where it is too large."""
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def power(base: float, exponent: float) -> float:
    """Raise to a power: NaN for a negative base with a broken exponent."""
    try:
        result = base**exponent
    except ZeroDivisionError:
        return math.copysign(math.inf, base) if exponent % 2 == 1 else math.inf
    except OverflowError:
        return -math.inf if base < 0 and exponent % 2 == 1 else math.inf
    return math.nan if isinstance(result, complex) else result


def wave(function: Callable[[float], float], x: float) -> float:
    """Take a sine or cosine, which infinity has none of."""
    return math.nan if math.isinf(x) else function(x)


def exact_sum(values: Iterable[float]) -> float:
    """Add up without rounding in between; infinite or NaN as floats have it, where `math.fsum` would raise."""
    listed = list(values)
    try:
        return math.fsum(listed)
    except (OverflowError, ValueError):  # a sum that is too large, or of infinities of both signs
        return sum(listed)


ROUNDING = {"float64": 1e-9, "float16": 4e-3, "bfloat16": 3e-2}  # of a few operations one after the other
SINGLE = 2e-5  # float32, and what is narrower than the shown digits


GREATEST = {"float64": 1.797e308, "float16": 65504.0}
GREATEST_SINGLE = 3.4028e38  # of float32 and bfloat16


def overflow(computed: SmallTensor, recorded: Value) -> str:
    """Say that a result is beyond what its dtype can hold, "" where it is not: PyTorch then has infinity, or NaN."""
    greatest = GREATEST.get(recorded.stats.dtype, GREATEST_SINGLE)
    if not recorded.nonfinite or computed.largest <= greatest:
        return ""
    return f"Too large for {recorded.stats.dtype}, which holds numbers up to {greatest:.2g}."


def rounding(values: Iterable[Value | None]) -> float:
    """Give the relative error to expect of arithmetic with such tensors: that of the coarsest dtype."""
    kinds = [value.stats.dtype for value in values if value is not None and "float" in value.stats.dtype]
    return max((ROUNDING.get(kind, SINGLE) for kind in kinds), default=SINGLE)


def near(computed: float, recorded: float, *, error: float, size: float) -> bool:
    """Compare two numbers; `size`: of the largest number that entered. NaN equals NaN."""
    if math.isnan(computed) or math.isnan(recorded):
        return math.isnan(computed) and math.isnan(recorded)
    if math.isinf(computed) or math.isinf(recorded):
        return computed == recorded
    return abs(computed - recorded) <= error * max(size, abs(computed), abs(recorded))


def agrees(computed: SmallTensor, recorded: SmallTensor, *, error: float, size: float) -> bool:
    """Compare value by value."""
    pairs = zip(computed.values, recorded.values, strict=False)
    same = len(computed.values) == len(recorded.values)
    return same and all(near(one, other, error=error, size=size) for one, other in pairs)
