"""Adam and AdamW: both moments, their corrections for having started at 0, and the move."""

from __future__ import annotations

import math

from autograd_tui.engine.values.optimizer_spec import OptimizerSpec
from autograd_tui.text.equation import enclosed, exact
from autograd_tui.text.inside.step.descent import changed, decayed
from autograd_tui.text.inside.step.stepped import Stepped, Worksheet


def adam(stepped: Stepped) -> Worksheet:
    """Work the move of one parameter, AdamW's weight decay apart from the gradient."""
    name, lr, eps = stepped.name, stepped.option("lr") or 0.0, stepped.option("eps") or 0.0
    apart = _decoupled(stepped)
    grad_name = ("-grad" if stepped.on("maximize") else "grad") if apart else changed(stepped)
    moments = f"m = beta1 × m + (1 - beta1) × {grad_name},  v = beta2 × v + (1 - beta2) × {grad_name}^2"
    sheet = Worksheet(f"{moments},  {name} = {name} - lr × m_hat / (sqrt(v_hat) + eps)")
    start = _shrunk(sheet, stepped, lr) if apart else stepped.was("value") or 0.0
    grad = _plain(stepped) if apart else decayed(sheet, stepped)
    m_hat, v_hat = _moments(sheet, stepped, grad)
    root = math.sqrt(v_hat) + eps if v_hat >= 0 else math.nan
    written = f"{exact(lr)} × {enclosed(m_hat)} / (sqrt({exact(v_hat)}) + {exact(eps)})"
    return sheet.move(stepped, written, lr * m_hat / root if root else math.nan, start=start)


def _decoupled(stepped: Stepped) -> bool:
    """Tell whether weight decay shrinks the parameter itself instead of joining the gradient."""
    named = OptimizerSpec.parse(stepped.trace.optimizer).name
    return bool(stepped.option("weight_decay")) and (named == "adamw" or stepped.on("decoupled_weight_decay"))


def _shrunk(sheet: Worksheet, stepped: Stepped, lr: float) -> float:
    value, decay, name = stepped.was("value") or 0.0, stepped.option("weight_decay") or 0.0, stepped.name
    written = f"{name} × (1 - lr × weight_decay) = {exact(value)} × (1 - {exact(lr)} × {exact(decay)})"
    return sheet.work(f"{name} = {written}", value * (1 - lr * decay))


def _plain(stepped: Stepped) -> float:
    grad = stepped.was("grad") or 0.0
    return -grad if stepped.on("maximize") else grad


def _moments(sheet: Worksheet, stepped: Stepped, grad: float) -> tuple[float, float]:
    """Work the averages of the gradient and of its square, both as if they had not started at 0."""
    betas, count = stepped.pair("betas"), stepped.became("step") or 1.0
    m = average(sheet, stepped, "m", "exp_avg", betas[0], grad)
    v = average(sheet, stepped, "v", "exp_avg_sq", betas[1], grad, squared=True)
    if stepped.on("amsgrad"):
        v = sheet.work("v = the greatest v so far", stepped.became("max_exp_avg_sq") or v)
    sheet.asides.append(f"m and v started at 0: dividing by 1 - beta^{count:g} makes up for that.")
    return _corrected(sheet, "m", m, betas[0], count), _corrected(sheet, "v", v, betas[1], count)


def average(
    sheet: Worksheet, stepped: Stepped, short: str, role: str, beta: float, grad: float, *, squared: bool = False
) -> float:
    """Work a moving average of the gradient, or of its square."""
    before, after = stepped.was(role) or 0.0, stepped.became(role)
    term = (1 - beta) * (grad**2 if squared else grad)
    fed = f"{exact(1 - beta)} × {enclosed(grad)}{'^2' if squared else ''}"
    written = f"{short} = {exact(beta)} × {enclosed(before)} + {fed}"
    return sheet.work(written, beta * before + term, after, size=max(abs(beta * before), abs(term)))


def _corrected(sheet: Worksheet, short: str, average: float, beta: float, count: float) -> float:
    divisor = 1 - beta**count
    corrected = average / divisor if divisor else math.nan
    return sheet.work(f"{short}_hat = {exact(average)} / (1 - {exact(beta)}^{count:g})", corrected)
