"""What a script of the user's own has just done, in sentences that are true of any script."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame, TorchError
from autograd_tui.core.script_stop import ScriptStop
from autograd_tui.text.explain_backward import (
    MAX_NAMED,
    count_parameters,
    explain_gradients,
    list_names,
    reached_by_backward,
)
from autograd_tui.text.explain_step import explain_step, largest_and_least_move, loss_age
from autograd_tui.text.numbers import number, rate, short
from autograd_tui.text.optimizer_words import describe_update, rates
from autograd_tui.text.script_lines import base_name
from autograd_tui.text.styled_text import printable


def explain_script(frame: Frame, stop: ScriptStop) -> list[str]:
    """Return sentences on what the script's last call did, and what the script did itself before it."""
    if frame.error:
        return _raised(frame.error)
    return [*_by_hand(frame, stop), *_happened(frame, stop), *_circumstances(stop)]


def _happened(frame: Frame, stop: ScriptStop) -> list[str]:
    if frame.command is None:
        return _first_frame(frame, stop)
    if frame.phase is Phase.FORWARD:
        return _forward(frame, stop)
    if frame.phase is Phase.BACKWARD:
        return _backward(frame, stop)
    if frame.phase is Phase.STEP:
        return _step(frame, stop)
    if frame.phase is Phase.ZERO_GRAD:
        return _zero_grad(frame, stop)
    calls = {"grad": _grad, "unscale": _unscale, "clip": _clip, "scheduler": _scheduler}
    if frame.command.name in calls:
        return calls[frame.command.name](frame, stop)
    return _setting(frame)


def _first_frame(frame: Frame, stop: ScriptStop) -> list[str]:
    values = sum(map(math.prod, frame.params.layout.shapes))
    before = f" before {stop.call}" if stop.call else ""
    return [
        f"Frame 0: the script{before}, with nothing of its training seen yet.",
        f"{count_parameters(len(frame.params))} with {values:,} {'value' if values == 1 else 'values'} found.",
    ]


# The kinds of calls.


def _forward(frame: Frame, stop: ScriptStop) -> list[str]:
    name = _capital(loss_name(stop), "the loss")
    loss = "not one number" if frame.loss is None else number(frame.loss)
    made_by = f", made by {_listed(stop.models)}" if stop.models else ""
    sentences = [f"{name} is {loss}{made_by}. backward has not begun: the script is held in front of it."]
    if frame.loss is not None and stop.scaled_loss is not None:
        by = f", {_factor(frame, stop)} times as much" if _is_quotient(frame, stop) else ""
        sentences.append(f"GradScaler has scaled it: backward starts from {number(stop.scaled_loss)}{by}.")
    if frame.graph == "none":
        sentences.append("It has no graph to go back through, so backward will raise.")
    if any(frame.grads.backwards):
        sentences.append("There are gradients from before: backward adds to those that it reaches.")
    return sentences


def loss_name(stop: ScriptStop) -> str:
    """Return what the script calls the loss that it calls backward on, "the loss" where that has no plain name."""
    return (name_in(stop.call) if stop.library is None else "") or "the loss"


def name_in(call: str) -> str:
    """Return the name of the loss that a call of backward names; "" where it names none."""
    found = _LOSS.fullmatch(call)
    return found[1] or found[2] if found else ""


_LOSS = re.compile(r"(?:\w+\.)*scale\((\w+)\)\.backward|([\w.]+)\.backward")


def _capital(words: str, plain: str) -> str:
    """Begin a sentence with words of the screen's own by a capital; a name stays as it is."""
    return words.capitalize() if words == plain else words


def _is_quotient(frame: Frame, stop: ScriptStop) -> bool:
    return bool(frame.loss and stop.scaled_loss and math.isfinite(frame.loss) and math.isfinite(stop.scaled_loss))


def _factor(frame: Frame, stop: ScriptStop) -> str:
    """Write by how much the loss was scaled: as a rule a power of two."""
    assert frame.loss is not None
    assert stop.scaled_loss is not None
    factor = stop.scaled_loss / frame.loss
    return f"{factor:,.0f}" if factor > 1 and math.isclose(factor, round(factor), rel_tol=1e-6) else short(factor)


def _backward(frame: Frame, stop: ScriptStop) -> list[str]:
    reached = reached_by_backward(frame)
    sentences = [f"backward computed the gradient of {loss_name(stop)} for {count_parameters(len(reached))}."]
    sentences += explain_gradients(frame, reached)
    if stop.scaled_loss is not None:
        by = f"{_factor(frame, stop)} times as large as the loss's own, " if _is_quotient(frame, stop) else ""
        sentences.append(f"They are of the scaled loss: {by}until they are unscaled.")
    summed = max((frame.grads.backwards[index] for index in reached), default=0)
    if summed > 1:
        alike = {frame.grads.backwards[index] for index in reached} == {summed}
        sentences.append(
            f"It was added to what was there: each .grad is {'' if alike else 'up to '}the sum of {summed} backwards."
        )
    elif stop.backwards > 1:
        sentences.append(f"It is backward {stop.backwards} since the last step or zero_grad.")
    if frame.graph == "alive":
        sentences.append("The graph has been kept, so another backward can go through it.")
    return sentences


def _grad(frame: Frame, stop: ScriptStop) -> list[str]:
    return ["torch.autograd.grad has given gradients to the script itself: they went to no .grad."]


def _unscale(frame: Frame, stop: ScriptStop) -> list[str]:
    of = f" of {stop.optimizer}" if stop.optimizer else ""
    return [f"{_called(stop, 'unscale_')} divided the gradients{of} by the scale: they are those of the loss again."]


def _clip(frame: Frame, stop: ScriptStop) -> list[str]:
    call = _called(stop, "clip_grad_norm_").rpartition(".")[2]
    if stop.norm is None:
        bound = "" if stop.max_norm is None else f" to at most {short(stop.max_norm)}"
        return [f"{call} limited the gradients{bound}."]
    measured = f"{call} measured a norm of {number(stop.norm)} over the gradients that it got"
    if not math.isfinite(stop.norm):
        return [f"{measured}: no clipping can mend that."]
    if stop.max_norm is None:
        return [f"{measured}."]
    if stop.norm <= stop.max_norm:
        return [f"{measured}, within {short(stop.max_norm)}: it left them as they were."]
    factor = short(stop.max_norm / stop.norm) if stop.norm else "1"
    return [f"{measured}, more than {short(stop.max_norm)}: it multiplied each by {factor}."]


def _step(frame: Frame, stop: ScriptStop) -> list[str]:
    call = f"{stop.optimizer}.step" if stop.optimizer else _called(stop, "step")
    if stop.skipped:
        return [
            f"GradScaler left {call} out, for gradients that are not finite: it has moved no parameter.",
            *loss_age(frame),
        ]
    count = dict(stop.steps).get(stop.optimizer)
    nth = [f"That was step {count:,} of {stop.optimizer}."] if count else []
    if frame.before is None:  # in a free run
        return [f"{call} has run. How far it moved each parameter was not looked at.", *loss_age(frame), *nth]
    if len(stop.steps) <= 1:
        first, *rest = explain_step(frame)
        return [f"{call} {first.removeprefix('step ')}", *rest, *nth]
    moved = [index for index, norm in enumerate(frame.move_norms or ()) if norm is None or norm > 0]
    if frame.before is frame.params or not moved:
        return [f"{call} ran, and no parameter has changed.", *loss_age(frame), *nth]
    rules = {describe_update(frame.optimizer_of(index)) for index in moved}
    by = f", each by {rules.pop()}" if len(rules) == 1 else ""
    sentences = [f"{call} moved {len(moved)} of {count_parameters(len(frame.params))}{by}."]
    if len(moved) < len(frame.params):
        sentences.append("The others stayed as they were.")
    return [*sentences[:1], *largest_and_least_move(frame, moved), *sentences[1:], *loss_age(frame), *nth]


def _scheduler(frame: Frame, stop: ScriptStop) -> list[str]:
    of = f" of {stop.optimizer}" if stop.optimizer else ""
    call = _called(stop, "scheduler.step")
    if len(stop.rates_before) != len(frame.learning_rates):
        return [f"{call} has run: the learning rate{of} is {rates(frame)}."]
    pairs = zip(stop.rates_before, frame.learning_rates, strict=True)
    changes = [f"from {rate(before)} to {rate(now)}" for before, now in pairs if before != now]
    if not changes:
        return [f"{call} left the learning rate{of} as it was."]
    return [f"{call} changed the learning rate{of} {', '.join(dict.fromkeys(changes))}, from its next step on."]


def _zero_grad(frame: Frame, stop: ScriptStop) -> list[str]:
    call = _called(stop, "zero_grad")
    found = frame.last_grads.backwards if frame.last_grads is not None else (0,) * len(frame.grads)
    cleared = sum(1 for before, now in zip(found, frame.grads.backwards, strict=False) if before and not now)
    kept, norms = sum(map(bool, frame.grads.backwards)), frame.grads.norms()
    zeroed = sum(1 for now, norm in zip(frame.grads.backwards, norms, strict=True) if now and norm == 0)
    if cleared:
        sentence = f"{call} cleared the gradients of {count_parameters(cleared)}: each .grad is None again."
    elif zeroed:
        sentence = f"{call} has run: {count_parameters(zeroed)} {_has(zeroed)} a .grad of zeros, and not None."
    elif frame.last_grads is None:  # in a free run
        sentence = f"{call} has run. Which gradients it cleared was not looked at."
    else:
        sentence = f"{call} had nothing to clear."
    others = kept - zeroed
    if others:
        sentence += f" {count_parameters(others)} still {_has(others)} a gradient: a backward there adds to it."
    return [sentence, *loss_age(frame)]


def _setting(frame: Frame) -> list[str]:
    assert frame.command is not None
    if frame.command.kind == "lr":
        return [
            f"You set the learning rate: it is {rates(frame)} from the next step on, unless the script sets it too."
        ]
    return [f"You set {frame.command}: the script goes on with it.", *loss_age(frame)]


# Around the call.


def _by_hand(frame: Frame, stop: ScriptStop) -> list[str]:
    """Return sentences on what the script changed by itself since the stop before."""
    sentences = []
    if moved := stop.moved_by_hand:
        verb = "has" if len(moved) == 1 else "have"
        sentences.append(
            f"By hand: {list_names([*moved])} {verb} changed since the stop before, by no optimizer's step."
        )
    norms = dict(zip(frame.params.layout.names, frame.grads.norms(), strict=True))
    zeroed = [name for name in stop.cleared_by_hand if norms.get(name) == 0]
    if zeroed:
        sentences.append(
            f"By hand: the .grad of {list_names(zeroed)} was filled with zeros since the stop before, by no zero_grad."
        )
    if cleared := [name for name in stop.cleared_by_hand if name not in zeroed]:
        sentences.append(f"By hand: the .grad of {list_names([*cleared])} went since the stop before, by no zero_grad.")
    return sentences


def _circumstances(stop: ScriptStop) -> list[str]:
    """Return sentences on where the call was made from, if that is not plain, and on output that is not seen again."""
    inside = [each for each in reversed(stop.inside) if each != "GradScaler.step"]  # which does nothing else
    sentences = [f"This is inside {', in '.join(inside)}, which has not ended."] * bool(inside)
    if stop.library is not None and stop.file:
        file, line = stop.library
        sentences.append(f"{base_name(file)}, line {line}, of a library made the call.")
    if stop.at_end:
        sentences.append("This was read when the script had ended: what it changed after this call is in the numbers.")
    if stop.output_muted:
        sentences.append(
            "The script has come here a second time: on the way it printed nothing again, but wrote its files again."
        )
    return sentences


def message_lines(error: TorchError) -> list[str]:
    """Return the lines of what was raised."""
    return [printable(line) for line in error.message.strip().split("\n") if line]


def _raised(error: TorchError) -> list[str]:
    where = f" ({base_name(error.file)}, line {error.line})" if error.line else ""
    return [
        f"The script raised {error.type}{where}:",
        *message_lines(error),
        "This is where it raised. From here on it ends as under plain Python.",
    ]


def _called(stop: ScriptStop, usual: str) -> str:
    """Return the call as the script wrote it."""
    return printable(stop.call) or usual


def _listed(names: Sequence[str]) -> str:
    if len(names) > MAX_NAMED:
        return f"{len(names)} models"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _has(count: int) -> str:
    return "has" if count == 1 else "have"
