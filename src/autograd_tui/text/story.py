"""What a phase means for the run: whether the loss fell, why a parameter goes its way, what an iteration brought."""

from __future__ import annotations

import math

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History
from autograd_tui.core.loss_surface import LossSurface, Quadratic
from autograd_tui.core.optimizer_spec import OptimizerSpec
from autograd_tui.text.numbers import number, short
from autograd_tui.text.styled_text import Span

MAX_NAMED_MOVES = 2  # parameters whose moves an iteration's summary names


def story(frame: Frame, history: History | None, surface: LossSurface | None) -> list[Span]:
    """Return sentences, each with its style, about how a frame stands to the frames before it; maybe none."""
    if frame.error or history is None or frame.phase is None:
        return []
    if frame.phase is Phase.FORWARD:
        return _compared_loss(frame, history, surface)
    if frame.phase is Phase.BACKWARD and surface is not None:
        return _direction(frame, surface)
    if frame.phase is Phase.ZERO_GRAD:
        return _iteration(frame, history, surface)
    return []


def _losses(frame: Frame, history: History) -> tuple[float, float] | None:
    """Return the loss before and now, as far as both are known and finite."""
    now = history.loss.at(frame.index)
    before = history.loss.at(now.index - 1) if now else None
    if now is None or before is None or not (math.isfinite(now.value) and math.isfinite(before.value)):
        return None
    return before.value, now.value


def _change(before: float, now: float) -> str:
    """Write how far a loss has changed: "down 9.5 %", "up 3 %", "the same"."""
    if before == now:
        return "the same"
    way = "down" if now < before else "up"
    if before <= 0 or now < 0:
        return f"{way} by {number(abs(now - before))}"
    share = abs(now - before) / before
    return f"{way} {share:.1%}".replace("%", " %") if share < 10 else f"{way} {now / before:.0f}-fold"


def _compared_loss(frame: Frame, history: History, surface: LossSurface | None) -> list[Span]:
    losses = _losses(frame, history)
    if losses is None:
        return []
    before, now = losses
    risen = now > before
    compared = f"The loss before it was {number(before)}: {_change(before, now)}."
    return [(compared, "error" if risen else ""), *_too_large(frame, surface, risen=risen)]


def _too_large(frame: Frame, surface: LossSurface | None, *, risen: bool) -> list[Span]:
    """Say so where the learning rate is above the one from which on this loss diverges."""
    lowest = surface.quadratic if surface else None
    critical = _critical_lr(frame, lowest) if lowest is not None and lowest.exact else None
    if critical is None or frame.learning_rate <= critical:
        return []
    rate = short(frame.learning_rate)
    return [
        (
            f"lr {rate} is too large: above {short(critical)} this loss diverges. l sets another.",
            "error" if risen else "warn",
        )
    ]


def _critical_lr(frame: Frame, lowest: Quadratic) -> float | None:
    """Return the learning rate from which on the run diverges; None for another optimizer than SGD with momentum."""
    spec = OptimizerSpec.parse(frame.optimizer)
    options = dict(spec.options)
    if spec.name != "sgd" or set(options) - {"momentum"} or frame.groups is not None:
        return None
    momentum = options.get("momentum", 0.0)
    return lowest.critical_lr(momentum) if isinstance(momentum, (int, float)) else None


def _direction(frame: Frame, surface: LossSurface) -> list[Span]:
    """Say why the first value goes where the gradient sends it, where that is not where it will end."""
    values = [value for row in frame.params for value in row.values or ()]
    lowest = surface.quadratic
    if lowest is None or not lowest.exact or len(values) != 2:
        return []
    (x, y), (x_name, y_name) = values, surface.names
    best = lowest.best_x(y)
    if abs(best - x) < 1e-4 * max(1.0, abs(x)):
        return []
    way, side = ("up", "above") if best > x else ("down", "below")
    sentence = f"With {y_name} at {short(y)} the best {x_name} is {short(best)}, {side} {short(x)}: {x_name} goes {way}"
    away = (best > x) != (lowest.x > x)
    return [(f"{sentence}{f', away from {short(lowest.x)}, its best in the end' if away else ''}.", "strong")]


def _iteration(frame: Frame, history: History, surface: LossSurface | None) -> list[Span]:
    losses = _losses(frame, history)
    if losses is None or frame.before is None or frame.mover is None or frame.mover.phase is not Phase.STEP:
        return []
    before, now = losses
    moves = [
        f"{new.name} {number(new.values[0] - old.values[0], signed=True)}"
        for old, new in zip(frame.before, frame.params, strict=True)
        if new.size == 1 and new.values and old.values
    ]
    moved = f", {', '.join(moves)}" if 0 < len(moves) <= MAX_NAMED_MOVES and len(moves) == len(frame.params) else ""
    what = f"Iteration {frame.iteration}: loss {number(before)} → {number(now)}, {_change(before, now)}{moved}."
    risen = now > before
    return [(what, "error" if risen else "strong"), *_too_large(frame, surface, risen=risen)]
