"""Stand-in until health is written."""

from __future__ import annotations

from autograd_tui.engine.trace import Trace
from autograd_tui.text.line import Line


def first_trouble(trace: Trace) -> int | None:
    """Give the place of the first operation out of which NaN or infinity came."""
    op = trace.first_nonfinite()
    return op.number if op else None


def health_lines(trace: Trace) -> list[Line]:
    """Say what is wrong."""
    op = trace.first_nonfinite()
    return [[(f"NaN out of {op.name}", "error")]] if op else []
