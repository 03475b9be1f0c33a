"""SGD: plain, with weight decay, with momentum, dampening and Nesterov's look ahead."""

from __future__ import annotations

from autograd_tui.text.equation import enclosed, exact
from autograd_tui.text.inside.step.stepped import Stepped, Worksheet, signed


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
