"""What just happened, in words and arithmetic that hold for every optimizer."""

from __future__ import annotations

import math

from autograd_tui.engine.values.about import About
from autograd_tui.engine.values.command import Phase
from autograd_tui.engine.values.frame import Frame, TorchError
from autograd_tui.engine.values.stats_table import Grads, GradStats
from autograd_tui.text.data_table import mean_square
from autograd_tui.text.explain_step import explain_step, loss_age
from autograd_tui.text.grads import largest
from autograd_tui.text.line import printable
from autograd_tui.text.numbers import number, rate, short
from autograd_tui.text.rules import is_plain_sgd, rates

CHANCE = "Where chance made it raise, it would again: :seed=1 gives it other random numbers."
FEW = 4  # parameters, which are called by their names


def explain(frame: Frame, about: About) -> list[str]:
    """Say in a few sentences what the frame's command did; a sentence that starts with blanks is arithmetic."""
    if frame.error:
        return _raised(frame, frame.error)
    if frame.command is None:
        return _question(frame, about)
    if frame.phase is Phase.FORWARD:
        return _forward(frame)
    if frame.phase is Phase.BACKWARD:
        return _backward(frame)
    if frame.phase is Phase.STEP:
        return explain_step(frame)
    if frame.phase is Phase.ZERO_GRAD:
        return _zero_grad(frame)
    return _setting(frame)


def step_comment(frame: Frame, room: int) -> str:
    """Say beside optimizer.step() what it does, as far as there is room."""
    used = frame.step_rate if frame.phase is Phase.STEP and frame.step_rate is not None else frame.learning_rate
    name = frame.params.layout.names[0] if len(frame.params) <= FEW else "p"
    if frame.groups:
        said = rates(frame, used=frame.phase is Phase.STEP)
        return next(each for each in (f"# {len(frame.learning_rates)} groups, lr {said}", "") if len(each) <= room)
    comments = [f"# {frame.optimizer.replace(',', ', ')}, lr {rate(used)}", f"# lr {rate(used)}", ""]
    if is_plain_sgd(frame.optimizer):
        comments = [f"# {name} -= {rate(used)} * {name}.grad", *comments]
    return next(comment for comment in comments if len(comment) <= room)


def _question(frame: Frame, about: About) -> list[str]:
    names = " and ".join(frame.params.layout.names)
    if frame.params.whole and len(frame.params) <= 2:
        return [
            "Frame 0: no phase has run before it.",
            f"Which way should {names} move, and who decides? Make a guess, then press space: it runs forward.",
        ]
    values = sum(map(math.prod, frame.params.layout.shapes))
    begin = f"{len(frame.params)} parameters with {values:,} values are as they begin."
    return ["Frame 0: no phase has run before it.", begin, "space runs forward."]


def _forward(frame: Frame) -> list[str]:
    loss = "a loss that is not one number" if frame.loss is None else f"the loss {number(frame.loss)}"
    said = [f"forward made a prediction and measured {loss}. No parameter has moved."]
    errors = mean_square(frame)
    if errors and len(errors) <= 4:
        squares = " + ".join(short(error * error) for error in errors)
        said.append(f"  ({squares}) / {len(errors)} = {number(frame.loss)}")
    if frame.graph == "alive" and frame.loss is None:
        said.append("backward needs one number to start from, so it would raise.")
    elif frame.graph == "alive":
        said.append("It recorded the graph of what it computed: backward can now go back through it.")
    else:
        said.append("This loss has no graph: it was made without recording, so a backward would raise.")
    if frame.grads.state != "none":
        said.append("The gradients are from before: a backward now adds to them.")
    return said


def _backward(frame: Frame) -> list[str]:
    held = [place for place, backwards in enumerate(frame.grads.backwards) if backwards]
    said = [f"backward computed the gradient of the loss for {_count(len(held))}."]
    for place in held[:FEW]:
        grad: GradStats = frame.grads[place]
        if grad.values and grad.size == 1:
            value = grad.values[0]
            pull = _pull(grad.name, value) if grad.backwards == 1 else f": a sum of {grad.backwards}"
            made_of = _derivative(frame, grad) + _addition(frame.added_to, place, value)
            said.append(f"  {made_of} = {number(value, signed=True)}{pull}")
    if len(held) > FEW and (most := largest(frame.grads)):
        said.append(f"  the largest is that of {most.name}: {number(most.norm)}")
    said += _without(frame)
    summed = max(frame.grads.backwards, default=0)
    if summed > 1:
        all_alike = {*frame.grads.backwards} <= {0, summed}
        said.append(
            f"They were not cleared before, so this backward was added: each is {'' if all_alike else 'up to '}"
            f"the sum of {summed} backwards, and need not point downhill."
        )
    said.append("No parameter has moved: step does that. The graph is used up and freed.")
    return said


def _without(frame: Frame) -> list[str]:
    """Say which parameters have no gradient though a backward has run, and why."""
    names = frame.params.layout.names
    frozen = [names[place] for place in sorted(frame.frozen) if not frame.grads.backwards[place]]
    unused = [names[place] for place in sorted(frame.unused)]
    said = [f"{_listed(frozen)}: None, frozen (requires_grad=False)."] if frozen else []
    if unused:
        said.append(
            f"{_listed(unused)}: None, no gradient reached {_them(unused)}: the loss does not use {_them(unused)}, "
            "or detach or no_grad cut the graph on the way."
        )
    return said


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= FEW else f"{len(names)} parameters"


def _them(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"


def _derivative(frame: Frame, grad: GradStats) -> str:
    """Write the chain rule in numbers where it is that of a mean square: 2/3 × (3×1 + 1×2 - 1×3)."""
    errors = mean_square(frame)
    if not errors or not grad.values or len(errors) > 4 or grad.backwards > 1 or frame.old:
        return f"{grad.name}.grad"
    n, inputs = len(errors), frame.inputs.values if frame.inputs else None
    for factors in (inputs, (1.0,) * n):
        if factors and len(factors) == n:
            total = 2 / n * sum(error * factor for error, factor in zip(errors, factors, strict=True))
            if math.isclose(total, grad.values[0], rel_tol=1e-4, abs_tol=1e-6):
                products = [
                    f"{'-' if error < 0 else '+'} {short(abs(error))}"
                    + (f"×{short(factor)}" if factors is inputs else "")
                    for error, factor in zip(errors, factors, strict=True)
                ]
                terms = " ".join(products).removeprefix("+ ")
                return f"{grad.name}.grad = 2/{n} × ({terms})"
    return f"{grad.name}.grad"


def _addition(found: Grads | None, place: int, total: float) -> str:
    """Write what a backward has added to a gradient: " = 1.3333 + 1.3333"; nothing where there was none."""
    before = found[place] if found else None
    if before is None or not before.values or not math.isfinite(total - before.values[0]):
        return ""
    added = total - before.values[0]
    return f" = {number(before.values[0])} {'-' if added < 0 else '+'} {number(abs(added))}"


def _pull(name: str, grad: float) -> str:
    if not math.isfinite(grad):
        return ""
    if grad == 0:
        return ": flat here"
    return f": raising {name} {'raises' if grad > 0 else 'lowers'} the loss"


def _zero_grad(frame: Frame) -> list[str]:
    found, kept = (sum(map(bool, grads.backwards)) if grads else 0 for grads in (frame.last_grads, frame.grads))
    each = "each .grad that the optimizer holds" if kept else "each .grad"
    said = [f"zero_grad had nothing to clear: {each} was None already."]
    if found > kept:
        said = [f"zero_grad cleared the gradients: {each} is None again, so the next backward starts from nothing."]
    if kept:
        still = "still has a gradient" if kept == 1 else "still have a gradient"
        said.append(f"Outside the optimizer {_count(kept)} {still}: a backward adds to it.")
    memory = ", and so does what the optimizer remembers" if frame.optimizer_state else ""
    return [*said, f"The parameters stay as they are{memory}."]


def _setting(frame: Frame) -> list[str]:
    assert frame.command is not None
    if frame.command.group is not None:
        now = rate(frame.learning_rates[frame.command.group])
        return [f"The learning rate of group {frame.command.group} is {now} from the next step on."]
    if frame.command.kind == "requires_grad":
        return _froze(frame, wanted=frame.command.value is True)
    if frame.command.name == "lr":
        return [f"The learning rate is {rate(frame.learning_rate)} from the next step on. Nothing else has changed."]
    if frame.command.name == "seed":
        return [f"Random numbers begin anew from seed {frame.command.value}. Nothing else has changed."]
    if frame.command.name == "optimizer":
        return [f"The optimizer is {frame.optimizer} now, with empty state and lr {rates(frame)}."]
    return [f"You set {frame.command}: no gradient had a say in it.", *loss_age(frame)]


def _froze(frame: Frame, *, wanted: bool) -> list[str]:
    assert frame.command is not None
    what = frame.command.target or "every parameter"
    if wanted:
        return [f"{what} is frozen no longer: the graph of the next forward leads to it again."]
    said = [f"{what} is frozen: no backward gives it a gradient from now on."]
    if any(frame.grads.backwards[place] for place in frame.frozen):
        said.append("A gradient that is there already stays, and a step would still use it: zero_grad clears it.")
    return said


def _raised(frame: Frame, error: TorchError) -> list[str]:
    where = f" ({error.file.rpartition('/')[2]}, line {error.line})" if error.line else ""
    name = frame.phase.value if frame.phase else str(frame.command)
    return [
        f"{name} raised {error.type}{where}:",
        *(printable(line) for line in error.message.strip().split("\n") if line),
        "Parameters, gradients, buffers and random numbers are as before it.",
        *[CHANCE] * (frame.phase is Phase.FORWARD),
    ]


def _count(parameters: int) -> str:
    return "1 parameter" if parameters == 1 else f"{parameters} parameters"
