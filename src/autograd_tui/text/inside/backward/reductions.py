"""The chain rule of sums and means."""

from __future__ import annotations

import math

from autograd_tui.text.equation import exact
from autograd_tui.text.inside.backward.part import MOST_LISTED, Part, Rule, listed, size
from autograd_tui.text.inside.backward.scene import Scene, parsed_whole
from autograd_tui.text.inside.small import Small, each, filled


def total(scene: Scene) -> list[Part]:
    """Derive a sum."""
    return [_shared(scene, "sum", f"d(sum)/d({_each(scene)}) = 1: each gets the gradient of its sum", 1)]


def mean(scene: Scene) -> list[Part]:
    """Derive a mean."""
    many = _averaged(scene)
    return [_shared(scene, "mean", f"d(mean)/d({_each(scene)}) = 1/{many}", many)]


def _each(scene: Scene) -> str:
    """Name any one of the values."""
    return f"each of {scene.name(0)}"


def _averaged(scene: Scene) -> int:
    """Count the values that went into each result."""
    below, above = scene.op.grad_out, scene.op.grad_in
    if not (below and above and below[0] and above[0] and above[0].stats.size):
        return 1
    return below[0].stats.size // above[0].stats.size


def _shared(scene: Scene, name: str, formula: str, many: int) -> Part:
    upstream, below = scene.upstream, scene.op.grad_out[0] if scene.op.grad_out else None
    known = _beside(scene, upstream, below.stats.shape) if upstream and below else None
    if known is None or below is None or math.prod(below.stats.shape) > 64:
        return Part(0, formula)
    if len(known.values) > 1:
        known = each(lambda up, _: up, known, filled(below.stats.shape)) or known
    result = each(lambda up, _: up / many, known, filled(below.stats.shape))
    up = listed(known) if len(known.values) <= MOST_LISTED else f"first value: {exact(known.values[0])}"
    worked = f"{up} × 1/{many}" if many > 1 else ""
    return Part(0, formula, result, worked, size=size(known, filled((), 1.0)))


def _beside(scene: Scene, upstream: Small, shape: tuple[int, ...]) -> Small | None:
    """Give the upstream the shape it would have had if the dimensions that were summed had stayed, with size 1."""
    if len(upstream.values) == 1:
        return Small((), upstream.values)
    dims = parsed_whole(scene.words("dim"))
    if dims is None:
        return upstream if len(upstream.shape) == len(shape) else None
    gone = {dim % len(shape) for dim in dims}
    kept = tuple(1 if dim in gone else size for dim, size in enumerate(shape))
    return upstream.reshaped(kept) if math.prod(kept) == len(upstream.values) else None


BACKWARD: dict[str, Rule] = {
    "SumBackward0": total,
    "SumBackward1": total,
    "MeanBackward0": mean,
    "MeanBackward1": mean,
}
