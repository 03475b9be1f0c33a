"""The chain rule of pooling: the greatest of each window, or its mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

from autograd_tui.text.inside.backward.part import Part, Rule, whole
from autograd_tui.text.inside.backward.scene import Scene, parsed_whole
from autograd_tui.text.inside.small import Shape, Small, collected, places

Window = Callable[[Shape, Shape, Shape], list[range]]  # of an output place, in an output and an input of such sizes
GREATEST = "each gradient goes to the greatest value of its window, the others get 0"


def max_pool(scene: Scene) -> list[Part]:
    """Send each gradient to the place that the node remembers."""
    up, chosen = scene.upstream, Small.of(scene.saved("result1"))
    below = scene.op.grad_out[0] if scene.op.grad_out else None
    result = None
    if up and chosen and below and not scene.first and math.prod(below.stats.shape) <= 64:
        sides = 2 if scene.op.name.startswith("MaxPool2D") else 3
        shape = below.stats.shape
        result = collected(
            shape,
            (((*at[:-sides], *_unravelled(int(chosen.at(at)), shape[-sides:])), up.at(at)) for at in places(up.shape)),
        )
    return [whole(scene, 0, GREATEST, result)]


def _unravelled(index: int, shape: Shape) -> Shape:
    place: list[int] = []
    for size in reversed(shape):
        index, here = divmod(index, size)
        place.insert(0, here)
    return tuple(place)


def greatest(scene: Scene) -> list[Part]:
    """Say where the gradients go, for nodes whose places are not known here."""
    return [whole(scene, 0, GREATEST, None)]


def avg_pool(scene: Scene) -> list[Part]:
    """Share each gradient equally among its window."""
    kernel, stride = parsed_whole(scene.words("kernel_size")), parsed_whole(scene.words("stride"))
    odd = scene.words("padding") not in (None, "0", "(0, 0)") or scene.words("ceil_mode") == "True"
    if kernel is None or odd or scene.words("divisor_override") not in (None, "None"):
        return [whole(scene, 0, "each gradient is shared by the values of its window", None)]
    sides = kernel * 2 if len(kernel) == 1 else kernel
    steps = sides if stride is None else stride * 2 if len(stride) == 1 else stride

    def window(at: Shape, _: Shape, __: Shape) -> list[range]:
        return [range(here * step, here * step + side) for here, step, side in zip(at, steps, sides, strict=True)]

    formula = f"each value of a window gets 1/{math.prod(sides)} of its gradient"
    return [whole(scene, 0, formula, _spread_out(scene, window))]


def adaptive(scene: Scene) -> list[Part]:
    """Share each gradient equally among its window, of whatever size that is."""

    def window(at: Shape, above: Shape, below: Shape) -> list[range]:
        return [
            range(here * size // many, -(-(here + 1) * size // many))
            for here, many, size in zip(at, above, below, strict=True)
        ]

    return [whole(scene, 0, "each value of a window gets an equal share of its gradient", _spread_out(scene, window))]


def _spread_out(scene: Scene, window: Window) -> Small | None:
    """Share every upstream value among its window."""
    up, below = scene.upstream, scene.op.grad_out[0] if scene.op.grad_out else None
    if up is None or below is None or scene.first or len(up.shape) < 2 or math.prod(below.stats.shape) > 64:
        return None
    shape, parts = below.stats.shape, []
    for at in places(up.shape):
        spots = list(product(*window(at[-2:], up.shape[-2:], shape[-2:])))
        parts += [((*at[:-2], *spot), up.at(at) / len(spots)) for spot in spots]
    return collected(shape, iter(parts))


BACKWARD: dict[str, Rule] = {
    "MaxPool2DWithIndicesBackward0": max_pool,
    "MaxPool3DWithIndicesBackward0": max_pool,
    "AdaptiveMaxPool2DBackward0": greatest,
    "AvgPool2DBackward0": avg_pool,
    "AdaptiveAvgPool2DBackward0": adaptive,
}
