"""Round numbers for the axes of a plot."""

from __future__ import annotations

import math
import sys

STEPS = (1, 2, 5)  # times a power of ten
FINE_STEPS = (1, 2, 3, 5)  # on a log scale with much room


def linear_ticks(low: float, high: float, count: int) -> list[float]:
    """Return at most `count` multiples of 1, 2 or 5 times a power of ten in a range, ascending; maybe none."""
    span = high - low
    if not (0 < span < math.inf) or span < 1e-300 or max(abs(low), abs(high)) > 1e15 * span or count < 1:
        return []
    exponent = math.floor(math.log10(span / count))
    for power in (exponent, exponent + 1, exponent + 2):
        for factor in STEPS:
            step = factor * 10.0**power
            first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
            if 0 < last - first + 1 <= count:
                return [_multiple(index, factor, power) for index in range(first, last + 1)]
    return []


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """Return at most `count` round numbers between 10**low and 10**high, ascending: powers of ten where there are many.

    Fewer than two powers of ten are joined by 2 and 5 times one, and 3 where there is room. In a range of less they are
    linear.
    """
    if not (0 < high - low < math.inf) or count < 1:
        return []
    first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
    powers = range(first, last + 1)
    if len(powers) >= 2:
        stride = math.ceil(len(powers) / count)
        return [10.0**power for power in powers if power % stride == 0 and power < 308]
    least = 2 if count < 8 else 3
    for factors, most in ((FINE_STEPS, count // 2), (STEPS, count)):
        between = [
            factor * 10.0**power
            for power in range(first - 1, last + 1)
            for factor in factors
            if power < 307 and low - 1e-9 <= math.log10(factor) + power <= high + 1e-9
        ]
        if least <= len(between) <= most:
            return between
    return linear_ticks(10**low, 10 ** min(high, math.log10(sys.float_info.max)), count)


def _multiple(index: int, factor: int, power: int) -> float:
    """Return a multiple of 1, 2 or 5 times a power of ten without the error of a sum: 0.3, not 0.30000000000000004."""
    return index * factor / 10.0**-power if -300 < power < 0 else index * factor * 10.0**power


def tick_label(value: float, width: int) -> str:
    """Write a tick in at most `width` characters, at least six: 0.5, 20, 1500, 2e+06."""
    for digits in (6, 5, 4, 3, 2, 1):
        text = f"{value:.{digits}g}".replace("e+0", "e+").replace("e-0", "e-")
        if len(text) <= width:
            return text
    return text[:width]
