"""Exact numbers of one parameter and of all that belongs to it, where a frame has those of a sample."""

from __future__ import annotations

from dataclasses import dataclass

from autograd_tui.engine.values.stats_table import TensorStats


@dataclass(frozen=True, slots=True)
class Inspection:
    """One parameter at one frame; its rows are of all values, in double precision, and never `sampled`."""

    name: str
    index: int  # of the frame that it is true of
    value: TensorStats
    grad: TensorStats | None  # None where `.grad` is None
    state: tuple[TensorStats, ...] = ()  # the optimizer's, named by its keys: momentum_buffer, exp_avg, step
    cosine: float | None = None  # between velocity and gradient, from -1 to 1; None where one is missing or zero
