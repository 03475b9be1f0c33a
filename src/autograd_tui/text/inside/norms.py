"""The one number that each operation of a phase is about, and its bar on a log scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autograd_tui.engine.values.command import Phase
from autograd_tui.engine.values.trace import Op, Trace, Value
from autograd_tui.text.numbers import bar

WHAT = {
    Phase.FORWARD: "|output|",
    Phase.BACKWARD: "|gradient|",
    Phase.STEP: "|gradient|",
    Phase.ZERO_GRAD: "|gradient|",
}
LEAST_BAR = 0.04  # of the width, where the scale begins


@dataclass(frozen=True, slots=True)
class Scale:
    """Whole powers of ten around the norms of a phase."""

    low: int
    high: int

    @classmethod
    def of(cls, trace: Trace) -> Scale:
        """Find them, zeros left out."""
        norms = (norm_of(trace, op) for op in trace.ops)
        powers = [math.log10(norm) for norm in norms if norm is not None and 0 < norm < math.inf]
        low = math.floor(min(powers, default=0.0))
        return cls(low, max(math.ceil(max(powers, default=0.0)), low + 1))

    def bar(self, norm: float, width: int) -> str:
        """Draw a norm."""
        if not norm or not math.isfinite(norm):
            return bar(norm, width)
        share = (math.log10(norm) - self.low) / (self.high - self.low)
        return bar(LEAST_BAR + (1 - LEAST_BAR) * share, width)


def norm_of(trace: Trace, op: Op) -> float | None:
    """Give the norm of a call's output, of the gradient that comes to a node, or of a parameter's gradient."""
    if trace.phase is Phase.FORWARD:
        return _together(op.output)
    if trace.phase is Phase.BACKWARD:
        return _together(op.grad_in)
    return _together([value for value in op.inputs if value.role == "grad"])


def norm_over(trace: Trace, ops: Sequence[Op]) -> float | None:
    """Give the norm of what came out of a module, came to it in a backward, or of all its parameters' gradients."""
    if not ops:
        return None
    if trace.phase is Phase.FORWARD:
        return norm_of(trace, ops[-1])
    if trace.phase is Phase.BACKWARD:
        return norm_of(trace, ops[0])
    known = [norm for op in ops if (norm := norm_of(trace, op)) is not None]
    return math.hypot(*known) if known else None


def _together(values: Iterable[Value | None]) -> float | None:
    """Give the norm over several tensors; NaN where one holds a NaN or an infinity."""
    held = [value for value in values if value is not None]
    norms = [value.stats.norm for value in held if value.stats.norm is not None]
    if any(value.nonfinite for value in held) and not any(map(math.isinf, norms)):
        return math.nan
    return math.hypot(*norms) if norms else None
