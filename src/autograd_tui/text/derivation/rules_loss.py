"""The chain rule of sums, means and loss functions."""

from __future__ import annotations

import math

from autograd_tui.core.trace import Value
from autograd_tui.text.derivation.input_gradient import MOST_LISTED, InputGradient, Rule, listed, size, times
from autograd_tui.text.derivation.node_context import NodeContext, parsed_whole
from autograd_tui.text.derivation.rules_elementwise import sigmoid
from autograd_tui.text.derivation.small_tensor import SmallTensor, each, filled, places
from autograd_tui.text.equation import exact
from autograd_tui.text.trace.expression import differential


def total(scene: NodeContext) -> list[InputGradient]:
    """Derive a sum."""
    return [_shared(scene, "sum", f"d(sum)/d({_each(scene)}) = 1: each gets the gradient of its sum", 1)]


def mean(scene: NodeContext) -> list[InputGradient]:
    """Derive a mean."""
    many = _averaged(scene)
    return [_shared(scene, "mean", f"d(mean)/d({_each(scene)}) = 1/{many}", many)]


def _each(scene: NodeContext) -> str:
    """Name any one of the values."""
    return f"each of {scene.name(0)}"


def _averaged(scene: NodeContext) -> int:
    """Count the values that went into each result."""
    below, above = scene.op.grad_out, scene.op.grad_in
    if not (below and above and below[0] and above[0] and above[0].stats.size):
        return 1
    return below[0].stats.size // above[0].stats.size


def _shared(scene: NodeContext, name: str, formula: str, many: int) -> InputGradient:
    upstream, below = scene.upstream, scene.op.grad_out[0] if scene.op.grad_out else None
    known = _beside(scene, upstream, below.stats.shape) if upstream and below else None
    if known is None or below is None or math.prod(below.stats.shape) > 64:
        return InputGradient(0, formula)
    if len(known.values) > 1:
        known = each(lambda up, _: up, known, filled(below.stats.shape)) or known
    result = each(lambda up, _: up / many, known, filled(below.stats.shape))
    up = listed(known) if len(known.values) <= MOST_LISTED else f"first value: {exact(known.values[0])}"
    worked = f"{up} × 1/{many}" if many > 1 else ""
    return InputGradient(0, formula, result, worked, size=size(known, filled((), 1.0)))


def _beside(scene: NodeContext, upstream: SmallTensor, shape: tuple[int, ...]) -> SmallTensor | None:
    """Give the upstream the shape it would have had if the dimensions that were summed had stayed, with size 1."""
    if len(upstream.values) == 1:
        return SmallTensor((), upstream.values)
    dims = parsed_whole(scene.words("dim"))
    if dims is None:
        return upstream if len(upstream.shape) == len(shape) else None
    gone = {dim % len(shape) for dim in dims}
    kept = tuple(1 if dim in gone else size for dim, size in enumerate(shape))
    return upstream.reshaped(kept) if math.prod(kept) == len(upstream.values) else None


REDUCTION_RULES: dict[str, Rule] = {
    "SumBackward0": total,
    "SumBackward1": total,
    "MeanBackward0": mean,
    "MeanBackward1": mean,
}


def _divisor(scene: NodeContext, value: Value | None) -> tuple[float | None, str]:
    """Give what a loss over so many values is divided by, as a number and as a reader writes it."""
    reduction = scene.words("reduction") or "mean"
    if reduction in ("sum", "none"):
        return 1.0, ""
    if reduction != "mean" or value is None:
        return None, " / n"
    return float(value.stats.size), f" / {value.stats.size}"


def mse(scene: NodeContext) -> list[InputGradient]:
    """Derive the mean squared error by prediction and target."""
    made, wanted = scene.saved("self"), scene.saved("target")
    names = scene.name(0), scene.name(1)
    many, over = _divisor(scene, made)
    error = each(lambda a, b: 2 * (a - b) / many, scene.small(made), scene.small(wanted)) if many else None
    turned = each(lambda e: -e, error)
    return [
        times(scene, 0, f"dloss/{differential(names[0])} = 2 × ({names[0]} - {names[1]}){over}", error, by=""),
        times(scene, 1, f"dloss/{differential(names[1])} = -2 × ({names[0]} - {names[1]}){over}", turned, by=""),
    ]


def binary(scene: NodeContext) -> list[InputGradient]:
    """Derive binary_cross_entropy_with_logits by its logits."""
    made, wanted = scene.saved("self"), scene.saved("target")
    weighted = scene.saved("weight") or scene.saved("pos_weight")
    names = scene.name(0), scene.name(1)
    many, over = _divisor(scene, made)
    known = scene.small(made), scene.small(wanted)
    local = each(lambda x, y: (sigmoid(x) - y) / many, *known) if many and not weighted else None
    formula = f"dloss/{differential(names[0])} = (sigmoid({names[0]}) - {names[1]}){over}"
    return [times(scene, 0, formula + ", weighted" * bool(weighted), local, by="")]


def nll(scene: NodeContext) -> list[InputGradient]:
    """Derive the negative log likelihood by the log probabilities."""
    made, target = scene.small(scene.saved("self")), scene.small(scene.saved("target"))
    weighted, reduction = scene.saved("weight"), scene.words("reduction") or "mean"
    local = None if made is None or target is None or weighted or scene.first else _hits(scene, made, target, reduction)
    share = {"mean": f"-1/{_targets(scene)}", "sum": "-1", "none": "-1"}.get(reduction, "-1 × a share")
    said = f"{share}{', by class weight,' * bool(weighted)} at each target's class, 0 elsewhere"
    part = times(scene, 0, f"dloss/d(log p) = {said}", local, by="")
    upstream = scene.upstream
    if reduction == "none" and upstream and len(upstream.values) > 1:  # one a target: not yet beside the classes
        return [InputGradient(0, part.formula)]
    return [part]


def _targets(scene: NodeContext) -> str:
    """Count the targets, of which those that are to be ignored do not count."""
    target = scene.saved("target")
    counts = target is not None and target.stats.min is not None and target.stats.min >= 0
    return str(target.stats.size) if target and counts else "n"


def _hits(scene: NodeContext, made: SmallTensor, target: SmallTensor, reduction: str) -> SmallTensor | None:
    ignored = -100.0 if scene.words("ignore_index") is None else scene.number("ignore_index")
    counted = [each for each in target.values if each != ignored]
    share = -1 / len(counted) if reduction == "mean" and counted else -1.0
    if reduction not in ("mean", "sum", "none"):
        return None
    side = 1 if len(made.shape) > 1 else 0  # the dimension of the classes

    def hit(place: tuple[int, ...]) -> float:
        wanted = target.at((*place[:side], *place[side + 1 :]))
        return share if place[side] == wanted != ignored else 0.0

    return SmallTensor(made.shape, tuple(hit(place) for place in places(made.shape)))


LOSS_RULES: dict[str, Rule] = {
    "MseLossBackward0": mse,
    "NllLossBackward0": nll,
    "NllLoss2DBackward0": nll,
    "BinaryCrossEntropyWithLogitsBackward0": binary,
}
