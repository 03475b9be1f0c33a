"""The chain rule of functions that work value by value: arithmetic, activations, powers."""

from __future__ import annotations

import math
from collections.abc import Callable

from autograd_tui.text.derivation.input_gradient import InputGradient, Rule, listed, scaled, times, whole
from autograd_tui.text.derivation.node_context import NodeContext, parsed_whole
from autograd_tui.text.derivation.small_tensor import SmallTensor, each, logarithm, power, quotient, summed_over, wave
from autograd_tui.text.numbers import terse
from autograd_tui.text.trace.expression import differential, inner, tight


def derivative(of: str, by: str) -> str:
    """Write what is derived by what: d(w × x)/dw."""
    return f"d({of})/{differential(by)}"


def both(scene: NodeContext) -> tuple[str, str]:
    """Name the two operands; the two sides of one tensor apart."""
    left, right = scene.name(0), scene.name(1)
    return (f"left {left}", f"right {right}") if left == right else (left, right)


def add(scene: NodeContext) -> list[InputGradient]:
    """Derive left + right."""
    return _sum(scene, "+", _alpha(scene))


def sub(scene: NodeContext) -> list[InputGradient]:
    """Derive left - right."""
    alpha = _alpha(scene)
    return _sum(scene, "-", None if alpha is None else -alpha)


def _alpha(scene: NodeContext) -> float | None:
    """Give what the second operand of a sum is multiplied with; 1 unless the call says otherwise."""
    return 1.0 if scene.words("alpha") is None else scene.number("alpha")


def _sum(scene: NodeContext, sign: str, by: float | None) -> list[InputGradient]:
    left, right = both(scene)
    factor = "" if by is None or abs(by) == 1 else f"{terse(abs(by))} × "
    of = f"{left} {sign} {factor}{inner(right)}"
    parts = [scaled(scene, 0, f"{derivative(of, left)} = 1", 1.0)]
    if by is None:
        return [*parts, InputGradient(1, f"d/{differential(right)} = {sign}alpha", by_value=True)]
    return [*parts, scaled(scene, 1, f"{derivative(of, right)} = {terse(by)}", by)]


def rsub(scene: NodeContext) -> list[InputGradient]:
    """Derive other - self, of which self comes first."""
    by = _alpha(scene)
    own, other = both(scene)
    of = f"{inner(other)} - {inner(own)}"
    minus = f"{derivative(of, own)} = -1" if by in (None, 1) else f"d/{differential(own)} = {terse(-(by or 0))}"
    parts = [scaled(scene, 0, minus, None if by is None else -by)]
    return [*parts, scaled(scene, 1, f"{derivative(of, other)} = 1", 1.0)]


def mul(scene: NodeContext) -> list[InputGradient]:
    """Derive left × right; dropout is a product with its mask."""
    if scene.call and "dropout" in scene.call.name:
        formula = "dropout: 0 for what was dropped, 1 / (1 - p) for the rest"
        return [times(scene, 0, formula, scene.factor("other", 1), by="")]
    left, right = both(scene)
    of = f"{inner(left)} × {inner(right)}"
    return [
        times(scene, 0, f"{derivative(of, left)} = {right}", scene.factor("other", 1)),
        times(scene, 1, f"{derivative(of, right)} = {left}", scene.factor("self", 0)),
    ]


def div(scene: NodeContext) -> list[InputGradient]:
    """Derive left / right."""
    left, right = both(scene)
    of, top, bottom = f"{inner(left)} / {tight(right)}", scene.factor("self", 0), scene.factor("other", 1)
    return [
        times(scene, 0, f"{derivative(of, left)} = 1 / {tight(right)}", each(lambda b: quotient(1, b), bottom), by=""),
        times(
            scene,
            1,
            f"{derivative(of, right)} = -{inner(left)} / {tight(right)}^2",
            each(lambda a, b: quotient(-a, b * b), top, bottom),
            by="",
        ),
    ]


def unary(role: str, of: str, local: str, function: Callable[[float], float]) -> Rule:
    """Make the rule of a function of one number; `role`: what its node saved, of which `function` is taken."""

    def rule(scene: NodeContext) -> list[InputGradient]:
        name = scene.name(0)
        formula = f"{derivative(of.format(name), name)} = {local.format(tight(name), name)}"
        saved = scene.saved(role) or (scene.given(0) if role == "self" else None)
        return [times(scene, 0, formula, each(function, scene.small(saved)), by="")]

    return rule


def neg(scene: NodeContext) -> list[InputGradient]:
    """Derive -x."""
    name = inner(scene.name(0))
    return [scaled(scene, 0, f"{derivative(f'-{name}', name)} = -1", -1.0)]


ARITHMETIC_RULES: dict[str, Rule] = {
    "AddBackward0": add,
    "SubBackward0": sub,
    "RsubBackward0": rsub,
    "RsubBackward1": rsub,
    "MulBackward0": mul,
    "DivBackward0": div,
    "NegBackward0": neg,
    "ReciprocalBackward0": unary("result", "1 / {}", "-1 / {}^2", lambda y: -y * y),
    "ExpBackward0": unary("result", "exp({})", "exp({1})", lambda y: y),
    "LogBackward0": unary("self", "log({})", "1 / {}", lambda x: quotient(1, x)),
    "SqrtBackward0": unary("result", "sqrt({})", "1 / (2 × sqrt({1}))", lambda y: quotient(0.5, y)),
    "RsqrtBackward0": unary("result", "1 / sqrt({})", "-1/2 × {}^-1.5", lambda y: -0.5 * y * y * y),
    "AbsBackward0": unary("self", "|{}|", "its sign", lambda x: (x > 0) - (x < 0)),
    "SinBackward0": unary("self", "sin({})", "cos({1})", lambda x: wave(math.cos, x)),
    "CosBackward0": unary("self", "cos({})", "-sin({1})", lambda x: -wave(math.sin, x)),
}


def sigmoid(x: float) -> float:
    """Compute it without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _silu(x: float) -> float:
    return sigmoid(x) * (1 + x * (1 - sigmoid(x)))


def _gelu(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2))) + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def gelu(scene: NodeContext) -> list[InputGradient]:
    """Derive the exact gelu; of its tanh form only the formula is near."""
    name = scene.name(0)
    exact = scene.words("approximate") in (None, "none")
    said = f"Phi({name}) + {inner(name)} × phi({name}), Phi and phi of the normal distribution"
    local = each(_gelu, scene.small(scene.saved("self"))) if exact else None
    return [times(scene, 0, f"{derivative(f'gelu({name})', name)} = {said}{'' if exact else ', nearly'}", local, by="")]


def leaky_relu(scene: NodeContext) -> list[InputGradient]:
    """Derive by its slope below 0."""
    name = inner(scene.name(0))
    slope = 0.01 if scene.words("negative_slope") is None else scene.number("negative_slope")
    known = scene.small(scene.saved("self"))
    local = None if slope is None else each(lambda x: 1.0 if x > 0 else slope, known)
    formula = f"d/{differential(name)} = 1 where {name} > 0, else {'its slope' if slope is None else slope}"
    return [times(scene, 0, formula, local, by="")]


def clipped(scene: NodeContext) -> list[InputGradient]:
    """Derive hardtanh and relu6: 1 between two bounds."""
    name = inner(scene.name(0))
    call = scene.call.name.strip("_") if scene.call else ""
    bounds = (0.0, 6.0) if call == "relu6" else (-1.0, 1.0)
    low, high = (
        standard if scene.words(word) is None else scene.number(word)
        for word, standard in zip(("min_val", "max_val"), bounds, strict=True)
    )
    if low is None or high is None:
        return [InputGradient(0, f"d/{differential(name)} = 1 between its bounds, else 0", by_value=True)]
    least, most = low, high
    local = each(lambda x: 1.0 if least < x < most else 0.0, scene.small(scene.saved("self")))
    return [times(scene, 0, f"d/{differential(name)} = 1 where {least:g} < {name} < {most:g}, else 0", local, by="")]


def softmax(scene: NodeContext) -> list[InputGradient]:
    """Derive: each probability depends on all inputs of its row."""
    name, upstream = scene.name(0), scene.upstream
    made = scene.small(scene.saved("result"))
    sums = _sums(scene, each(lambda up, y: up * y, upstream, made))
    result = each(lambda up, y, total: y * (up - total), upstream, made, sums)
    return [whole(scene, 0, f"p = softmax({name}): p × (upstream - sum(upstream × p))", result)]


def log_softmax(scene: NodeContext) -> list[InputGradient]:
    """Derive: each log probability depends on all inputs of its row."""
    name, upstream = scene.name(0), scene.upstream
    made = scene.small(scene.saved("result"))
    result = each(lambda up, y, total: up - math.exp(y) * total, upstream, made, _sums(scene, upstream))
    return [whole(scene, 0, f"p = softmax({name}): upstream - p × sum(upstream){_in_all(scene)}", result)]


def _in_all(scene: NodeContext) -> str:
    """Say what comes of it below a mean cross entropy that is itself the loss."""
    call, target = scene.call, next((value for value in scene.op.inputs if value.role == "target"), None)
    if call is None or call.name != "cross_entropy" or target is None or call.output[0].name != "loss":
        return ""
    odd = any(value.role == "weight" for value in call.inputs) or scene.number("label_smoothing")
    classes = "int" in target.stats.dtype and target.stats.min is not None and target.stats.min >= 0
    if odd or not classes or scene.words("reduction") not in (None, "mean"):
        return ""
    return f", in all (p - 1)/{target.stats.size} at the target's class, p/{target.stats.size} elsewhere"


def _sums(scene: NodeContext, tensor: SmallTensor | None) -> SmallTensor | None:
    """Add up along the dimension of a softmax."""
    dims = parsed_whole(scene.words("dim"))
    if dims is None and tensor and scene.call and scene.call.name == "cross_entropy":
        dims = (1 if len(tensor.shape) > 1 else 0,)
    if tensor is None or dims is None or scene.first:
        return None
    return summed_over(tensor, dims)


ACTIVATION_RULES: dict[str, Rule] = {
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


def power_of_number(scene: NodeContext) -> list[InputGradient]:
    """Derive base^n by its base, n a number."""
    base = tight(scene.name(0))
    n = 2.0 if scene.call and scene.call.name in ("square", "square_") else scene.number("exponent")
    if n is None:
        return [InputGradient(0, f"{derivative(f'{base}^n', base)} = n × {base}^(n - 1)", by_value=True)]
    lowered = {1.0: "1", 2.0: f"2 × {base}"}.get(n, f"{terse(n)} × {base}^{terse(n - 1)}")
    known = scene.factor("self", 0)
    local = each(lambda a: n * power(a, n - 1) if n else 0.0, known)
    by = f"2 × {listed(known)}" if known and n == 2 else ""
    return [times(scene, 0, f"{derivative(f'{base}^{terse(n)}', base)} = {lowered}", local, by=by)]


def power_of_tensor(scene: NodeContext) -> list[InputGradient]:
    """Derive base^exponent by both."""
    base, exponent = map(tight, both(scene))
    of, bases, exponents = f"{base}^{exponent}", scene.factor("self", 0), scene.factor("exponent", 1)
    by_base = each(lambda a, n: n * power(a, n - 1) if n else 0.0, bases, exponents)
    by_exponent = each(_by_exponent, bases, exponents)
    return [
        times(scene, 0, f"{derivative(of, base)} = {exponent} × {base}^({exponent} - 1)", by_base, by=""),
        times(scene, 1, f"{derivative(of, exponent)} = {of} × log({base})", by_exponent, by=""),
    ]


def power_of_scalar(scene: NodeContext) -> list[InputGradient]:
    """Derive number^exponent by its exponent."""
    turned = scene.number("other") if scene.call and scene.call.name == "rpow" else scene.number("self")
    exponent, base = tight(scene.name(0)), turned
    of = f"{'number' if base is None else terse(base)}^{exponent}"
    saved = scene.small(scene.saved("exponent"))
    local = each(lambda n: _by_exponent(base, n), saved) if base is not None else None
    log = "log(number)" if base is None else f"log({terse(base)})"
    return [times(scene, 0, f"{derivative(of, exponent)} = {of} × {log}", local, by="")]


def _by_exponent(base: float, exponent: float) -> float:
    return 0.0 if base == 0 and exponent >= 0 else power(base, exponent) * logarithm(base)


POWER_RULES: dict[str, Rule] = {
    "PowBackward0": power_of_number,
    "PowBackward1": power_of_tensor,
    "PowBackward2": power_of_scalar,
}
