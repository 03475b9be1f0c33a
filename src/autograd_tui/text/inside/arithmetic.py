"""The chain rule of arithmetic: add, sub, mul, div, pow, neg, and functions of one number."""

from __future__ import annotations

import math
from collections.abc import Callable

from autograd_tui.text.inside.expression import differential, inner
from autograd_tui.text.inside.part import Part, Rule, listed, scaled, times
from autograd_tui.text.inside.scene import Scene
from autograd_tui.text.inside.small import each
from autograd_tui.text.inside.value_words import terse


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
    of, top, bottom = f"{inner(left)} / {inner(right)}", scene.factor("self", 0), scene.factor("other", 1)
    return [
        times(scene, 0, f"{derivative(of, left)} = 1 / {inner(right)}", each(lambda b: 1 / b, bottom), by=""),
        times(
            scene,
            1,
            f"{derivative(of, right)} = -{inner(left)} / {inner(right)}^2",
            each(lambda a, b: -a / b**2, top, bottom),
            by="",
        ),
    ]


def power_of_number(scene: Scene) -> list[Part]:
    """Derive base^n by its base, n a number."""
    base = inner(scene.name(0))
    n = 2.0 if scene.call and scene.call.name in ("square", "square_") else scene.number("exponent")
    if n is None:
        return [Part(0, f"{derivative(f'{base}^n', base)} = n × {base}^(n - 1)", by_value=True)]
    lowered = {1.0: "1", 2.0: f"2 × {base}"}.get(n, f"{terse(n)} × {base}^{terse(n - 1)}")
    known = scene.factor("self", 0)
    local = each(lambda a: _real(n * a ** (n - 1) if n else 0.0), known)
    by = f"2 × {listed(known)}" if known and n == 2 else ""
    return [times(scene, 0, f"{derivative(f'{base}^{terse(n)}', base)} = {lowered}", local, by=by)]


def power_of_tensor(scene: Scene) -> list[Part]:
    """Derive base^exponent by both."""
    base, exponent = map(inner, both(scene))
    of, bases, exponents = f"{base}^{exponent}", scene.factor("self", 0), scene.factor("exponent", 1)
    by_base = each(lambda a, n: _real(n * a ** (n - 1) if n else 0.0), bases, exponents)
    by_exponent = each(_by_exponent, bases, exponents)
    return [
        times(scene, 0, f"{derivative(of, base)} = {exponent} × {base}^({exponent} - 1)", by_base, by=""),
        times(scene, 1, f"{derivative(of, exponent)} = {of} × log({base})", by_exponent, by=""),
    ]


def power_of_scalar(scene: Scene) -> list[Part]:
    """Derive number^exponent by its exponent."""
    turned = scene.number("other") if scene.call and scene.call.name == "rpow" else scene.number("self")
    exponent, base = inner(scene.name(0)), turned
    of = f"{'number' if base is None else terse(base)}^{exponent}"
    saved = scene.small(scene.saved("exponent"))
    local = each(lambda n: _by_exponent(base, n), saved) if base is not None else None
    log = "log(number)" if base is None else f"log({terse(base)})"
    return [times(scene, 0, f"{derivative(of, exponent)} = {of} × {log}", local, by="")]


def _by_exponent(base: float, exponent: float) -> float:
    return 0.0 if base == 0 and exponent >= 0 else _real(base**exponent) * math.log(base)


def _real(number: float | complex) -> float:
    """Refuse what a negative base with a broken exponent gives: PyTorch has NaN for it."""
    if isinstance(number, complex):
        raise ValueError
    return number


def unary(role: str, of: str, local: str, function: Callable[[float], float]) -> Rule:
    """Make the rule of a function of one number; `role`: what its node saved, of which `function` is taken."""

    def rule(scene: Scene) -> list[Part]:
        name = scene.name(0)
        formula = f"{derivative(of.format(name), name)} = {local.format(inner(name))}"
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
    "PowBackward0": power_of_number,
    "PowBackward1": power_of_tensor,
    "PowBackward2": power_of_scalar,
    "NegBackward0": neg,
    "ReciprocalBackward0": unary("result", "1 / {}", "-1 / {}^2", lambda y: -y * y),
    "ExpBackward0": unary("result", "exp({})", "exp({})", lambda y: y),
    "LogBackward0": unary("self", "log({})", "1 / {}", lambda x: 1 / x),
    "SqrtBackward0": unary("result", "sqrt({})", "1 / (2 × sqrt({}))", lambda y: 0.5 / y),
    "RsqrtBackward0": unary("result", "1 / sqrt({})", "-1/2 × {}^-1.5", lambda y: -0.5 * y**3),
    "AbsBackward0": unary("self", "|{}|", "its sign", lambda x: (x > 0) - (x < 0)),
    "SinBackward0": unary("self", "sin({})", "cos({})", math.cos),
    "CosBackward0": unary("self", "cos({})", "-sin({})", lambda x: -math.sin(x)),
}
