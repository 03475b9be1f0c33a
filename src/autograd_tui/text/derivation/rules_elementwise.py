"""The local derivatives of elementwise functions: arithmetic, activations, powers; and of softmax."""

from __future__ import annotations

import math
from collections.abc import Callable

from autograd_tui.text.derivation.derivation import BackwardRule, Derivation, gradient, scaled, times, written_values
from autograd_tui.text.derivation.rule_context import NodeContext
from autograd_tui.text.derivation.small_tensor import (
    SmallTensor,
    logarithm,
    map_values,
    power,
    quotient,
    sine_or_cosine,
    summed_over,
)
from autograd_tui.text.numbers import terse
from autograd_tui.text.trace.expression import differential, inner, tight


def derivative(of: str, by: str) -> str:
    """Write a derivative: d(w × x)/dw."""
    return f"d({of})/{differential(by)}"


def operand_names(context: NodeContext) -> tuple[str, str]:
    """Return the names of both operands, with "left" and "right" if they are the same tensor."""
    left, right = context.name(0), context.name(1)
    return (f"left {left}", f"right {right}") if left == right else (left, right)


def add(context: NodeContext) -> list[Derivation]:
    """Derive left + right."""
    return _sum(context, "+", _alpha(context))


def sub(context: NodeContext) -> list[Derivation]:
    """Derive left - right."""
    alpha = _alpha(context)
    return _sum(context, "-", None if alpha is None else -alpha)


def _alpha(context: NodeContext) -> float | None:
    """Return `alpha`, by which the second operand of a sum is multiplied."""
    return context.number("alpha", 1.0)


def _sum(context: NodeContext, sign: str, by: float | None) -> list[Derivation]:
    left, right = operand_names(context)
    factor = "" if by is None or abs(by) == 1 else f"{terse(abs(by))} × "
    of = f"{left} {sign} {factor}{inner(right)}"
    parts = [scaled(context, 0, f"{derivative(of, left)} = 1", 1.0)]
    if by is None:
        return [*parts, Derivation(f"d/{differential(right)} = {sign}alpha", elementwise=True, index=1)]
    return [*parts, scaled(context, 1, f"{derivative(of, right)} = {terse(by)}", by)]


def rsub(context: NodeContext) -> list[Derivation]:
    """Derive other - self, of which self comes first."""
    by = _alpha(context)
    own, other = operand_names(context)
    of = f"{inner(other)} - {inner(own)}"
    minus = f"{derivative(of, own)} = -1" if by in (None, 1) else f"d/{differential(own)} = {terse(-(by or 0))}"
    parts = [scaled(context, 0, minus, None if by is None else -by)]
    return [*parts, scaled(context, 1, f"{derivative(of, other)} = 1", 1.0)]


def mul(context: NodeContext) -> list[Derivation]:
    """Derive left × right; dropout is a product with its mask."""
    if context.call and "dropout" in context.call.name:
        formula = "dropout: 0 for what was dropped, 1 / (1 - p) for the rest"
        return [times(context, 0, formula, context.operand("other", 1), by="")]
    left, right = operand_names(context)
    of = f"{inner(left)} × {inner(right)}"
    return [
        times(context, 0, f"{derivative(of, left)} = {right}", context.operand("other", 1)),
        times(context, 1, f"{derivative(of, right)} = {left}", context.operand("self", 0)),
    ]


def div(context: NodeContext) -> list[Derivation]:
    """Derive left / right."""
    left, right = operand_names(context)
    of, top, bottom = f"{inner(left)} / {tight(right)}", context.operand("self", 0), context.operand("other", 1)
    return [
        times(
            context,
            0,
            f"{derivative(of, left)} = 1 / {tight(right)}",
            map_values(lambda b: quotient(1, b), bottom),
            by="",
        ),
        times(
            context,
            1,
            f"{derivative(of, right)} = -{inner(left)} / {tight(right)}^2",
            map_values(lambda a, b: quotient(-a, b * b), top, bottom),
            by="",
        ),
    ]


def unary(role: str, of: str, local: str, function: Callable[[float], float]) -> BackwardRule:
    """Make the rule of a function of one number; `role`: what its node saved, of which `function` is taken."""

    def rule(context: NodeContext) -> list[Derivation]:
        name = context.name(0)
        formula = f"{derivative(of.format(name), name)} = {local.format(tight(name), name)}"
        saved = context.saved(role) or (context.call_input(0) if role == "self" else None)
        return [times(context, 0, formula, map_values(function, context.small(saved)), by="")]

    return rule


def neg(context: NodeContext) -> list[Derivation]:
    """Derive -x."""
    name = inner(context.name(0))
    return [scaled(context, 0, f"{derivative(f'-{name}', name)} = -1", -1.0)]


ARITHMETIC_RULES: dict[str, BackwardRule] = {
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
    "SinBackward0": unary("self", "sin({})", "cos({1})", lambda x: sine_or_cosine(math.cos, x)),
    "CosBackward0": unary("self", "cos({})", "-sin({1})", lambda x: -sine_or_cosine(math.sin, x)),
}


def sigmoid(x: float) -> float:
    """Return 1 / (1 + e^-x) without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _silu(x: float) -> float:
    return sigmoid(x) * (1 + x * (1 - sigmoid(x)))


def _gelu(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2))) + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def gelu(context: NodeContext) -> list[Derivation]:
    """Derive the exact GELU; its tanh approximation gets the formula without numbers."""
    name = context.name(0)
    is_exact = context.setting("approximate") in (None, "none")
    sentence = f"Phi({name}) + {inner(name)} × phi({name}), Phi and phi of the normal distribution"
    local = map_values(_gelu, context.small(context.saved("self"))) if is_exact else None
    return [
        times(
            context,
            0,
            f"{derivative(f'gelu({name})', name)} = {sentence}{'' if is_exact else ', nearly'}",
            local,
            by="",
        )
    ]


def leaky_relu(context: NodeContext) -> list[Derivation]:
    """Derive leaky_relu: 1 above 0, its negative slope below."""
    name = inner(context.name(0))
    slope = context.number("negative_slope", 0.01)
    values = context.small(context.saved("self"))
    local = None if slope is None else map_values(lambda x: 1.0 if x > 0 else slope, values)
    formula = f"d/{differential(name)} = 1 where {name} > 0, else {'its slope' if slope is None else slope}"
    return [times(context, 0, formula, local, by="")]


def hardtanh(context: NodeContext) -> list[Derivation]:
    """Derive hardtanh and relu6: 1 between two bounds."""
    name = inner(context.name(0))
    call = context.call.name.strip("_") if context.call else ""
    bounds = (0.0, 6.0) if call == "relu6" else (-1.0, 1.0)
    low, high = (
        default if context.setting(name_of_bound) is None else context.number(name_of_bound)
        for name_of_bound, default in zip(("min_val", "max_val"), bounds, strict=True)
    )
    if low is None or high is None:
        return [Derivation(f"d/{differential(name)} = 1 between its bounds, else 0", elementwise=True)]
    minimum, maximum = low, high
    local = map_values(lambda x: 1.0 if minimum < x < maximum else 0.0, context.small(context.saved("self")))
    return [
        times(context, 0, f"d/{differential(name)} = 1 where {minimum:g} < {name} < {maximum:g}, else 0", local, by="")
    ]


def softmax(context: NodeContext) -> list[Derivation]:
    """Derive: each probability depends on all inputs of its row."""
    name, upstream = context.name(0), context.upstream
    probabilities = context.small(context.saved("result"))
    sums = _row_sums(context, map_values(lambda up, y: up * y, upstream, probabilities))
    result = map_values(lambda up, y, total: y * (up - total), upstream, probabilities, sums)
    return [gradient(context, 0, f"p = softmax({name}): p × (upstream - sum(upstream × p))", result)]


def log_softmax(context: NodeContext) -> list[Derivation]:
    """Derive: each log probability depends on all inputs of its row."""
    name, upstream = context.name(0), context.upstream
    log_probabilities = context.small(context.saved("result"))
    result = map_values(
        lambda up, y, total: up - math.exp(y) * total, upstream, log_probabilities, _row_sums(context, upstream)
    )
    return [gradient(context, 0, f"p = softmax({name}): upstream - p × sum(upstream){_closed_form(context)}", result)]


def _closed_form(context: NodeContext) -> str:
    """Return the whole gradient's closed form if the call is a mean cross entropy and itself the loss; else ""."""
    call, target = context.call, next((value for value in context.op.inputs if value.role == "target"), None)
    if call is None or call.name != "cross_entropy" or target is None or call.output[0].name != "loss":
        return ""
    is_weighted = any(value.role == "weight" for value in call.inputs) or context.number("label_smoothing")
    has_classes = "int" in target.stats.dtype and target.stats.min is not None and target.stats.min >= 0
    if is_weighted or not has_classes or context.setting("reduction") not in (None, "mean"):
        return ""
    return f", in all (p - 1)/{target.stats.size} at the target's class, p/{target.stats.size} elsewhere"


def _row_sums(context: NodeContext, tensor: SmallTensor | None) -> SmallTensor | None:
    """Sum a tensor over the dimension of the softmax; None if that or the tensor is not known."""
    dims = context.integers("dim")
    if dims is None and tensor and context.call and context.call.name == "cross_entropy":
        dims = (1 if len(tensor.shape) > 1 else 0,)
    if tensor is None or dims is None or context.one_value:
        return None
    return summed_over(tensor, dims)


ACTIVATION_RULES: dict[str, BackwardRule] = {
    "ReluBackward0": unary("result", "relu({})", "1 where {} > 0, else 0", lambda y: 0.0 if y <= 0 else 1.0),
    "SigmoidBackward0": unary("result", "sigmoid({})", "y × (1 - y), y = sigmoid", lambda y: y * (1 - y)),
    "TanhBackward0": unary("result", "tanh({})", "1 - tanh({1})^2", lambda y: 1 - y * y),
    "SiluBackward0": unary("self", "silu({0})", "s × (1 + {0} × (1 - s)), s = sigmoid", _silu),
    "GeluBackward0": gelu,
    "LeakyReluBackward0": leaky_relu,
    "HardtanhBackward0": hardtanh,
    "SoftmaxBackward0": softmax,
    "LogSoftmaxBackward0": log_softmax,
}


def power_of_number(context: NodeContext) -> list[Derivation]:
    """Derive base^n by its base, n a number."""
    base = tight(context.name(0))
    n = 2.0 if context.call and context.call.name in ("square", "square_") else context.number("exponent")
    if n is None:
        return [Derivation(f"{derivative(f'{base}^n', base)} = n × {base}^(n - 1)", elementwise=True)]
    local_text = {1.0: "1", 2.0: f"2 × {base}"}.get(n, f"{terse(n)} × {base}^{terse(n - 1)}")
    values = context.operand("self", 0)
    local = map_values(lambda a: n * power(a, n - 1) if n else 0.0, values)
    by = f"2 × {written_values(values)}" if values and n == 2 else ""
    return [times(context, 0, f"{derivative(f'{base}^{terse(n)}', base)} = {local_text}", local, by=by)]


def power_of_tensor(context: NodeContext) -> list[Derivation]:
    """Derive base^exponent by both."""
    base, exponent = map(tight, operand_names(context))
    of, bases, exponents = f"{base}^{exponent}", context.operand("self", 0), context.operand("exponent", 1)
    by_base = map_values(lambda a, n: n * power(a, n - 1) if n else 0.0, bases, exponents)
    by_exponent = map_values(_exponent_derivative, bases, exponents)
    return [
        times(context, 0, f"{derivative(of, base)} = {exponent} × {base}^({exponent} - 1)", by_base, by=""),
        times(context, 1, f"{derivative(of, exponent)} = {of} × log({base})", by_exponent, by=""),
    ]


def power_of_scalar(context: NodeContext) -> list[Derivation]:
    """Derive number^exponent by its exponent."""
    scalar = context.number("other") if context.call and context.call.name == "rpow" else context.number("self")
    exponent, base = tight(context.name(0)), scalar
    of = f"{'number' if base is None else terse(base)}^{exponent}"
    saved = context.small(context.saved("exponent"))
    local = map_values(lambda n: _exponent_derivative(base, n), saved) if base is not None else None
    log = "log(number)" if base is None else f"log({terse(base)})"
    return [times(context, 0, f"{derivative(of, exponent)} = {of} × {log}", local, by="")]


def _exponent_derivative(base: float, exponent: float) -> float:
    return 0.0 if base == 0 and exponent >= 0 else power(base, exponent) * logarithm(base)


POWER_RULES: dict[str, BackwardRule] = {
    "PowBackward0": power_of_number,
    "PowBackward1": power_of_tensor,
    "PowBackward2": power_of_scalar,
}
