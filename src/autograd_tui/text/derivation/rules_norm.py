"""The chain rule of normalization and pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import product

from autograd_tui.text.derivation.input_gradient import InputGradient, Rule, whole
from autograd_tui.text.derivation.node_context import NodeContext, parsed, parsed_whole
from autograd_tui.text.derivation.small_tensor import Shape, SmallTensor, collected, exact_sum, filled, places
from autograd_tui.text.trace.expression import short_name


def batch_norm(scene: NodeContext) -> list[InputGradient]:
    """Derive by input, weight and bias, a channel at a time."""
    training = (scene.words("training") or scene.words("use_input_stats")) == "True"
    eps = 1e-5 if scene.words("eps") is None else parsed(scene.words("eps"))
    return _norm(scene, "channel", 2 if training else 0, eps)


def layer_norm(scene: NodeContext) -> list[InputGradient]:
    """Derive by input, weight and bias, a row at a time."""
    eps = 1e-5 if scene.words("eps") is None else parsed(scene.words("eps"))
    return _norm(scene, "row", 2, eps)


def _norm(scene: NodeContext, over: str, means: int, eps: float | None) -> list[InputGradient]:
    """Derive by input, weight and bias; `means`: 2 where mean and variance come from the input itself, else 0."""
    weight = _named(scene, "weight")
    lead = f"{weight} / sd" if scene.saved("weight") else "1 / sd"
    less = " - mean(u) - n × mean(u × n)" if means else ""
    inside = f"(u{less})" if less else "upstream"
    u = (f", u = upstream × {weight}" if scene.saved("weight") else ", u = upstream") if less else ""
    lead = "1 / sd" if less else lead
    rest = "each channel" if over == "channel" else "all rows"
    formulas = [
        f"n = (input - mean) / sd{'' if means else ', both as remembered'}: {lead} × {inside}{u}, a {over} at a time",
        f"upstream × n, added up over {rest}",
        f"upstream, added up over {rest}",
    ]
    known = _worked(scene, over, eps) if means and eps is not None and not scene.first else [None, None, None]
    inputs = scene.small(scene.saved("input"))
    scale = max(_gain(scene, over, eps), 1.0) if inputs and known[0] else 1.0
    top = (scene.upstream.largest if scene.upstream else 0.0) * scale * 10
    return [whole(scene, place, formulas[place], known[place], largest=top) for place in range(3)]


def _named(scene: NodeContext, role: str) -> str:
    given = [value for value in scene.op.inputs if value.role == role]
    return short_name(scene.trace, given[0]) if given and scene.alone else role


def _groups(shape: Shape, over: str, own: Shape) -> dict[Shape, list[Shape]]:
    """Sort a tensor's places into what is normalized together: a channel, or the trailing `own` dimensions."""
    groups: dict[Shape, list[Shape]] = {}
    for place in places(shape):
        key = (place[1],) if over == "channel" else place[: len(shape) - len(own)]
        groups.setdefault(key, []).append(place)
    return groups


def _own(scene: NodeContext, over: str, shape: Shape) -> Shape:
    """Give the shape of weight and bias."""
    weight = scene.saved("weight")
    return weight.stats.shape if weight else (shape[1],) if over == "channel" else shape[-1:]


def _gain(scene: NodeContext, over: str, eps: float | None) -> float:
    """Give the largest 1 / sd: what rounding is multiplied with."""
    inputs = scene.small(scene.saved("input"))
    if inputs is None or eps is None:
        return 1.0
    groups = _groups(inputs.shape, over, _own(scene, over, inputs.shape)).values()
    return max(1 / _spread([inputs.at(place) for place in group], eps)[1] for group in groups)


def _spread(values: list[float], eps: float) -> tuple[float, float]:
    average = exact_sum(values) / len(values)
    return average, math.sqrt(exact_sum((value - average) * (value - average) for value in values) / len(values) + eps)


def _worked(scene: NodeContext, over: str, eps: float) -> list[SmallTensor | None]:
    inputs, up = scene.small(scene.saved("input")), scene.upstream
    if inputs is None or up is None or len(inputs.shape) < 2 or not all(map(math.isfinite, inputs.values)):
        return [None, None, None]
    own = _own(scene, over, inputs.shape)
    weight = SmallTensor.of(scene.saved("weight")) or filled(own, 1.0)
    if len(weight.values) != math.prod(own):
        return [None, None, None]
    home = {place: _home(place, over, len(own)) for place in places(inputs.shape)}
    scaled = SmallTensor(inputs.shape, tuple(up.at(place) * weight.at(home[place]) for place in home))
    by_input: dict[Shape, float] = {}
    normal: dict[Shape, float] = {}
    for group in _groups(inputs.shape, over, own).values():
        by_input |= _group(inputs, scaled, group, eps, normal)
    return [
        collected(inputs.shape, iter(by_input.items())),
        collected(own, ((home[place], up.at(place) * normal[place]) for place in home)),
        collected(own, ((home[place], up.at(place)) for place in home)),
    ]


def _home(place: Shape, over: str, own: int) -> Shape:
    """Give the place in weight and bias that belongs to one of the input."""
    return (place[1],) if over == "channel" else place[len(place) - own :]


def _group(
    inputs: SmallTensor, scaled: SmallTensor, group: list[Shape], eps: float, normal: dict[Shape, float]
) -> dict[Shape, float]:
    """Derive what was normalized together, and note the normalized values in `normal`."""
    average, spread = _spread([inputs.at(place) for place in group], eps)
    normal |= {place: (inputs.at(place) - average) / spread for place in group}
    mean, tilt = _mean(map(scaled.at, group)), _mean(scaled.at(place) * normal[place] for place in group)
    return {place: (scaled.at(place) - mean - normal[place] * tilt) / spread for place in group}


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return exact_sum(listed) / len(listed)


NORMALIZATION_RULES: dict[str, Rule] = {
    "NativeBatchNormBackward0": batch_norm,
    "CudnnBatchNormBackward0": batch_norm,
    "NativeLayerNormBackward0": layer_norm,
}


Window = Callable[[Shape, Shape, Shape], list[range]]  # of an output place, in an output and an input of such sizes
GREATEST = "each gradient goes to the greatest value of its window, the others get 0"


def max_pool(scene: NodeContext) -> list[InputGradient]:
    """Send each gradient to the place that the node remembers."""
    up, chosen = scene.upstream, SmallTensor.of(scene.saved("result1"))
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


def greatest(scene: NodeContext) -> list[InputGradient]:
    """Say where the gradients go, for nodes whose places are not known here."""
    return [whole(scene, 0, GREATEST, None)]


def avg_pool(scene: NodeContext) -> list[InputGradient]:
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


def adaptive(scene: NodeContext) -> list[InputGradient]:
    """Share each gradient equally among its window, of whatever size that is."""

    def window(at: Shape, above: Shape, below: Shape) -> list[range]:
        return [
            range(here * size // many, -(-(here + 1) * size // many))
            for here, many, size in zip(at, above, below, strict=True)
        ]

    return [whole(scene, 0, "each value of a window gets an equal share of its gradient", _spread_out(scene, window))]


def _spread_out(scene: NodeContext, window: Window) -> SmallTensor | None:
    """Share every upstream value among its window."""
    up, below = scene.upstream, scene.op.grad_out[0] if scene.op.grad_out else None
    if up is None or below is None or scene.first or len(up.shape) < 2 or math.prod(below.stats.shape) > 64:
        return None
    shape, parts = below.stats.shape, []
    for at in places(up.shape):
        spots = list(product(*window(at[-2:], up.shape[-2:], shape[-2:])))
        parts += [((*at[:-2], *spot), up.at(at) / len(spots)) for spot in spots]
    return collected(shape, iter(parts))


POOLING_RULES: dict[str, Rule] = {
    "MaxPool2DWithIndicesBackward0": max_pool,
    "MaxPool3DWithIndicesBackward0": max_pool,
    "AdaptiveMaxPool2DBackward0": greatest,
    "AvgPool2DBackward0": avg_pool,
    "AdaptiveAvgPool2DBackward0": adaptive,
}
