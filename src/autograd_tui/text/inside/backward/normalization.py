"""The chain rule of batch norm and layer norm."""

from __future__ import annotations

import math
from collections.abc import Iterable

from autograd_tui.text.inside.backward.part import Part, Rule, whole
from autograd_tui.text.inside.backward.scene import Scene, parsed
from autograd_tui.text.inside.expression import short_name
from autograd_tui.text.inside.small import Shape, Small, collected, exact_sum, filled, places


def batch_norm(scene: Scene) -> list[Part]:
    """Derive by input, weight and bias, a channel at a time."""
    training = (scene.words("training") or scene.words("use_input_stats")) == "True"
    eps = 1e-5 if scene.words("eps") is None else parsed(scene.words("eps"))
    return _norm(scene, "channel", 2 if training else 0, eps)


def layer_norm(scene: Scene) -> list[Part]:
    """Derive by input, weight and bias, a row at a time."""
    eps = 1e-5 if scene.words("eps") is None else parsed(scene.words("eps"))
    return _norm(scene, "row", 2, eps)


def _norm(scene: Scene, over: str, means: int, eps: float | None) -> list[Part]:
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


def _named(scene: Scene, role: str) -> str:
    given = [value for value in scene.op.inputs if value.role == role]
    return short_name(scene.trace, given[0]) if given and scene.alone else role


def _groups(shape: Shape, over: str, own: Shape) -> dict[Shape, list[Shape]]:
    """Sort a tensor's places into what is normalized together: a channel, or the trailing `own` dimensions."""
    groups: dict[Shape, list[Shape]] = {}
    for place in places(shape):
        key = (place[1],) if over == "channel" else place[: len(shape) - len(own)]
        groups.setdefault(key, []).append(place)
    return groups


def _own(scene: Scene, over: str, shape: Shape) -> Shape:
    """Give the shape of weight and bias."""
    weight = scene.saved("weight")
    return weight.stats.shape if weight else (shape[1],) if over == "channel" else shape[-1:]


def _gain(scene: Scene, over: str, eps: float | None) -> float:
    """Give the largest 1 / sd: what rounding is multiplied with."""
    inputs = scene.small(scene.saved("input"))
    if inputs is None or eps is None:
        return 1.0
    groups = _groups(inputs.shape, over, _own(scene, over, inputs.shape)).values()
    return max(1 / _spread([inputs.at(place) for place in group], eps)[1] for group in groups)


def _spread(values: list[float], eps: float) -> tuple[float, float]:
    average = exact_sum(values) / len(values)
    return average, math.sqrt(exact_sum((value - average) * (value - average) for value in values) / len(values) + eps)


def _worked(scene: Scene, over: str, eps: float) -> list[Small | None]:
    inputs, up = scene.small(scene.saved("input")), scene.upstream
    if inputs is None or up is None or len(inputs.shape) < 2 or not all(map(math.isfinite, inputs.values)):
        return [None, None, None]
    own = _own(scene, over, inputs.shape)
    weight = Small.of(scene.saved("weight")) or filled(own, 1.0)
    if len(weight.values) != math.prod(own):
        return [None, None, None]
    home = {place: _home(place, over, len(own)) for place in places(inputs.shape)}
    scaled = Small(inputs.shape, tuple(up.at(place) * weight.at(home[place]) for place in home))
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
    inputs: Small, scaled: Small, group: list[Shape], eps: float, normal: dict[Shape, float]
) -> dict[Shape, float]:
    """Derive what was normalized together, and note the normalized values in `normal`."""
    average, spread = _spread([inputs.at(place) for place in group], eps)
    normal |= {place: (inputs.at(place) - average) / spread for place in group}
    mean, tilt = _mean(map(scaled.at, group)), _mean(scaled.at(place) * normal[place] for place in group)
    return {place: (scaled.at(place) - mean - normal[place] * tilt) / spread for place in group}


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return exact_sum(listed) / len(listed)


BACKWARD: dict[str, Rule] = {
    "NativeBatchNormBackward0": batch_norm,
    "CudnnBatchNormBackward0": batch_norm,
    "NativeLayerNormBackward0": layer_norm,
}
