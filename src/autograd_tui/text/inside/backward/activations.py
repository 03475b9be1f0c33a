"""The chain rule of activations: relu, sigmoid, tanh, gelu, silu, softmax and their like."""

from __future__ import annotations

import math

from autograd_tui.text.inside.backward.arithmetic import derivative, unary
from autograd_tui.text.inside.backward.part import Part, Rule, times, whole
from autograd_tui.text.inside.backward.scene import Scene, parsed_whole
from autograd_tui.text.inside.expression import differential, inner
from autograd_tui.text.inside.small import Small, each, summed_over


def sigmoid(x: float) -> float:
    """Compute it without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _silu(x: float) -> float:
    return sigmoid(x) * (1 + x * (1 - sigmoid(x)))


def _gelu(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2))) + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def gelu(scene: Scene) -> list[Part]:
    """Derive the exact gelu; of its tanh form only the formula is near."""
    name = scene.name(0)
    exact = scene.words("approximate") in (None, "none")
    said = f"Phi({name}) + {inner(name)} × phi({name}), Phi and phi of the normal distribution"
    local = each(_gelu, scene.small(scene.saved("self"))) if exact else None
    return [times(scene, 0, f"{derivative(f'gelu({name})', name)} = {said}{'' if exact else ', nearly'}", local, by="")]


def leaky_relu(scene: Scene) -> list[Part]:
    """Derive by its slope below 0."""
    name = inner(scene.name(0))
    slope = 0.01 if scene.words("negative_slope") is None else scene.number("negative_slope")
    known = scene.small(scene.saved("self"))
    local = None if slope is None else each(lambda x: 1.0 if x > 0 else slope, known)
    formula = f"d/{differential(name)} = 1 where {name} > 0, else {'its slope' if slope is None else slope}"
    return [times(scene, 0, formula, local, by="")]


def clipped(scene: Scene) -> list[Part]:
    """Derive hardtanh and relu6: 1 between two bounds."""
    name = inner(scene.name(0))
    call = scene.call.name.strip("_") if scene.call else ""
    bounds = (0.0, 6.0) if call == "relu6" else (-1.0, 1.0)
    low, high = (
        standard if scene.words(word) is None else scene.number(word)
        for word, standard in zip(("min_val", "max_val"), bounds, strict=True)
    )
    if low is None or high is None:
        return [Part(0, f"d/{differential(name)} = 1 between its bounds, else 0", by_value=True)]
    least, most = low, high
    local = each(lambda x: 1.0 if least < x < most else 0.0, scene.small(scene.saved("self")))
    return [times(scene, 0, f"d/{differential(name)} = 1 where {least:g} < {name} < {most:g}, else 0", local, by="")]


def softmax(scene: Scene) -> list[Part]:
    """Derive: each probability depends on all inputs of its row."""
    name, upstream = scene.name(0), scene.upstream
    made = scene.small(scene.saved("result"))
    sums = _sums(scene, each(lambda up, y: up * y, upstream, made))
    result = each(lambda up, y, total: y * (up - total), upstream, made, sums)
    return [whole(scene, 0, f"p = softmax({name}): p × (upstream - sum(upstream × p))", result)]


def log_softmax(scene: Scene) -> list[Part]:
    """Derive: each log probability depends on all inputs of its row."""
    name, upstream = scene.name(0), scene.upstream
    made = scene.small(scene.saved("result"))
    result = each(lambda up, y, total: up - math.exp(y) * total, upstream, made, _sums(scene, upstream))
    return [whole(scene, 0, f"p = softmax({name}): upstream - p × sum(upstream){_in_all(scene)}", result)]


def _in_all(scene: Scene) -> str:
    """Say what comes of it below a mean cross entropy that is itself the loss."""
    call, target = scene.call, next((value for value in scene.op.inputs if value.role == "target"), None)
    if call is None or call.name != "cross_entropy" or target is None or call.output[0].name != "loss":
        return ""
    odd = any(value.role == "weight" for value in call.inputs) or scene.number("label_smoothing")
    classes = "int" in target.stats.dtype and target.stats.min is not None and target.stats.min >= 0
    if odd or not classes or scene.words("reduction") not in (None, "mean"):
        return ""
    return f", in all (p - 1)/{target.stats.size} at the target's class, p/{target.stats.size} elsewhere"


def _sums(scene: Scene, tensor: Small | None) -> Small | None:
    """Add up along the dimension of a softmax."""
    dims = parsed_whole(scene.words("dim"))
    if dims is None and tensor and scene.call and scene.call.name == "cross_entropy":
        dims = (1 if len(tensor.shape) > 1 else 0,)
    if tensor is None or dims is None or scene.first:
        return None
    return summed_over(tensor, dims)


BACKWARD: dict[str, Rule] = {
    "ReluBackward0": unary("result", "relu({})", "1 where {} > 0, else 0", lambda y: 0.0 if y <= 0 else 1.0),
    "SigmoidBackward0": unary("result", "sigmoid({})", "y × (1 - y), y = sigmoid", lambda y: y * (1 - y)),
    "TanhBackward0": unary("result", "tanh({})", "1 - tanh({1})^2", lambda y: 1 - y * y),
    "SiluBackward0": unary("self", "silu({0})", "s × (1 + {0} × (1 - s)), s = sigmoid", _silu),
    "GeluBackward0": gelu,
    "LeakyReluBackward0": leaky_relu,
    "HardtanhBackward0": clipped,
    "SoftmaxBackward0": softmax,
    "LogSoftmaxBackward0": log_softmax,
}
