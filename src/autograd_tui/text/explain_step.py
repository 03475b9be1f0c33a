"""What a step did, in words and arithmetic that hold for every optimizer."""

from __future__ import annotations

import math

from autograd_tui.engine.values.frame import Frame
from autograd_tui.engine.values.stats_table import NONFINITE, SAMPLE, WIDTH, GradStats, TensorStats
from autograd_tui.text.numbers import measured, number, percentage, rate, short
from autograd_tui.text.rules import has_velocity, is_plain_sgd, rule


def explain_step(frame: Frame) -> list[str]:
    """Say what moved the parameters, how far, and what is old now."""
    if frame.grads.state == "none":
        return ["step moved nothing: every gradient is None, so it had nothing to use.", *loss_age(frame)]
    if any(frame.grads.backwards[place] for place in frame.params.layout.left_out()):
        return ["step ran; some parameters are of a kind that has no numbers here, so what moved cannot be said."]
    if frame.before is None or frame.before is frame.params:
        return [f"step ran, and no parameter has changed: {_why_not(frame)}", *_scheduled(frame), *loss_age(frame)]
    each = "each parameter" if all(frame.grads.backwards) else "each parameter that has a gradient"
    spellings = frame.groups.optimizers if frame.groups else (frame.optimizer,)
    downhill = ", downhill" if all(map(is_plain_sgd, spellings)) and _points_downhill(frame) else ""
    moves, rules = _moves(frame), list(dict.fromkeys(map(rule, spellings)))
    by = rules[0] if len(rules) == 1 else "the rule of its group"
    said = [f"step moved {each} by {by}{downhill}{':' if moves else '.'}", *moves]
    said += [f"  group {number}: {rule(each)}" for number, each in enumerate(spellings) if len(rules) > 1]
    if _made_elsewhere(frame):
        said.append("The gradients were made with other parameters than these, so this need not be downhill.")
    return [*said, *_scheduled(frame), *loss_age(frame), "The gradients stay until zero_grad: a backward would add."]


def loss_age(frame: Frame) -> list[str]:
    """Say that the loss belongs to parameters that are gone, where it does."""
    if frame.loss is None or not frame.old:
        return []
    return [f"The loss {number(frame.loss)} is from before the parameters moved: forward makes a new one."]


def why_none(frame: Frame, place: int) -> str:
    """Say why a parameter has no gradient, where that is known."""
    if place in frame.frozen:
        return ", since it is frozen"
    return ", since no gradient reached it" if place in frame.unused else ""


def _why_not(frame: Frame) -> str:
    if not any(frame.step_rates or (frame.step_rate,)):
        return "the learning rate is 0."
    return "what it would move is too little for their digits to hold."


def _made_elsewhere(frame: Frame) -> bool:
    """Tell whether something moved the parameters between the forward that the gradients come from and this step."""
    return frame.loss_params is not None and frame.before != frame.loss_params


def _points_downhill(frame: Frame) -> bool:
    table = frame.grads.table
    finite = not table.layout.left_out() and not any(table.numbers[NONFINITE::WIDTH])
    return finite and max(frame.grads.backwards) == 1 and not _made_elsewhere(frame)


def _scheduled(frame: Frame) -> list[str]:
    if frame.step_rate is None or frame.step_rate == frame.learning_rate:
        return []
    return [
        f"Then the scheduler changed the learning rate from {rate(frame.step_rate)} to {rate(frame.learning_rate)}."
    ]


def _moves(frame: Frame) -> list[str]:
    """Show the arithmetic of few parameters; of many, which moved most and least."""
    assert frame.before is not None
    if len(frame.params) > 4:
        return _most_and_least(frame)
    rows = zip(frame.before, frame.params, frame.grads, frame.ways or (), strict=False)
    return ["  " + _move(frame, place, *row) for place, row in enumerate(rows)]


def _move(
    frame: Frame, place: int, old: TensorStats, new: TensorStats, grad: GradStats | None, moved: float | None
) -> str:
    name, optimizer, lr = new.name, frame.optimizer_of(place), frame.step_rate_of(place)
    if grad is None and not moved:
        return f"{name}  stays: its gradient is None{why_none(frame, place)}"
    if moved is None:
        return f"{name}  has a gradient; how far it moved was not measured"
    if not (old.size == 1 and old.values and new.values):
        return f"{name}  moved by {measured(moved, sampled=new.size > SAMPLE)} (norm)"
    was, now = old.values[0], new.values[0]
    if grad is None or not grad.values:
        yet = "" if was == now else f", yet it is {number(now)}"
        return f"{name}  {number(was)}: its gradient is None{why_none(frame, place)}{yet}"
    turned = ", not the way its gradient alone would send it" if (now - was) * grad.values[0] > 0 else ""
    velocity = frame.optimizer_state.named(f"{name}.momentum_buffer") if has_velocity(optimizer) else None
    by = grad.values[0] if is_plain_sgd(optimizer) else velocity.values[0] if velocity and velocity.values else None
    if by is None or lr is None or not math.isfinite(by):
        return f"{name}  {number(was)} → {number(now)}{turned}"
    sign = "-" if by >= 0 else "+"
    return f"{name}  {number(was)} {sign} {short(lr)} × {number(abs(by))} = {number(now)}{turned}"


def _most_and_least(frame: Frame) -> list[str]:
    """Name the parameters that moved most and least for their size, of those that had a gradient."""
    assert frame.before is not None
    rows = enumerate(zip(frame.before.norms(), frame.grads.backwards, frame.ways or (), strict=False))
    shares = [
        (moved / norm, place) for place, (norm, backwards, moved) in rows if norm and backwards and moved is not None
    ]
    ranked = sorted(shares, key=lambda pair: pair[0])
    if not ranked:
        return []
    ends = (("most: ", *ranked[-1]), ("least:", *ranked[0]))
    return [f"  {word} {_share_of(frame.params[place], share)} of it" for word, share, place in ends]


def _share_of(row: TensorStats, share: float) -> str:
    return f"{row.name}, {percentage(share, sampled=row.size > SAMPLE)}"
