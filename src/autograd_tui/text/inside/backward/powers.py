"""The chain rule of powers: of a number, of a tensor, and of a number to a tensor."""

from __future__ import annotations

from autograd_tui.text.inside.backward.arithmetic import both, derivative
from autograd_tui.text.inside.backward.part import Part, Rule, listed, times
from autograd_tui.text.inside.backward.scene import Scene
from autograd_tui.text.inside.expression import tight
from autograd_tui.text.inside.small import each, logarithm, power
from autograd_tui.text.numbers import terse


def power_of_number(scene: Scene) -> list[Part]:
    """Derive base^n by its base, n a number."""
    base = tight(scene.name(0))
    n = 2.0 if scene.call and scene.call.name in ("square", "square_") else scene.number("exponent")
    if n is None:
        return [Part(0, f"{derivative(f'{base}^n', base)} = n × {base}^(n - 1)", by_value=True)]
    lowered = {1.0: "1", 2.0: f"2 × {base}"}.get(n, f"{terse(n)} × {base}^{terse(n - 1)}")
    known = scene.factor("self", 0)
    local = each(lambda a: n * power(a, n - 1) if n else 0.0, known)
    by = f"2 × {listed(known)}" if known and n == 2 else ""
    return [times(scene, 0, f"{derivative(f'{base}^{terse(n)}', base)} = {lowered}", local, by=by)]


def power_of_tensor(scene: Scene) -> list[Part]:
    """Derive base^exponent by both."""
    base, exponent = map(tight, both(scene))
    of, bases, exponents = f"{base}^{exponent}", scene.factor("self", 0), scene.factor("exponent", 1)
    by_base = each(lambda a, n: n * power(a, n - 1) if n else 0.0, bases, exponents)
    by_exponent = each(_by_exponent, bases, exponents)
    return [
        times(scene, 0, f"{derivative(of, base)} = {exponent} × {base}^({exponent} - 1)", by_base, by=""),
        times(scene, 1, f"{derivative(of, exponent)} = {of} × log({base})", by_exponent, by=""),
    ]


def power_of_scalar(scene: Scene) -> list[Part]:
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


BACKWARD: dict[str, Rule] = {
    "PowBackward0": power_of_number,
    "PowBackward1": power_of_tensor,
    "PowBackward2": power_of_scalar,
}
