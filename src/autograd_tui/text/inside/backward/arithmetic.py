"""The chain rule of arithmetic: add, sub, mul, div, neg, and functions of one number."""

from __future__ import annotations

import math
from collections.abc import Callable

from autograd_tui.text.inside.backward.part import Part, Rule, scaled, times
from autograd_tui.text.inside.backward.scene import Scene
from autograd_tui.text.inside.expression import differential, inner, tight
from autograd_tui.text.inside.small import each, quotient, wave
from autograd_tui.text.numbers import terse


def derivative(of: str, by: str) -> str:
    """Write what is derived by what: d(w × x)/dw."""
    return f"d({of})/{differential(by)}"


def both(scene: Scene) -> tuple[str, str]:
    """Name the two operands; the two sides of one tensor apart."""
    left, right = scene.name(0), scene.name(1)
    return (f"left {left}", f"right {right}") if left == right else (left, right)


def add(scene: Scene) -> list[Part]:
    """Derive left + right."""
    return _sum(scene, "+", _alpha(scene))


def sub(scene: Scene) -> list[Part]:
    """Derive left - right."""
    alpha = _alpha(scene)
    return _sum(scene, "-", None if alpha is None else -alpha)


def _alpha(scene: Scene) -> float | None:
    """Give what the second operand of a sum is multiplied with; 1 unless the call says otherwise."""
    return 1.0 if scene.words("alpha") is None else scene.number("alpha")


def _sum(scene: Scene, sign: str, by: float | None) -> list[Part]:
    left, right = both(scene)
    factor = "" if by is None or abs(by) == 1 else f"{terse(abs(by))} × "
    of = f"{left} {sign} {factor}{inner(right)}"
    parts = [scaled(scene, 0, f"{derivative(of, left)} = 1", 1.0)]
    if by is None:
        return [*parts, Part(1, f"d/{differential(right)} = {sign}alpha", by_value=True)]
    return [*parts, scaled(scene, 1, f"{derivative(of, right)} = {terse(by)}", by)]


def rsub(scene: Scene) -> list[Part]:
    """Derive other - self, of which self comes first."""
    by = _alpha(scene)
    own, other = both(scene)
    of = f"{inner(other)} - {inner(own)}"
    minus = f"{derivative(of, own)} = -1" if by in (None, 1) else f"d/{differential(own)} = {terse(-(by or 0))}"
    parts = [scaled(scene, 0, minus, None if by is None else -by)]
    return [*parts, scaled(scene, 1, f"{derivative(of, other)} = 1", 1.0)]


def mul(scene: Scene) -> list[Part]:
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


def div(scene: Scene) -> list[Part]:
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

    def rule(scene: Scene) -> list[Part]:
        name = scene.name(0)
        formula = f"{derivative(of.format(name), name)} = {local.format(tight(name), name)}"
        saved = scene.saved(role) or (scene.given(0) if role == "self" else None)
        return [times(scene, 0, formula, each(function, scene.small(saved)), by="")]

    return rule


def neg(scene: Scene) -> list[Part]:
    """Derive -x."""
    name = inner(scene.name(0))
    return [scaled(scene, 0, f"{derivative(f'-{name}', name)} = -1", -1.0)]


BACKWARD: dict[str, Rule] = {
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
