"""What a phase means for the run: whether the loss fell, why a parameter goes its way, what an iteration brought."""

from __future__ import annotations

import math
from functools import lru_cache

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History, Point
from autograd_tui.core.loss_surface import LossSurface, Quadratic
from autograd_tui.core.optimizer_spec import OptimizerSpec
from autograd_tui.core.tensor_stats import StatsTable
from autograd_tui.text.numbers import number, short
from autograd_tui.text.styled_text import Span
from autograd_tui.text.table.layers import MAX_PARAMETER_ROWS, Layers, ParameterColumns

MIN_TIMES_LARGER = 1.5  # of two gradients that are worth a sentence
MAX_NAMED_MOVES = 2  # parameters whose moves an iteration's summary names
MAX_DIGITS = 12  # decimals, which tell any two losses from 0.001 on apart that differ as float32
LESS = "l sets a smaller learning rate, u undoes the step."
NBSP = "\N{NO-BREAK SPACE}"  # where a row must not end


def story(frame: Frame, history: History | None, surface: LossSurface | None) -> list[Span]:
    """Return sentences, each with its style, about how a frame stands to the frames before it; maybe none."""
    if surface is not None and surface.frame is not None:  # it is of some values of many: others move too
        surface = None
    if frame.error or history is None or frame.command is None:
        return []
    if frame.command.name == "lr":
        return _too_large(frame, surface, risen=False)
    if frame.phase is Phase.FORWARD:
        return _compared_loss(frame, history, surface)
    if frame.phase is Phase.BACKWARD:
        return _direction(frame, surface) if surface is not None else _largest_per_value(frame)
    if frame.phase is Phase.ZERO_GRAD:
        return _iteration(frame, history, surface)
    return []


def losses_of(frame: Frame, history: History | None) -> tuple[Point, Point] | None:
    """Return the loss before a frame's and its own, as far as both are known and finite."""
    now = history.loss.at(frame.index) if history is not None else None
    if history is None or now is None or now.value != frame.loss:
        return None
    before = history.loss.at(now.index - 1)
    if frame.script is not None and before is not None and not _is_one_loss(before, now, history):
        return None
    return (before, now) if before is not None and math.isfinite(before.value) and math.isfinite(now.value) else None


def _is_one_loss(before: Point, now: Point, history: History) -> bool:
    """Return whether two losses of a script are of two iterations that have no other: else they may be of two kinds."""
    earlier = history.loss.at(before.index - 1)
    return before.iteration < now.iteration and (earlier is None or earlier.iteration < before.iteration)


def both_losses(before: float, now: float) -> str:
    """Write two losses with the digits that it takes to see how far they are apart: "0.001283 → 0.001278"."""
    texts = "", ""
    for digits in range(4, MAX_DIGITS + 1):
        texts = number(before, digits=digits), number(now, digits=digits)
        if change_of_loss(*map(float, texts)) == change_of_loss(before, now):
            break
    return " → ".join(texts)


def change_of_loss(before: float, now: float) -> str:
    """Write how far a loss has changed: "down 9.5 %", "up 3 %", "the same"."""
    if before == now:
        return "the same"
    way = "down" if now < before else "up"
    if before <= 0 or now < 0:
        return f"{way} by{NBSP}{number(abs(now - before))}"
    share = abs(now - before) / before
    return f"{way}{NBSP}{_percent(share)}" if share < 10 else f"{way}{NBSP}{now / before:.0f}-fold"


def _percent(share: float) -> str:
    """Write a share of 1 in percent, small ones as less than the least that is written."""
    return f"{share:.1%}".replace("%", f"{NBSP}%") if share >= 0.0005 else f"less than 0.1{NBSP}%"


def _compared_loss(frame: Frame, history: History, surface: LossSurface | None) -> list[Span]:
    losses = losses_of(frame, history)
    if losses is None:
        return []
    before, now = losses
    risen = now.value > before.value and not _climbs(frame)
    since = "" if now.iteration - before.iteration == 1 else f" since iteration {before.iteration}"
    if now.iteration == before.iteration:
        since = ", with no step between" if frame.loss_params == frame.params and not frame.moved else ""
    compared = f"Loss {both_losses(before.value, now.value)}: {change_of_loss(before.value, now.value)}{since}"
    cause = _cause(frame, before.value, surface) if risen else ""
    advice = _too_large(frame, surface, risen=risen) or ([(LESS, "error")] if cause else [])
    return [(f"{compared}{cause}.", "error" if risen else "strong"), *advice]


def _cause(frame: Frame, before: float, surface: LossSurface | None) -> str:
    """Return a sentence where a step is known to have made the loss rise: same data, and nothing else has moved."""
    lowest = surface.quadratic if surface is not None else None
    stepped = frame.mover is not None and frame.mover.phase is Phase.STEP
    if lowest is None or not lowest.exact or not stepped or frame.before is None or _climbs(frame):
        return ""
    x, y = (value for row in frame.before for value in row.values or ())
    if not math.isclose(lowest.loss_at(x, y), before, rel_tol=1e-3):
        return ""  # other data, or the parameters were others then
    return ": the step before went too far"


def _climbs(frame: Frame) -> bool:
    """Return whether the optimizer makes the loss larger, as it is asked to."""
    return bool(dict(OptimizerSpec.parse(frame.optimizer).options).get("maximize"))


def _too_large(frame: Frame, surface: LossSurface | None, *, risen: bool) -> list[Span]:
    """Return a warning where the learning rate is above the one from which on this loss diverges."""
    lowest = surface.quadratic if surface else None
    critical = _critical_lr(frame, lowest) if lowest is not None and lowest.exact else None
    if critical is None or frame.learning_rate <= critical:
        return []
    # The number that decides stands first, and all of it fits a row of the screen of a lecture hall.
    return [(f"Above lr {short(critical)} this loss diverges: press l.", "error" if risen else "warn")]


def _critical_lr(frame: Frame, lowest: Quadratic) -> float | None:
    """Return the learning rate from which on the run diverges; None for another optimizer than SGD with momentum."""
    spec = OptimizerSpec.parse(frame.optimizer)
    options = dict(spec.options)
    if spec.name != "sgd" or set(options) - {"momentum"} or frame.groups is not None or frame.frozen:
        return None
    momentum = options.get("momentum", 0.0)
    return lowest.critical_lr(momentum) if isinstance(momentum, (int, float)) else None


def _direction(frame: Frame, surface: LossSurface) -> list[Span]:
    """Return why the gradient sends the first value where it does, from where the loss is lowest for the other one."""
    values = [value for row in frame.params for value in row.values or ()]
    slopes = [value for grad in frame.grads for value in (grad.values if grad and grad.backwards == 1 else ()) or ()]
    lowest = surface.quadratic
    if lowest is None or not lowest.exact or len(values) != 2 or len(slopes) != 2 or frame.grads_params != frame.params:
        return []
    if not all(map(math.isfinite, (*values, *slopes))) or _climbs(frame):
        return []
    (x, y), (x_name, y_name) = values, surface.names
    best = lowest.best_x(y)
    if abs(best - x) < 1e-4 * max(1.0, abs(x)) or (best > x) != (slopes[0] < 0):
        return []
    way = "up" if best > x else "down"
    sentence = f"With {y_name} at {short(y)} {x_name} is best at {short(best)}: the gradient sends {x_name} {way}"
    away = (best > x) != (lowest.x > x)
    return [(f"{sentence}{f', though {short(lowest.x)} is best in the end' if away else ''}.", "strong")]


def _largest_per_value(frame: Frame) -> list[Span]:
    """Compare the layers of a large model by the size of one value of the gradient, which a norm hides."""
    names = frame.params.layout.names
    if len(names) <= MAX_PARAMETER_ROWS:
        return []
    columns = ParameterColumns.of(frame)
    sizes = {layer: columns.grad_rms(indices) for layer, indices in _layers(names).groups.items()}
    ranked = sorted((size, layer) for layer, size in sizes.items() if size is not None and 0 < size < math.inf)
    if len(ranked) < 2 or any(size is not None and not math.isfinite(size) for size in sizes.values()):
        return []
    (least, small), (most, large) = ranked[0], ranked[-1]
    times = most / least
    if times < MIN_TIMES_LARGER:
        return []
    ratio = f"{times:.1f}" if times < 9.95 else f"{times:,.0f}" if times < 1e6 else f"{times:.1e}"
    return [(f"Per value the gradient is {ratio} times larger in {large} than in {small}.", "strong")]


@lru_cache(maxsize=2)
def _layers(names: tuple[str, ...]) -> Layers:
    return Layers.of(names)


def _iteration(frame: Frame, history: History, surface: LossSurface | None) -> list[Span]:
    if frame.loss is None or frame.before is None or frame.mover is None or frame.mover.phase is not Phase.STEP:
        return []
    if frame.script is not None and losses_of(frame, history) is None:
        return []  # the iteration may measure another loss after this one
    loss, risen = f"loss {number(frame.loss)}", False
    if losses := losses_of(frame, history):
        before, now = losses
        risen = now.value > before.value and not _climbs(frame)
        since = "" if now.iteration - before.iteration == 1 else f" since iteration {before.iteration}"
        loss = f"loss {both_losses(before.value, now.value)}, {change_of_loss(before.value, now.value)}{since}"
    sentence = f"Iteration {frame.iteration}: {loss}{_moves(frame, frame.before)}."
    return [(sentence, "error" if risen else "strong"), *_too_large(frame, surface, risen=risen)]


def _moves(frame: Frame, before: StatsTable) -> str:
    """Write how far each of a few parameters has moved, or that none has."""
    if frame.params.whole and before == frame.params:
        return ", and no parameter has moved"
    if len(frame.params) > MAX_NAMED_MOVES:
        return ""
    moves = [
        f"{new.name}{NBSP}{number(new.values[0] - old.values[0], signed=True)}"
        for old, new in zip(before, frame.params, strict=True)
        if new.size == 1 and new.values and old.values
    ]
    return f", {', '.join(moves)}" if len(moves) == len(frame.params) else ""


def standstill_line(frame: Frame, iterations: int) -> str:
    """Return that a run ends since nothing has changed for so many iterations, and why not, as far as known."""
    since = f"in the last {iterations:,} iterations no parameter has changed by a bit"
    return f"the run ends here: {since}{_why_still(frame)}."


def _why_still(frame: Frame) -> str:
    rows = list(frame.params)
    if rows and all(row.nonfinite == row.size for row in rows):
        return ": what they hold is NaN or infinite, and stays so"
    if not any(frame.learning_rates):
        return ": the learning rate is 0"
    grads = frame.last_grads if frame.phase is Phase.ZERO_GRAD else frame.grads
    if grads is None or not any(grads.backwards):
        return ": no parameter gets a gradient"
    if not any(norm for norm, backwards in zip(grads.norms(), grads.backwards, strict=True) if backwards):
        return ": every gradient is 0"
    return ": what a step would move is too little for their digits to hold"
