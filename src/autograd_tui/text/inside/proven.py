"""What there is to prove at an operation."""

from __future__ import annotations

from autograd_tui.engine.values.command import Phase
from autograd_tui.engine.values.trace import Op, Trace


def what_to_prove(trace: Trace, op: Op) -> tuple[int, str | int] | None:
    """Give the frame, and the parameter whose gradient is at hand or the number of the operation it came out of.

    None where there is no gradient of the kind.
    """
    if trace.phase is Phase.ZERO_GRAD:
        return trace.index - 1, op.name
    if trace.phase is Phase.STEP:
        return trace.index, op.name
    if trace.phase is Phase.FORWARD:
        return trace.index, op.number
    what = op.accumulates_into if op.accumulates_into is not None else op.made_by
    return None if what is None else (trace.index, what)
