"""The first value that is not finite of what an operation made, and what stood at its place in what went in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autograd_tui.engine.values.trace import NotFinite

Place = tuple[int, ...]


@torch.no_grad()
def first_not_finite(made: Tensor, given: Sequence[Tensor | None], *, output: int) -> list[NotFinite]:
    """Find the first NaN, or else the first infinity; nothing where all is finite.

    given: None for what is not known any more. output: which of the operation's results it is.
    """
    made = made.detach()
    nan, infinite = made.isnan(), made.isinf()
    many = int(nan.sum())
    if not many and not bool(infinite.any()):
        return []
    flat = int((nan if many else infinite).reshape(-1).to(torch.uint8).argmax())
    place = _place(flat, tuple(made.shape))
    values = tuple(None if each is None else _at(each.detach(), place, tuple(made.shape)) for each in given)
    return [NotFinite(output, place, float(made[place]), many, int(infinite.sum()), values)]


def _place(flat: int, shape: Place) -> Place:
    place = []
    for size in reversed(shape):
        flat, here = divmod(flat, size)
        place.append(here)
    return tuple(reversed(place))


def _at(tensor: Tensor, place: Place, shape: Place) -> float | None:
    """Look up one value, as broadcasting would; None where the tensor is not broadcast to the shape."""
    own, sizes = place[len(place) - tensor.dim() :], shape[len(shape) - tensor.dim() :]
    fits = tensor.dim() <= len(shape) and all(size in (1, each) for size, each in zip(tensor.shape, sizes, strict=True))
    if not fits or tensor.is_complex() or tensor.layout is not torch.strided:
        return None
    return float(tensor[tuple(at if size > 1 else 0 for size, at in zip(tensor.shape, own, strict=True))])
