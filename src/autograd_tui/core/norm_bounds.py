"""Whether a norm that was measured quickly may be beyond a watchpoint's bound: only there is a frame needed."""

from __future__ import annotations

import math
from collections.abc import Iterable

from autograd_tui.core.watchpoint import Watchpoint

MARGIN = 0.01  # of a norm in float32, which is compared with a bound
MIN_BOUND = 1e-15  # below it the squares in a norm may vanish
Range = tuple[float, float]
FINITE: Range = (0.0, math.inf)  # within which each norm lies that is a number
NOT_ZERO: Range = (MIN_BOUND, math.inf)  # within which each lies whose tensor has some other value than 0


def safe_range(bounds: Iterable[Watchpoint]) -> Range:
    """Return between what a norm lies where none of the bounds holds, nor nearly does."""
    low, high = FINITE
    for each in bounds:
        if each.sign == ">":
            high = min(high, each.bound / (1 + MARGIN))
        else:
            low = max(low, each.bound / (1 - MARGIN))
    return low, high


def is_safe(norm: float, safe: Range) -> bool:
    """Return whether a norm lies in a range; one that is not finite never does, since its squares may have overflown.

    It may be of finite values, beyond no bound: the exact norm decides.
    """
    return math.isfinite(norm) and safe[0] <= norm <= safe[1]


def is_too_small(watchpoint: Watchpoint) -> bool:
    """Return whether a norm may be above a bound and yet vanish in float32."""
    return watchpoint.sign == ">" and watchpoint.bound < MIN_BOUND
