"""RMSprop: the averaged square, centered if asked for, and the move, through a velocity if there is momentum."""

from __future__ import annotations

import math

from autograd_tui.text.equation import enclosed, exact
from autograd_tui.text.inside.step.adam import average
from autograd_tui.text.inside.step.descent import changed, decayed
from autograd_tui.text.inside.step.stepped import Stepped, Worksheet


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
