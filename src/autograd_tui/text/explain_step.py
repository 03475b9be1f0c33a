"""What a step did, in words and arithmetic that hold for every optimizer."""

from __future__ import annotations

import math
import re
from collections.abc import Collection

from autograd_tui.core.frame import Frame
from autograd_tui.core.optimizer_spec import OptimizerSpec
from autograd_tui.core.tensor_stats import NONFINITE_COLUMN, ROW_WIDTH, SAMPLE_SIZE, GradStats, StatsTable, TensorStats
from autograd_tui.text.derivation.optimizer_step import STEP_RULES, ParameterUpdate
from autograd_tui.text.equation import equation, evaluated, fixed
from autograd_tui.text.numbers import measured, number, percentage, rate, terse
from autograd_tui.text.optimizer_words import describe_update, goes_uphill, has_velocity, is_plain_sgd

OPTION_DEFAULTS = {  # of torch.optim, for what a command leaves out; where they are others, no arithmetic comes out
    "adam": {"betas": "(0.9, 0.999)", "eps": "1e-08"},
    "adamw": {"betas": "(0.9, 0.999)", "eps": "1e-08", "weight_decay": "0.01"},
    "rmsprop": {"alpha": "0.99", "eps": "1e-08"},
}

_MEANS = "m and v are averages of the gradient and of its square; m_hat and v_hat make up for their start at 0."
WORKED_UPDATES = {  # what moves each parameter, in the symbols of the rows below it, and what they stand for
    "adam": ("lr × m_hat / sqrt(v_hat)", _MEANS),
    "adamw": ("lr × m_hat / sqrt(v_hat), after weight decay", _MEANS),
    "rmsprop": ("lr × gradient / sqrt(s)", "s is an average of the gradient's square."),
}


def explain_step(frame: Frame) -> list[str]:
    """Return sentences on what moved the parameters, how far, and what is old now."""
    if frame.grads.state == "none":
        each = "every gradient that the optimizer holds" if any(frame.grads.backwards) else "every gradient"
        return [f"step moved nothing: {each} is None, so it had nothing to use.", *loss_age(frame)]
    if any(frame.grads.backwards[index] for index in frame.params.layout.left_out()):
        return ["step ran; some parameters are of a kind that has no numbers here, so what moved cannot be said."]
    if frame.before is None or frame.before is frame.params:
        return [f"step ran, and no parameter has changed{_why_not(frame)}.", *_schedule_lines(frame), *loss_age(frame)]
    each = "each parameter of the optimizer" if frame.grads.outside else "each parameter"
    each += " that has a gradient" * (len(_params_with_gradient(frame)) + len(frame.grads.outside) < len(frame.params))
    spellings = frame.groups.optimizers if frame.groups else (frame.optimizer,)
    points_downhill = all(map(is_plain_sgd, spellings)) and _points_downhill(frame)
    downhill = ", in the downhill direction" * points_downhill
    moves, rules = _moves(frame), list(dict.fromkeys(map(describe_update, spellings)))
    by = rules[0] if len(rules) == 1 else "the rule of its group"
    worked = len(rules) == 1 and any(move.startswith("    ") for move in moves)
    symbols = _update_in_symbols(spellings[0]) if worked else None
    if symbols is not None:
        by = symbols[0]
    sentences = [f"step moved {each} by {by}{downhill}{':' if moves else '.'}", *moves]
    sentences += [
        f"  {frame.group_name(number)}: {describe_update(each)}"
        for number, each in enumerate(spellings)
        if len(rules) > 1
    ]
    if symbols is not None:
        sentences.append(symbols[1])
    if frame.grads_params is None:
        sentences.append("Some gradients belong to other parameters: this need not be downhill.")
    elif _made_elsewhere(frame):
        sentences.append("The gradients belong to other parameters: this need not be downhill.")
    return [
        *sentences,
        *_schedule_lines(frame),
        *loss_age(frame),
        "The gradients stay until zero_grad: a backward would add.",
    ]


def _update_in_symbols(optimizer: str) -> tuple[str, str] | None:
    """Return what moves each parameter in symbols, and what they mean; None where options change the formula."""
    spec = OptimizerSpec.parse(optimizer)
    usual = {"betas", "eps", "alpha"} | ({"weight_decay"} if spec.name == "adamw" else set())
    return WORKED_UPDATES.get(spec.name) if {name for name, _ in spec.options} <= usual else None


def loss_age(frame: Frame) -> list[str]:
    """Return a sentence where the loss belongs to parameters that are gone."""
    if frame.loss is None or not frame.loss_is_old:
        return []
    return [f"The loss {number(frame.loss)} is from before the parameters moved: forward makes a new one."]


def why_no_gradient(frame: Frame, index: int) -> str:
    """Return a sentence on why a parameter has no gradient, where that is known."""
    if index in frame.frozen:
        return ", since it is frozen"
    return ", since no gradient reached it" if index in frame.unused else ""


def _why_not(frame: Frame) -> str:
    """Return a sentence on why nothing has changed, as far as the numbers tell."""
    if not any(frame.step_rates or (frame.step_rate,)):
        return ": the learning rate is 0"
    held = _params_with_gradient(frame)
    slopes = [frame.grads.norms()[index] for index in held]
    if not all(norm is not None and math.isfinite(norm) for norm in slopes):
        return ""
    if not any(slopes):
        plain = all(is_plain_sgd(frame.optimizer_of(index)) for index in held)
        return f": the gradients are exactly 0{'' if plain else ', and the rest of the rule moves nothing'}"
    moving = [index for index, norm in zip(held, slopes, strict=True) if norm and frame.step_rate_of(index)]
    if not moving:
        return ": where the gradient is not 0, the learning rate is"
    if all((row := frame.params[index]).nonfinite == row.size for index in moving):
        return ": what they hold is NaN or infinite, and stays so"
    return ": what it would move is too little for their digits to hold"


def _params_with_gradient(frame: Frame) -> list[int]:
    """Find the parameters that a step uses gradients of."""
    return [index for index, count in enumerate(frame.grads.backwards) if count and index not in frame.grads.outside]


def _made_elsewhere(frame: Frame) -> bool:
    """Return whether the parameters were others when the gradients were made."""
    return frame.before != frame.grads_params


def _points_downhill(frame: Frame) -> bool:
    """Return whether the gradients are those of one loss, that of the last forward, where the parameters were."""
    table, held = frame.grads.table, _params_with_gradient(frame)
    finite = not table.layout.left_out() and not any(table.numbers[NONFINITE_COLUMN::ROW_WIDTH])
    finite = finite and frame.loss is not None and math.isfinite(frame.loss)
    once = all(frame.grads.backwards[index] == 1 for index in held)
    return finite and once and frame.graph != "alive" and not _made_elsewhere(frame)


def _schedule_lines(frame: Frame) -> list[str]:
    if frame.step_rate is None or frame.step_rate == frame.learning_rate:
        return []
    return [
        f"Then the scheduler changed the learning rate from {rate(frame.step_rate)} to {rate(frame.learning_rate)}."
    ]


def _moves(frame: Frame) -> list[str]:
    """Show the arithmetic of few parameters; of many, which moved most and least."""
    assert frame.before is not None
    if len(frame.params) > 4:
        return largest_and_least_move(frame)
    rows = zip(frame.before, frame.params, frame.grads, frame.move_norms or (), strict=False)
    lines = []
    for index, row in enumerate(rows):
        lines += _worked_move(frame, index, *row[:3]) or ["  " + _move(frame, index, *row)]
    return lines


def _worked_move(frame: Frame, index: int, old: TensorStats, new: TensorStats, grad: GradStats | None) -> list[str]:
    """Work the optimizer's formula in the numbers of one value, its last row the move; [] where they are not known.

    Steps of the calculation begin with four blanks.
    """
    spec = OptimizerSpec.parse(frame.optimizer_of(index))
    rule, lr = STEP_RULES.get(spec.name), frame.step_rate_of(index)
    if rule is None or frame.state_before is None or lr is None or grad is None or is_plain_sgd(str(spec)):
        return []
    settings = OPTION_DEFAULTS.get(spec.name, {}) | {name: str(value) for name, value in spec.options}
    update = ParameterUpdate(
        name=new.name,
        optimizer=str(spec),
        settings={**settings, "lr": repr(lr)},
        numbers_before=_numbers(frame.state_before, old) | {"grad": _number_of(grad)},
        numbers_after=_numbers(frame.optimizer_state, new),
    )
    if not update.has_numbers or old.dtype not in ("float32", "float64"):
        return []
    derivation = rule(update)
    *steps, move = derivation.equations
    if not all(each.agrees(update.tolerance) and math.isfinite(each.computed) for each in derivation.equations):
        return []
    lines = [f"    {new.name}  {evaluated(each.text, [each.result], terse(each.result))}" for each in steps]
    body = _without_small_eps(move.text.removeprefix(f"{new.name} = "))
    written = evaluated(body, [move.result], number(move.result), shown=number)
    return [*lines, f"  {new.name}  {written}{_turned(frame, index, move.result - update.value, grad)}"]


def _without_small_eps(text: str) -> str:
    """Leave eps out of a quotient where it is too small to show in any digit."""
    found = re.search(r"\((sqrt\(([^()]+)\)) \+ ([^()]+)\)", text)
    if found is None or not 1e-6 * math.sqrt(float(found[2])) > float(found[3]):
        return text
    return text.replace(found[0], found[1])


def _numbers(state: StatsTable, param: TensorStats) -> dict[str, float | None]:
    """Return the values of a parameter and its optimizer state by role, of those that have one value."""
    prefix = f"{param.name}."
    rows = {row.name.removeprefix(prefix): _number_of(row) for row in state if row.name.startswith(prefix)}
    return {**rows, "value": _number_of(param)}


def _number_of(row: TensorStats) -> float | None:
    return row.values[0] if row.values is not None and row.size == 1 else None


def _turned(frame: Frame, index: int, moved: float, grad: GradStats) -> str:
    """Return a sentence where a parameter did not go the way in which its gradient alone would send it."""
    slope = grad.values[0] if grad.values else 0.0
    uphill = moved * slope * (-1 if goes_uphill(frame.optimizer_of(index)) else 1) > 0
    return ", not the way its gradient alone would send it" if uphill else ""


def _move(
    frame: Frame, index: int, old: TensorStats, new: TensorStats, grad: GradStats | None, moved: float | None
) -> str:
    name, optimizer, lr = new.name, frame.optimizer_of(index), frame.step_rate_of(index)
    if index in frame.grads.outside and not moved:
        return f"{name}  stays: the optimizer does not hold it"
    if grad is None and not moved:
        return f"{name}  stays: its gradient is None{why_no_gradient(frame, index)}"
    if moved is None:
        return f"{name}  has a gradient; how far it moved was not measured"
    if not (old.size == 1 and old.values and new.values):
        return f"{name}  moved by {measured(moved, sampled=new.size > SAMPLE_SIZE)} (norm)"
    was, now = old.values[0], new.values[0]
    if grad is None or not grad.values:
        yet = "" if was == now else f", yet it is {number(now)}"
        return f"{name}  {number(was)}: its gradient is None{why_no_gradient(frame, index)}{yet}"
    turned = _turned(frame, index, now - was, grad)
    velocity = frame.optimizer_state.named(f"{name}.momentum_buffer") if has_velocity(optimizer) else None
    by = grad.values[0] if is_plain_sgd(optimizer) else velocity.values[0] if velocity and velocity.values else None
    if by is None or lr is None or not math.isfinite(by):
        return f"{name}  {number(was)} → {number(now)}{turned}"
    rate_used, size, sign = lr, abs(by), "-" if by >= 0 else "+"

    def written(digits: int) -> str:
        return f"{fixed(was, digits)} {sign} {rate_used:.{digits}g} × {fixed(size, digits)}"

    return f"{name}  {equation(written, [now])}{turned}"


def largest_and_least_move(frame: Frame, of: Collection[int] | None = None) -> list[str]:
    """Name the parameters that moved most and least for their size, of those that had a gradient, or some of them."""
    assert frame.before is not None
    rows = enumerate(zip(frame.before.norms(), frame.grads.backwards, frame.move_norms or (), strict=False))
    shares = [
        (moved / norm, index)
        for index, (norm, backwards, moved) in rows
        if norm and backwards and moved is not None and (of is None or index in of)
    ]
    ranked = sorted(shares, key=lambda pair: pair[0])
    if not ranked:
        return []
    ends = (("most: ", *ranked[-1]), ("least:", *ranked[0]))[: len(ranked)]
    return [f"  {word} {_share_of(frame.params[index], share)} of it" for word, share, index in ends]


def _share_of(row: TensorStats, share: float) -> str:
    return f"{row.name}, {percentage(share, sampled=row.size > SAMPLE_SIZE)}"
