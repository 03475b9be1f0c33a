"""Exact numbers of a parameter, whatever its size, in double precision; nothing is touched."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from autograd_tui.core.tensor_stats import BINS, MOST_VALUES, Inspection, TensorStats
from autograd_tui.engine.training.stats_reader import to_host
from autograd_tui.engine.training.tensor_properties import (
    SPARSE,
    as_real_floats,
    is_measurable,
    is_number_or_tensor,
    shape_of,
    stored_values,
)

PART = 1 << 17  # values made double at a time: few enough for the processor's cache
SQUARABLE = (1e-140, 1e140)  # sizes whose squares double precision holds
VELOCITIES = ("momentum_buffer", "exp_avg")


@torch.no_grad()
def inspect(name: str, param: Tensor, *, state: Mapping[str, Any], index: int) -> Inspection:
    """Measure a parameter, its gradient and its optimizer state with one copy to the host."""
    named = {"value": param, "grad": param.grad}
    named |= {f"state.{key}": torch.as_tensor(value) for key, value in state.items() if is_number_or_tensor(value)}
    given = {key: tensor for key, tensor in named.items() if tensor is not None}
    given |= {key: tensor.cpu() for key, tensor in given.items() if tensor.layout in SPARSE}
    away = [key for key, tensor in given.items() if is_measurable(tensor) and tensor.layout not in SPARSE]
    given |= dict(zip(away, to_host([given[key] for key in away]), strict=True))
    rows = {key: exact_row(key.removeprefix("state."), tensor) for key, tensor in given.items()}
    velocity = next((f"state.{key}" for key in VELOCITIES if f"state.{key}" in given), "")
    pair = [key for key in (velocity, "grad") if key in given]
    return Inspection(
        name,
        index,
        rows["value"],
        rows.get("grad"),
        tuple(row for key, row in rows.items() if key.startswith("state.")),
        cosine(*(given[key] for key in pair), norms=[rows[key].norm for key in pair]) if len(pair) == 2 else None,
    )


def exact_row(name: str, tensor: Tensor) -> TensorStats:
    """Measure all values of a tensor on the host; what its dtype or size cannot give is None."""
    shape, dtype = shape_of(tensor), str(tensor.dtype).removeprefix("torch.")
    if not is_measurable(tensor):
        return TensorStats(name, shape, dtype)
    if tensor.is_complex() or tensor.layout in SPARSE:
        return _row_in_short(TensorStats(name, shape, dtype), tensor)
    low, high = _ends(tensor)
    scale = _scale(low, high)
    mean = sum(float((part / scale).sum()) for part in _parts(tensor)) / tensor.numel() * scale
    few = tensor.numel() <= MOST_VALUES
    return TensorStats(
        name,
        shape,
        dtype,
        norm=math.sqrt(_squares(tensor, 0.0, scale=scale)) * scale,
        min=low,
        max=high,
        nonfinite=sum(int((~part.isfinite()).sum()) for part in _parts(tensor)),
        mean=mean,
        std=math.sqrt(_squares(tensor, mean, scale=scale) / tensor.numel()) * scale,
        values=tuple(tensor.double().reshape(-1).tolist()) if few else None,
        histogram=None if few else _histogram(tensor),
    )


def _row_in_short(row: TensorStats, tensor: Tensor) -> TensorStats:
    """Measure what a complex or sparse tensor has: of a sparse one, its stored values."""
    held = stored_values(tensor.detach())
    plain = as_real_floats(held)
    low, high = _ends(plain) if held.numel() else (0.0, 0.0)
    scale = _scale(low, high)
    return replace(
        row,
        norm=math.sqrt(_squares(plain, 0.0, scale=scale)) * scale,
        min=None if tensor.is_complex() else low,
        max=None if tensor.is_complex() else high,
        nonfinite=int((~held.isfinite()).sum()),
        stored=held.numel() if tensor.layout in SPARSE else None,
    )


def cosine(one: Tensor, other: Tensor, *, norms: Sequence[float | None]) -> float | None:
    """Give the cosine of the angle between two tensors of known norms; None where they have none."""
    a, b = (norm or 0.0 for norm in norms)
    alike = one.layout is other.layout is torch.strided and one.shape == other.shape
    if not alike or not (0 < a < math.inf and 0 < b < math.inf):
        return None
    pairs = zip(_parts(as_real_floats(one)), _parts(as_real_floats(other)), strict=True)
    return max(-1.0, min(1.0, sum(float(torch.dot(x / a, y / b)) for x, y in pairs)))


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """Give the values a part at a time, each (up to PART,) in double precision."""
    return (part.double() for part in torch.split(tensor.detach().reshape(-1), PART))


def _ends(tensor: Tensor) -> tuple[float, float]:
    """Give the least and the greatest value, NaN where there is one."""
    lows, highs = zip(*map(torch.aminmax, _parts(tensor)), strict=True)
    return float(torch.stack(lows).min()), float(torch.stack(highs).max())


def _scale(low: float, high: float) -> float:
    """Give what to divide by, so that no square leaves the range of double precision."""
    largest = max(-low, high)
    usual = SQUARABLE[0] < largest < SQUARABLE[1]
    return largest if math.isfinite(largest) and largest and not usual else 1.0


def _squares(tensor: Tensor, center: float, *, scale: float) -> float:
    """Sum the squares of the distances from `center`, in units of `scale`."""
    return sum(float((part / scale - center / scale).square().sum()) for part in _parts(tensor))


def _histogram(tensor: Tensor) -> tuple[int, ...]:
    """Count the finite values into equal bins from the least to the greatest of them."""
    finite = [part[part.isfinite()] for part in _parts(tensor)]
    ends = [_ends(part) for part in finite if part.numel()]
    if not ends:
        return (0,) * BINS
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    width = BINS / max(high / 2 - low / 2, 1e-290)  # halved, so that no difference overflows
    bins = (((part / 2 - low / 2) * width).clamp(max=BINS - 1).long() for part in finite)
    return tuple(torch.stack([torch.bincount(part, minlength=BINS) for part in bins]).sum(0).tolist())
