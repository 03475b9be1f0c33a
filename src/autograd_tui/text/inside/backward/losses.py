"""The chain rule of loss functions: mse_loss, nll_loss (cross_entropy's second half), binary cross entropy."""

from __future__ import annotations

from autograd_tui.engine.values.trace import Value
from autograd_tui.text.inside.backward.activations import sigmoid
from autograd_tui.text.inside.backward.part import Part, Rule, times
from autograd_tui.text.inside.backward.scene import Scene
from autograd_tui.text.inside.expression import differential
from autograd_tui.text.inside.small import Small, each, places


def _divisor(scene: Scene, value: Value | None) -> tuple[float | None, str]:
    """Give what a loss over so many values is divided by, as a number and as a reader writes it."""
    reduction = scene.words("reduction") or "mean"
    if reduction in ("sum", "none"):
        return 1.0, ""
    if reduction != "mean" or value is None:
        return None, " / n"
    return float(value.stats.size), f" / {value.stats.size}"


def mse(scene: Scene) -> list[Part]:
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


def binary(scene: Scene) -> list[Part]:
    """Derive binary_cross_entropy_with_logits by its logits."""
    made, wanted = scene.saved("self"), scene.saved("target")
    weighted = scene.saved("weight") or scene.saved("pos_weight")
    names = scene.name(0), scene.name(1)
    many, over = _divisor(scene, made)
    known = scene.small(made), scene.small(wanted)
    local = each(lambda x, y: (sigmoid(x) - y) / many, *known) if many and not weighted else None
    formula = f"dloss/{differential(names[0])} = (sigmoid({names[0]}) - {names[1]}){over}"
    return [times(scene, 0, formula + ", weighted" * bool(weighted), local, by="")]


def nll(scene: Scene) -> list[Part]:
    """Derive the negative log likelihood by the log probabilities."""
    made, target = scene.small(scene.saved("self")), scene.small(scene.saved("target"))
    weighted, reduction = scene.saved("weight"), scene.words("reduction") or "mean"
    local = None if made is None or target is None or weighted or scene.first else _hits(scene, made, target, reduction)
    share = {"mean": f"-1/{_targets(scene)}", "sum": "-1", "none": "-1"}.get(reduction, "-1 × a share")
    said = f"{share}{', by class weight,' * bool(weighted)} at each target's class, 0 elsewhere"
    part = times(scene, 0, f"dloss/d(log p) = {said}", local, by="")
    upstream = scene.upstream
    if reduction == "none" and upstream and len(upstream.values) > 1:  # one a target: not yet beside the classes
        return [Part(0, part.formula)]
    return [part]


def _targets(scene: Scene) -> str:
    """Count the targets, of which those that are to be ignored do not count."""
    target = scene.saved("target")
    counts = target is not None and target.stats.min is not None and target.stats.min >= 0
    return str(target.stats.size) if target and counts else "n"


def _hits(scene: Scene, made: Small, target: Small, reduction: str) -> Small | None:
    ignored = -100.0 if scene.words("ignore_index") is None else scene.number("ignore_index")
    counted = [each for each in target.values if each != ignored]
    share = -1 / len(counted) if reduction == "mean" and counted else -1.0
    if reduction not in ("mean", "sum", "none"):
        return None
    side = 1 if len(made.shape) > 1 else 0  # the dimension of the classes

    def hit(place: tuple[int, ...]) -> float:
        wanted = target.at((*place[:side], *place[side + 1 :]))
        return share if place[side] == wanted != ignored else 0.0

    return Small(made.shape, tuple(hit(place) for place in places(made.shape)))


BACKWARD: dict[str, Rule] = {
    "MseLossBackward0": mse,
    "NllLossBackward0": nll,
    "NllLoss2DBackward0": nll,
    "BinaryCrossEntropyWithLogitsBackward0": binary,
}
