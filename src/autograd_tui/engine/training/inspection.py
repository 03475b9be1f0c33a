"""Exact statistics of a parameter of any size, in double precision; nothing is changed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from autograd_tui.core.tensor_stats import HISTOGRAM_BINS, MAX_LISTED_VALUES, Inspection, TensorStats
from autograd_tui.engine.training.stats_reader import to_host
from autograd_tui.engine.training.tensor_properties import (
    SPARSE,
    as_real_floats,
    is_measurable,
    is_number_or_tensor,
    shape_of,
    stored_values,
)

CHUNK_SIZE = 1 << 17  # values made double at a time: few enough for the processor's cache
SQUARE_RANGE = (1e-140, 1e140)  # absolute values whose squares double precision holds
VELOCITY_KEYS = ("momentum_buffer", "exp_avg")


@torch.no_grad()
def inspect(name: str, param: Tensor, *, state: Mapping[str, Any], index: int) -> Inspection:
    """Return the statistics of a parameter, its gradient and its optimizer state, with one copy to the host.

    `state`: the parameter's entry in the optimizer's state. `index`: of the frame.
    """
    named = {"value": param, "grad": param.grad}
    named |= {f"state.{key}": torch.as_tensor(value) for key, value in state.items() if is_number_or_tensor(value)}
    tensors = {key: tensor for key, tensor in named.items() if tensor is not None}
    tensors |= {key: tensor.cpu() for key, tensor in tensors.items() if tensor.layout in SPARSE}
    dense = [key for key, tensor in tensors.items() if is_measurable(tensor) and tensor.layout not in SPARSE]
    tensors |= dict(zip(dense, to_host([tensors[key] for key in dense]), strict=True))
    rows = {key: exact_row(key.removeprefix("state."), tensor) for key, tensor in tensors.items()}
    velocity = next((f"state.{key}" for key in VELOCITY_KEYS if f"state.{key}" in tensors), "")
    pair = [key for key in (velocity, "grad") if key in tensors]
    return Inspection(
        name,
        index,
        rows["value"],
        rows.get("grad"),
        tuple(row for key, row in rows.items() if key.startswith("state.")),
        cosine(*(tensors[key] for key in pair), norms=[rows[key].norm for key in pair]) if len(pair) == 2 else None,
    )


def exact_row(name: str, tensor: Tensor) -> TensorStats:
    """Return the statistics of a tensor on the host; those that its dtype or size cannot have are None."""
    shape, dtype = shape_of(tensor), str(tensor.dtype).removeprefix("torch.")
    if not is_measurable(tensor):
        return TensorStats(name, shape, dtype)
    if tensor.is_complex() or tensor.layout in SPARSE:
        return _short_row(TensorStats(name, shape, dtype), tensor)
    minimum, maximum = _bounds(tensor)
    scale = _scale(minimum, maximum)
    mean = sum(float((chunk / scale).sum()) for chunk in _chunks(tensor)) / tensor.numel() * scale
    all_listed = tensor.numel() <= MAX_LISTED_VALUES
    return TensorStats(
        name,
        shape,
        dtype,
        norm=math.sqrt(_squares(tensor, 0.0, scale=scale)) * scale,
        min=minimum,
        max=maximum,
        nonfinite=sum(int((~chunk.isfinite()).sum()) for chunk in _chunks(tensor)),
        mean=mean,
        std=math.sqrt(_squares(tensor, mean, scale=scale) / tensor.numel()) * scale,
        values=tuple(tensor.double().reshape(-1).tolist()) if all_listed else None,
        histogram=None if all_listed else _histogram(tensor),
    )


def _short_row(row: TensorStats, tensor: Tensor) -> TensorStats:
    """Return `row` with what a complex or sparse tensor has: of a sparse one, that of its stored values."""
    values = stored_values(tensor.detach())
    plain = as_real_floats(values)
    minimum, maximum = _bounds(plain) if values.numel() else (0.0, 0.0)
    scale = _scale(minimum, maximum)
    return replace(
        row,
        norm=math.sqrt(_squares(plain, 0.0, scale=scale)) * scale,
        min=None if tensor.is_complex() else minimum,
        max=None if tensor.is_complex() else maximum,
        nonfinite=int((~values.isfinite()).sum()),
        stored=values.numel() if tensor.layout in SPARSE else None,
    )


def cosine(one: Tensor, other: Tensor, *, norms: Sequence[float | None]) -> float | None:
    """Return the cosine of the angle between two tensors of known norms; None where they have none."""
    a, b = (norm or 0.0 for norm in norms)
    comparable = one.layout is other.layout is torch.strided and one.shape == other.shape
    if not comparable or not (0 < a < math.inf and 0 < b < math.inf):
        return None
    pairs = zip(_chunks(as_real_floats(one)), _chunks(as_real_floats(other)), strict=True)
    return max(-1.0, min(1.0, sum(float(torch.dot(x / a, y / b)) for x, y in pairs)))


def _chunks(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the values in double precision, a chunk at a time: (up to CHUNK_SIZE,)."""
    return (chunk.double() for chunk in torch.split(tensor.detach().reshape(-1), CHUNK_SIZE))


def _bounds(tensor: Tensor) -> tuple[float, float]:
    """Return the minimum and the maximum, NaN where a value is."""
    lows, highs = zip(*map(torch.aminmax, _chunks(tensor)), strict=True)
    return float(torch.stack(lows).min()), float(torch.stack(highs).max())


def _scale(minimum: float, maximum: float) -> float:
    """Return a divisor that keeps all squares in the range of double precision, mostly 1."""
    largest = max(-minimum, maximum)
    is_usual = SQUARE_RANGE[0] < largest < SQUARE_RANGE[1]
    return largest if math.isfinite(largest) and largest and not is_usual else 1.0


def _squares(tensor: Tensor, center: float, *, scale: float) -> float:
    """Return the sum of the squared distances from `center`, in units of `scale`."""
    return sum(float((chunk / scale - center / scale).square().sum()) for chunk in _chunks(tensor))


def _histogram(tensor: Tensor) -> tuple[int, ...]:
    """Return the counts of the finite values in HISTOGRAM_BINS equal bins from their minimum to their maximum."""
    finite = [chunk[chunk.isfinite()] for chunk in _chunks(tensor)]
    bounds = [_bounds(chunk) for chunk in finite if chunk.numel()]
    if not bounds:
        return (0,) * HISTOGRAM_BINS
    low, high = min(each[0] for each in bounds), max(each[1] for each in bounds)
    scale = HISTOGRAM_BINS / max(high / 2 - low / 2, 1e-290)  # halved, so that no difference overflows
    bins = (((chunk / 2 - low / 2) * scale).clamp(max=HISTOGRAM_BINS - 1).long() for chunk in finite)
    return tuple(torch.stack([torch.bincount(chunk, minlength=HISTOGRAM_BINS) for chunk in bins]).sum(0).tolist())
