"""Finds the first NaN or infinity in a result of an operation, and what went in there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autograd_tui.core.trace import NonFinite

Index = tuple[int, ...]


@torch.no_grad()
def first_nonfinite(result: Tensor, inputs: Sequence[Tensor | None], *, output: int) -> list[NonFinite]:
    """Return the first NaN of a result, or else the first infinity; [] where all is finite.

    `inputs`: of the operation, None for one that is gone. `output`: the index of `result` among its results.
    """
    result = result.detach()
    nan, infinite = result.isnan(), result.isinf()
    nans, infinities = int(torch.count_nonzero(nan)), int(torch.count_nonzero(infinite))
    if not nans and not infinities:
        return []
    flat = int((nan if nans else infinite).cpu().numpy().argmax())  # NumPy's stops at the first that is true
    index = _unravelled(flat, tuple(result.shape))
    shape = tuple(result.shape)
    values = tuple(None if each is None else _broadcast_value(each.detach(), index, shape) for each in inputs)
    return [NonFinite(output, index, float(result[index]), nans, infinities, values)]


def _unravelled(flat: int, shape: Index) -> Index:
    index = []
    for size in reversed(shape):
        flat, last = divmod(flat, size)
        index.append(last)
    return tuple(reversed(index))


def _broadcast_value(tensor: Tensor, index: Index, shape: Index) -> float | None:
    """Return the value at `index` of the tensor broadcast to `shape`; None where it cannot be."""
    own, sizes = index[len(index) - tensor.dim() :], shape[len(shape) - tensor.dim() :]
    fits = tensor.dim() <= len(shape) and all(size in (1, each) for size, each in zip(tensor.shape, sizes, strict=True))
    if not fits or tensor.is_complex() or tensor.layout is not torch.strided:
        return None
    return float(tensor[tuple(at if size > 1 else 0 for size, at in zip(tensor.shape, own, strict=True))])
