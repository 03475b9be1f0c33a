"""The update formulas of SGD, Adam, AdamW and RMSprop, worked out in numbers for one parameter."""

from __future__ import annotations

import math

from autograd_tui.core.optimizer_spec import OptimizerSpec
from autograd_tui.text.derivation.optimizer_step import ParameterUpdate, StepDerivation, StepRule, signed
from autograd_tui.text.equation import exact, parenthesized


def sgd(update: ParameterUpdate) -> StepDerivation:
    """Derive p - lr × grad, with a velocity in place of the gradient if there is momentum."""
    name, lr, momentum = update.name, update.option("lr"), update.option("momentum")
    symbol = update.grad_symbol
    if not momentum:
        derivation = StepDerivation(f"{name} = {name} - lr × {symbol}", update)
        grad = _regularized_gradient(derivation)
        return derivation.finish(f"{exact(lr)} × {parenthesized(grad)}", lr * grad)
    direction = f"{symbol} + momentum × v" if update.option("nesterov") else "v"
    dampening = update.option("dampening")
    term = f"{1 - dampening:g} × {symbol}" if dampening else symbol
    factor = f"({direction})" if " " in direction else direction
    derivation = StepDerivation(f"v = momentum × v + {term},  {name} = {name} - lr × {factor}", update)
    grad = _regularized_gradient(derivation)
    velocity = _velocity(derivation, grad, dampening)
    if update.option("nesterov"):
        text = f"{direction} = {exact(grad)} {signed(momentum)} × {parenthesized(velocity)}"
        velocity = derivation.add(text, grad + momentum * velocity)
    return derivation.finish(f"{exact(lr)} × {parenthesized(velocity)}", lr * velocity)


def _velocity(derivation: StepDerivation, grad: float, dampening: float) -> float:
    update = derivation.update
    before, after, momentum = (
        update.before("momentum_buffer"),
        update.after("momentum_buffer"),
        update.option("momentum"),
    )
    if before is None:
        derivation.notes.append("This is its first step: the velocity v starts as the gradient.")
        return derivation.add(f"v = {update.grad_symbol}", grad, after, magnitude=abs(grad))
    term = f"+ {exact(1 - dampening)} × {parenthesized(grad)}" if dampening else signed(grad)
    text = f"v = {exact(momentum)} × {parenthesized(before)} {term}"
    computed = momentum * before + (1 - dampening) * grad
    velocity = derivation.add(text, computed, after, magnitude=max(abs(momentum * before), abs(grad)))
    if velocity * grad < 0:
        derivation.notes.append("The velocity points the other way than the gradient: it carries on.")
    return velocity


def adam(update: ParameterUpdate) -> StepDerivation:
    """Derive p - lr × m_hat / (sqrt(v_hat) + eps); AdamW shrinks p by its weight decay first."""
    name, lr, eps = update.name, update.option("lr"), update.option("eps")
    decoupled = _has_decoupled_decay(update)
    symbol = ("-grad" if update.option("maximize") else "grad") if decoupled else update.grad_symbol
    moments = f"m = beta1 × m + (1 - beta1) × {symbol},  v = beta2 × v + (1 - beta2) × {symbol}^2"
    derivation = StepDerivation(f"{moments},  {name} = {name} - lr × m_hat / (sqrt(v_hat) + eps)", update)
    start = _decayed_parameter(derivation, lr) if decoupled else update.value
    grad = update.grad if decoupled else _regularized_gradient(derivation)
    m_hat, v_hat = _corrected_moments(derivation, grad)
    divisor = math.sqrt(v_hat) + eps if v_hat >= 0 else math.nan
    text = f"{exact(lr)} × {parenthesized(m_hat)} / (sqrt({exact(v_hat)}) + {exact(eps)})"
    return derivation.finish(text, lr * m_hat / divisor if divisor else math.nan, start=start)


def _has_decoupled_decay(update: ParameterUpdate) -> bool:
    """Return whether weight decay shrinks the parameter itself instead of joining the gradient."""
    optimizer = OptimizerSpec.parse(update.optimizer).name
    is_decoupled = optimizer == "adamw" or bool(update.option("decoupled_weight_decay"))
    return is_decoupled and bool(update.option("weight_decay"))


def _decayed_parameter(derivation: StepDerivation, lr: float) -> float:
    update, value, decay = derivation.update, derivation.update.value, derivation.update.option("weight_decay")
    product = f"{update.name} × (1 - lr × weight_decay) = {exact(value)} × (1 - {exact(lr)} × {exact(decay)})"
    return derivation.add(f"{update.name} = {product}", value * (1 - lr * decay))


def _corrected_moments(derivation: StepDerivation, grad: float) -> tuple[float, float]:
    """Return m_hat and v_hat: moving averages of the gradient and its square, corrected for their start at 0."""
    update = derivation.update
    (beta1, beta2), count = update.option_pair("betas"), update.after("step") or 1.0
    m = _moving_average(derivation, "m", "exp_avg", beta1, grad)
    v = _moving_average(derivation, "v", "exp_avg_sq", beta2, grad, squared=True)
    if update.option("amsgrad"):
        v = derivation.add("v = the greatest v so far", update.after("max_exp_avg_sq") or v)
    derivation.notes.append(f"m and v started at 0: dividing by 1 - beta^{count:g} makes up for that.")
    return _bias_corrected(derivation, "m", m, beta1, count), _bias_corrected(derivation, "v", v, beta2, count)


def _bias_corrected(derivation: StepDerivation, symbol: str, average: float, beta: float, count: float) -> float:
    divisor = 1 - beta**count
    corrected = average / divisor if divisor else math.nan
    return derivation.add(f"{symbol}_hat = {exact(average)} / (1 - {exact(beta)}^{count:g})", corrected)


def rmsprop(update: ParameterUpdate) -> StepDerivation:
    """Derive p - lr × grad / (root of the averaged square + eps), with a velocity if there is momentum."""
    name, lr, momentum = update.name, update.option("lr"), update.option("momentum")
    root = "sqrt(s - a^2)" if update.option("centered") else "sqrt(s)"
    quotient = f"{update.grad_symbol} / ({root} + eps)"
    move = f"{name} = {name} - lr × {'v' if momentum else quotient}"
    derivation = StepDerivation(f"v = momentum × v + {quotient},  {move}" if momentum else move, update)
    grad = _regularized_gradient(derivation)
    text, normalized = _normalized_gradient(derivation, grad)
    if not momentum:
        return derivation.finish(f"{exact(lr)} × {text}", lr * normalized)
    before, after = update.before("momentum_buffer") or 0.0, update.after("momentum_buffer")
    magnitude = max(abs(momentum * before), abs(normalized))
    text = f"v = {exact(momentum)} × {parenthesized(before)} + {text}"
    velocity = derivation.add(text, momentum * before + normalized, after, magnitude=magnitude)
    return derivation.finish(f"{exact(lr)} × {parenthesized(velocity)}", lr * velocity)


def _normalized_gradient(derivation: StepDerivation, grad: float) -> tuple[str, float]:
    """Divide the gradient by the root of its averaged square; return the calculation and its result."""
    update = derivation.update
    alpha, eps = update.option("alpha"), update.option("eps")
    square = _moving_average(derivation, "s", "square_avg", alpha, grad, squared=True)
    if update.option("centered"):
        mean = _moving_average(derivation, "a", "grad_avg", alpha, grad)
        square = derivation.add(f"s - a^2 = {exact(square)} - {parenthesized(mean)}^2", square - mean**2)
    divisor = math.sqrt(square) + eps if square >= 0 else math.nan
    text = f"{parenthesized(grad)} / (sqrt({exact(square)}) + {exact(eps)})"
    return text, grad / divisor if divisor else math.nan


def _regularized_gradient(derivation: StepDerivation) -> float:
    """Return the gradient with weight decay added, negated with `maximize`; add the equation unless it is trivial."""
    update = derivation.update
    grad, decay = update.grad, update.option("weight_decay")
    if update.option("maximize") and not decay:
        return derivation.add("g = -grad, to go uphill", grad)
    if not decay:
        return grad
    value, sign = update.value, "-" if update.option("maximize") else ""
    text = f"g = {sign}grad + weight_decay × {update.name} = {exact(grad)} {signed(decay)} × {parenthesized(value)}"
    return derivation.add(text, grad + decay * value)


def _moving_average(
    derivation: StepDerivation, symbol: str, role: str, beta: float, grad: float, *, squared: bool = False
) -> float:
    """Return the exponential moving average of the gradient, or of its square, that the state holds under `role`."""
    before, after = derivation.update.before(role) or 0.0, derivation.update.after(role)
    term = (1 - beta) * (grad**2 if squared else grad)
    product = f"{exact(1 - beta)} × {parenthesized(grad)}{'^2' if squared else ''}"
    text = f"{symbol} = {exact(beta)} × {parenthesized(before)} + {product}"
    return derivation.add(text, beta * before + term, after, magnitude=max(abs(beta * before), abs(term)))


STEP_RULES: dict[str, StepRule] = {"sgd": sgd, "adam": adam, "adamw": adam, "rmsprop": rmsprop}  # by optimizer
