"""The formulas of optimizers: SGD, Adam, AdamW and RMSprop, for one parameter, in numbers."""

from __future__ import annotations

import math

from autograd_tui.core.optimizer_spec import OptimizerSpec
from autograd_tui.core.trace import Operation, Trace
from autograd_tui.text.derivation.optimizer_step import Stepped, StepRule, Worksheet, signed
from autograd_tui.text.equation import enclosed, exact, headed, rows
from autograd_tui.text.styled_text import Line, one_line
from autograd_tui.text.trace.tensor_words import value_words


def decayed(sheet: Worksheet, stepped: Stepped) -> float:
    """Work what the optimizer takes for the gradient: turned round to go uphill, with weight decay."""
    grad, value, decay = stepped.was("grad") or 0.0, stepped.was("value") or 0.0, stepped.option("weight_decay") or 0.0
    taken = -grad if stepped.on("maximize") else grad
    if stepped.on("maximize") and not decay:
        return sheet.work("g = -grad, to go uphill", taken)
    if not decay:
        return taken
    sign = "-" if stepped.on("maximize") else ""
    written = f"g = {sign}grad + weight_decay × {stepped.name} = {exact(taken)} {signed(decay)} × {enclosed(value)}"
    return sheet.work(written, taken + decay * value)


def changed(stepped: Stepped) -> str:
    """Name what stands for the gradient: itself, or g where it was changed first."""
    return "g" if stepped.on("maximize") or stepped.option("weight_decay") else "grad"


def sgd(stepped: Stepped) -> Worksheet:
    """Work the velocity, where there is momentum, and the move."""
    name, lr, momentum = stepped.name, stepped.option("lr") or 0.0, stepped.option("momentum") or 0.0
    taken = changed(stepped)
    if not momentum:
        sheet = Worksheet(f"{name} = {name} - lr × {taken}")
        by = decayed(sheet, stepped)
        return sheet.move(stepped, f"{exact(lr)} × {enclosed(by)}", lr * by)
    ahead = f"{taken} + momentum × v" if stepped.on("nesterov") else "v"
    damping = stepped.option("dampening") or 0.0
    fed = f"{1 - damping:g} × {taken}" if damping else taken
    sheet = Worksheet(f"v = momentum × v + {fed},  {name} = {name} - lr × {f'({ahead})' if ' ' in ahead else ahead}")
    grad = decayed(sheet, stepped)
    velocity = _velocity(sheet, stepped, grad, damping)
    if stepped.on("nesterov"):
        written = f"{ahead} = {exact(grad)} {signed(momentum)} × {enclosed(velocity)}"
        velocity = sheet.work(written, grad + momentum * velocity)
    return sheet.move(stepped, f"{exact(lr)} × {enclosed(velocity)}", lr * velocity)


def _velocity(sheet: Worksheet, stepped: Stepped, grad: float, damping: float) -> float:
    before, after = stepped.was("momentum_buffer"), stepped.became("momentum_buffer")
    momentum = stepped.option("momentum") or 0.0
    if before is None:
        sheet.asides.append("This is its first step: the velocity v starts as the gradient.")
        return sheet.work(f"v = {changed(stepped)}", grad, after, size=abs(grad))
    fed = f"+ {exact(1 - damping)} × {enclosed(grad)}" if damping else signed(grad)
    computed = momentum * before + (1 - damping) * grad
    written = f"v = {exact(momentum)} × {enclosed(before)} {fed}"
    moved = sheet.work(written, computed, after, size=max(abs(momentum * before), abs(grad)))
    if moved * grad < 0:
        sheet.asides.append("The velocity points the other way than the gradient: it carries on.")
    return moved


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


def rmsprop(stepped: Stepped) -> Worksheet:
    """Work the move of one parameter."""
    name, lr, momentum = stepped.name, stepped.option("lr") or 0.0, stepped.option("momentum") or 0.0
    root = "sqrt(s - a^2)" if stepped.on("centered") else "sqrt(s)"
    scaled = f"{changed(stepped)} / ({root} + eps)"
    last = f"{name} = {name} - lr × {'v' if momentum else scaled}"
    sheet = Worksheet(f"v = momentum × v + {scaled},  {last}" if momentum else last)
    grad = decayed(sheet, stepped)
    written, step = _scaled(sheet, stepped, grad)
    if not momentum:
        return sheet.move(stepped, f"{exact(lr)} × {written}", lr * step)
    before = stepped.was("momentum_buffer") or 0.0
    moving, size = f"v = {exact(momentum)} × {enclosed(before)} + {written}", max(abs(momentum * before), abs(step))
    velocity = sheet.work(moving, momentum * before + step, stepped.became("momentum_buffer"), size=size)
    return sheet.move(stepped, f"{exact(lr)} × {enclosed(velocity)}", lr * velocity)


def _scaled(sheet: Worksheet, stepped: Stepped, grad: float) -> tuple[str, float]:
    """Work the gradient divided by the root of its averaged square."""
    alpha, eps = stepped.option("alpha") or 0.0, stepped.option("eps") or 0.0
    square = average(sheet, stepped, "s", "square_avg", alpha, grad, squared=True)
    if stepped.on("centered"):
        mean = average(sheet, stepped, "a", "grad_avg", alpha, grad)
        square = sheet.work(f"s - a^2 = {exact(square)} - {enclosed(mean)}^2", square - mean**2)
    root = math.sqrt(square) + eps if square >= 0 else math.nan
    return f"{enclosed(grad)} / (sqrt({exact(square)}) + {exact(eps)})", grad / root if root else math.nan


RULES: dict[str, StepRule] = {"sgd": sgd, "adam": adam, "adamw": adam, "rmsprop": rmsprop}


def step_lines(trace: Trace, op: Operation, width: int) -> list[Line]:
    """Show how the optimizer moved one parameter; of many values, the first."""
    stepped = Stepped(trace, op)
    name = OptimizerSpec.parse(trace.optimizer).name if trace.optimizer else ""
    rule = RULES.get(name)
    if stepped.before("grad") is None:
        return [
            *_moved(stepped, width),
            *rows("Its gradient is None: the optimizer passed over it.", width, style="dim"),
        ]
    if rule is None or not stepped.known:
        said = f"No formula is known here for {name or 'this optimizer'}: before and after."
        return [*_moved(stepped, width), *_state(stepped, width), *rows(said, width, style="dim")]
    return [*rule(stepped).lines(stepped, width), *_whole(stepped, width)]


def _moved(stepped: Stepped, width: int) -> list[Line]:
    """Write the parameter before and after."""
    return _pair(stepped, "value", one_line(stepped.op.name), width)


def _state(stepped: Stepped, width: int) -> list[Line]:
    roles = dict.fromkeys(value.role for value in (*stepped.op.inputs, *stepped.op.output))
    return [line for role in roles if role != "value" for line in _pair(stepped, role, one_line(role), width)]


def _pair(stepped: Stepped, role: str, name: str, width: int) -> list[Line]:
    before, after = stepped.before(role), stepped.after(role)
    room = max(width // 2 - 4, 12)
    was, now = value_words(before, room), value_words(after, room)
    same = was == now and before and after and role != "value"
    return headed(name, now if same else f"{was} → {now}", width)


def _whole(stepped: Stepped, width: int) -> list[Line]:
    """Say what became of all values where only the first was worked."""
    value = stepped.after("value")
    return _moved(stepped, width) if value is not None and value.stats.size > 1 else []
