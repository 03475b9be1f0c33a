"""Central finite differences: the slope of a function of one number, with no help from autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

STEP_SIZE = 1e-5  # near the cube root of float64's precision: what is cut off and what is rounded are both some 1e-10
STEP_FACTORS = (1.0, 0.1, 0.01, 10.0)  # times STEP_SIZE, where the first one does not agree
TOLERANCE = 1e-5  # as a share of the largest slope
ROUNDING_TOLERANCE = 1e-10  # as a share of the function itself: what a slope may be off by rounding alone
KINK_TOLERANCE = 1e-3  # as a share of the largest slope: by how much the slopes on both sides differ at least


@dataclass(frozen=True, slots=True)
class Slope:
    """The slope of a function at a point, and whether it has a kink there, as relu has at 0."""

    value: float
    kink: bool = False


def slope(function: Callable[[float], float], expected: float, *, size: float, step: float = STEP_SIZE) -> Slope:
    """Measure the slope of a function at 0; where it is not `expected`, try other step sizes before saying so.

    size: of the largest slope around, of which differences are a share.
    """
    first = _central(function, step)
    if is_near(first, expected, size=size, function=function(0.0)):
        return Slope(first)
    if _has_kink(function, step, size):
        return Slope(first, kink=True)
    slopes = sorted((factor, _central(function, step * factor)) for factor in STEP_FACTORS)
    # The two neighbours that agree best are the least disturbed, by rounding or by what is cut off.
    best = min(pairwise(slopes), key=lambda pair: abs(pair[0][1] - pair[1][1]))
    return Slope(best[1][1])


def is_near(one: float, other: float, *, size: float, function: float, tolerance: float = TOLERANCE) -> bool:
    """Tell whether two slopes are the same as far as differences can tell; NaN is the same as nothing."""
    return abs(one - other) <= tolerance * size + ROUNDING_TOLERANCE * abs(function)


def _central(function: Callable[[float], float], step: float) -> float:
    return (function(step) - function(-step)) / (2 * step)


def _has_kink(function: Callable[[float], float], step: float, size: float) -> bool:
    """Tell whether the slopes on both sides stay apart however near they are measured."""
    gaps = []
    for step_size in (step, step / 100):
        middle = function(0.0)
        right, left = (function(step_size) - middle) / step_size, (middle - function(-step_size)) / step_size
        gaps.append(abs(right - left))
    bound = KINK_TOLERANCE * size + 4e-16 * abs(function(0.0)) / (step / 100)
    return all(math.isfinite(each) for each in gaps) and gaps[1] > bound and gaps[1] > gaps[0] / 2
