"""The gradients of elementwise functions, arithmetic, activations and powers, and of softmax."""

from __future__ import annotations

import math
from collections.abc import Callable

from autograd_tui.text.derivation.derivation import Derivation, written_values
from autograd_tui.text.derivation.rule_context import BackwardRule, NodeContext
from autograd_tui.text.derivation.small_tensor import (
    SmallTensor,
    logarithm,
    map_values,
    power,
    quotient,
    sigmoid,
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


def add_or_sub(context: NodeContext) -> list[Derivation]:
    """Derive left ± alpha × right."""
    (left, right), alpha = operand_names(context), context.number("alpha", 1.0)
    sign = "-" if context.op.name.startswith("Sub") else "+"
    by_right, formula = None, f"d/{differential(right)} = {sign}alpha"
    scale = "" if alpha is None or abs(alpha) == 1 else f"{terse(abs(alpha))} × "
    of = f"{left} {sign} {scale}{inner(right)}"
    if alpha is not None:
        by_right = -alpha if sign == "-" else alpha
        formula = f"{derivative(of, right)} = {terse(by_right)}"
    return [context.scaled(f"{derivative(of, left)} = 1", 1.0), context.scaled(formula, by_right, index=1)]


def rsub(context: NodeContext) -> list[Derivation]:
    """Derive other - alpha × self, of which self comes first."""
    (own, other), alpha = operand_names(context), context.number("alpha", 1.0)
    of = f"{inner(other)} - {inner(own)}"
    formula = f"{derivative(of, own)} = -1" if alpha in (None, 1) else f"d/{differential(own)} = {terse(-(alpha or 0))}"
    by_own = context.scaled(formula, None if alpha is None else -alpha)
    return [by_own, context.scaled(f"{derivative(of, other)} = 1", 1.0, index=1)]


def mul(context: NodeContext) -> list[Derivation]:
    """Derive left × right; dropout is a product with its mask."""
    if context.call and "dropout" in context.call.name:
        formula = "dropout: 0 for what was dropped, 1 / (1 - p) for the rest"
        return [context.times(formula, context.operand("other", 1))]
    left, right = operand_names(context)
    of = f"{inner(left)} × {inner(right)}"
    return [
        context.times(f"{derivative(of, left)} = {right}", context.operand("other", 1), shows_local=False),
        context.times(f"{derivative(of, right)} = {left}", context.operand("self", 0), index=1, shows_local=False),
    ]


def div(context: NodeContext) -> list[Derivation]:
    """Derive left / right."""
    left, right = operand_names(context)
    of, top, bottom = f"{inner(left)} / {tight(right)}", context.operand("self", 0), context.operand("other", 1)
    return [
        context.times(f"{derivative(of, left)} = 1 / {tight(right)}", map_values(lambda b: quotient(1, b), bottom)),
        context.times(
            f"{derivative(of, right)} = -{inner(left)} / {tight(right)}^2",
            map_values(lambda a, b: quotient(-a, b * b), top, bottom),
            index=1,
        ),
    ]


def unary(role: str, of: str, local: str, function: Callable[[float], float]) -> BackwardRule:
    """Return the rule of a function of one number, written as `of`, whose local derivative is written as `local`.

    `function` computes that from what the node saved under `role`. In `local`, {0} has parentheses if needed, {1} none.
    """

    def rule(context: NodeContext) -> list[Derivation]:
        name = context.name(0)
        formula = f"{derivative(of.format(name), name)} = {local.format(tight(name), name)}"
        saved = context.saved(role) or (context.call_input(0) if role == "self" else None)
        return [context.times(formula, map_values(function, context.small(saved)))]

    return rule


def neg(context: NodeContext) -> list[Derivation]:
    """Derive -x."""
    name = inner(context.name(0))
    return [context.scaled(f"{derivative(f'-{name}', name)} = -1", -1.0)]


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
    return [context.times(f"{derivative(f'gelu({name})', name)} = {sentence}{'' if is_exact else ', nearly'}", local)]


def leaky_relu(context: NodeContext) -> list[Derivation]:
    """Derive leaky_relu: 1 above 0, its negative slope below."""
    name = inner(context.name(0))
    slope = context.number("negative_slope", 0.01)
    values = context.small(context.saved("self"))
    local = None if slope is None else map_values(lambda x: 1.0 if x > 0 else slope, values)
    formula = f"d/{differential(name)} = 1 where {name} > 0, else {'its slope' if slope is None else slope}"
    return [context.times(formula, local)]


def hardtanh(context: NodeContext) -> list[Derivation]:
    """Derive hardtanh and relu6: 1 between two bounds."""
    name = inner(context.name(0))
    is_relu6 = context.call is not None and context.call.name.strip("_") == "relu6"
    low, high = (
        context.number("min_val", 0.0 if is_relu6 else -1.0),
        context.number("max_val", 6.0 if is_relu6 else 1.0),
    )
    if low is None or high is None:
        return [context.times(f"d/{differential(name)} = 1 between its bounds, else 0", None)]
    minimum, maximum = low, high
    local = map_values(lambda x: 1.0 if minimum < x < maximum else 0.0, context.small(context.saved("self")))
    return [context.times(f"d/{differential(name)} = 1 where {minimum:g} < {name} < {maximum:g}, else 0", local)]


def softmax(context: NodeContext) -> list[Derivation]:
    """Derive: each probability depends on all inputs of its row."""
    upstream, probabilities = context.whole_upstream, context.whole(context.saved("result"))
    sums = _row_sums(context, map_values(lambda up, p: up * p, upstream, probabilities))
    result = map_values(lambda up, p, total: p * (up - total), upstream, probabilities, sums)
    return [context.gradient(f"p = softmax({context.name(0)}): p × (upstream - sum(upstream × p))", result)]


def log_softmax(context: NodeContext) -> list[Derivation]:
    """Derive: each log probability depends on all inputs of its row."""
    upstream, log_probabilities = context.whole_upstream, context.whole(context.saved("result"))
    sums = _row_sums(context, upstream)
    result = map_values(lambda up, log_p, total: up - math.exp(log_p) * total, upstream, log_probabilities, sums)
    formula = f"p = softmax({context.name(0)}): upstream - p × sum(upstream){_closed_form(context)}"
    return [context.gradient(formula, result)]


def _row_sums(context: NodeContext, tensor: SmallTensor | None) -> SmallTensor | None:
    """Sum a tensor over the dimension of the softmax; None if that or the tensor is not known."""
    dims = context.integers("dim")
    if dims is None and tensor and context.call and context.call.name == "cross_entropy":
        dims = (1 if len(tensor.shape) > 1 else 0,)
    return None if tensor is None or dims is None else summed_over(tensor, dims)


def _closed_form(context: NodeContext) -> str:
    """Return the whole gradient's closed form if the call is a mean cross entropy and itself the loss; else ""."""
    call, target = context.call, context.op.named_input("target")
    if call is None or call.name != "cross_entropy" or target is None or call.output[0].name != "loss":
        return ""
    is_weighted = call.named_input("weight") or context.number("label_smoothing")
    has_classes = "int" in target.stats.dtype and target.stats.min is not None and target.stats.min >= 0
    has_classes = has_classes and not target.stats.range_sampled
    if is_weighted or not has_classes or context.setting("reduction") not in (None, "mean"):
        return ""
    return f", in all (p - 1)/{target.stats.size} at the target's class, p/{target.stats.size} elsewhere"


def power_of_number(context: NodeContext) -> list[Derivation]:
    """Derive base^n by its base, n a number."""
    base = tight(context.name(0))
    n = 2.0 if context.call and context.call.name in ("square", "square_") else context.number("exponent")
    if n is None:
        return [context.times(f"{derivative(f'{base}^n', base)} = n × {base}^(n - 1)", None)]
    local_text = {1.0: "1", 2.0: f"2 × {base}"}.get(n, f"{terse(n)} × {base}^{terse(n - 1)}")
    values = context.operand("self", 0)
    local = map_values(lambda a: n * power(a, n - 1) if n else 0.0, values)
    by = f"2 × {written_values(values)}" if values and n == 2 else ""
    return [context.times(f"{derivative(f'{base}^{terse(n)}', base)} = {local_text}", local, calculation=by)]


def power_of_tensor(context: NodeContext) -> list[Derivation]:
    """Derive base^exponent by both."""
    base, exponent = map(tight, operand_names(context))
    of, bases, exponents = f"{base}^{exponent}", context.operand("self", 0), context.operand("exponent", 1)
    by_base = map_values(lambda a, n: n * power(a, n - 1) if n else 0.0, bases, exponents)
    by_exponent = map_values(_exponent_derivative, bases, exponents)
    return [
        context.times(f"{derivative(of, base)} = {exponent} × {base}^({exponent} - 1)", by_base),
        context.times(f"{derivative(of, exponent)} = {of} × log({base})", by_exponent, index=1),
    ]


def power_of_scalar(context: NodeContext) -> list[Derivation]:
    """Derive number^exponent by its exponent."""
    base = context.number("other" if context.call and context.call.name == "rpow" else "self")
    exponent = tight(context.name(0))
    of = f"{'number' if base is None else terse(base)}^{exponent}"
    saved = context.small(context.saved("exponent"))
    local = map_values(lambda n: _exponent_derivative(base, n), saved) if base is not None else None
    log = "log(number)" if base is None else f"log({terse(base)})"
    return [context.times(f"{derivative(of, exponent)} = {of} × {log}", local)]


def _exponent_derivative(base: float, exponent: float) -> float:
    return 0.0 if base == 0 and exponent >= 0 else power(base, exponent) * logarithm(base)


ELEMENTWISE_RULES: dict[str, BackwardRule] = {  # by the node's name
    "AddBackward0": add_or_sub,
    "SubBackward0": add_or_sub,
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
    "ReluBackward0": unary("result", "relu({})", "1 where {} > 0, else 0", lambda y: 0.0 if y <= 0 else 1.0),
    "SigmoidBackward0": unary("result", "sigmoid({})", "y × (1 - y), y = sigmoid", lambda y: y * (1 - y)),
    "TanhBackward0": unary("result", "tanh({})", "1 - tanh({1})^2", lambda y: 1 - y * y),
    "SiluBackward0": unary("self", "silu({0})", "s × (1 + {0} × (1 - s)), s = sigmoid", _silu),
    "GeluBackward0": gelu,
    "LeakyReluBackward0": leaky_relu,
    "HardtanhBackward0": hardtanh,
    "SoftmaxBackward0": softmax,
    "LogSoftmaxBackward0": log_softmax,
    "PowBackward0": power_of_number,
    "PowBackward1": power_of_tensor,
    "PowBackward2": power_of_scalar,
}
