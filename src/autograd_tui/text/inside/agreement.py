"""Whether a number worked out here is the recorded one, but for rounding."""

from __future__ import annotations

import math
from collections.abc import Iterable

from autograd_tui.engine.values.trace import Value
from autograd_tui.text.inside.small import Small

ROUNDING = {"float64": 1e-9, "float16": 4e-3, "bfloat16": 3e-2}  # of a few operations one after the other
SINGLE = 2e-5  # float32, and what is narrower than the shown digits


GREATEST = {"float64": 1.797e308, "float16": 65504.0}
GREATEST_SINGLE = 3.4028e38  # of float32 and bfloat16


def overflow(computed: Small, recorded: Value) -> str:
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


def agrees(computed: Small, recorded: Small, *, error: float, size: float) -> bool:
    """Compare value by value."""
    pairs = zip(computed.values, recorded.values, strict=False)
    same = len(computed.values) == len(recorded.values)
    return same and all(near(one, other, error=error, size=size) for one, other in pairs)
