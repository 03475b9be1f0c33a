"""Outputs for each position of a sequence, as a language model gives them: too many to list, so how they are spread."""

from __future__ import annotations

import math

from autograd_tui.engine.values.frame import Frame
from autograd_tui.text.line import Line
from autograd_tui.text.numbers import count, measured, number
from autograd_tui.text.spread import sparkline


def outputs_by_position(frame: Frame) -> tuple[int, int] | None:
    """Give how many outputs there are for each of how many positions; None where there is one, or no positions.

    Of (samples, a, b) the outputs are `a` where targets are (samples, b), as cross_entropy takes them, else `b`.
    """
    row = frame.prediction
    if row is None or len(row.shape) != 3 or row.min is None:
        return None
    samples, outputs, positions = row.shape
    if frame.targets is None or frame.targets.shape != (samples, positions):
        outputs, positions = positions, outputs
    return (outputs, positions) if outputs > 1 else None


def position_lines(frame: Frame) -> list[Line]:
    """Draw the range of all outputs with how they are spread in it, then mean and deviation."""
    row = frame.prediction
    if row is None or row.min is None:
        return []
    old = ("  old" if frame.old else "", "warn")
    if row.nonfinite:
        # Infinities are a mask where the loss is finite all the same.
        ill = row.min != row.min or frame.loss is None or not math.isfinite(frame.loss)
        return [[(f"{count(row.nonfinite)} of {count(row.size)} are NaN or infinite", "error" if ill else "dim"), old]]
    mark = "~" * row.sampled
    spread = f"{mark}▕{sparkline(row.histogram)}▏" if row.histogram else "to"
    return [
        [(number(row.min), "strong"), (f" {spread} ", "accent"), (number(row.max), "strong"), old],
        [(f"mean {measured(row.mean, sampled=row.sampled)}   std {measured(row.std, sampled=row.sampled)}", "dim")],
    ]
