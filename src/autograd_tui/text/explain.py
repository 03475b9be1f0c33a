"""What just happened, in words and arithmetic that hold for every optimizer."""

from __future__ import annotations

import math

from autograd_tui.engine.about import About
from autograd_tui.engine.command import Phase
from autograd_tui.engine.frame import Frame, TorchError
from autograd_tui.engine.stats_table import SAMPLE, GradStats
from autograd_tui.text.data_table import mean_square
from autograd_tui.text.numbers import fitted, number, rate, short
from autograd_tui.text.rules import is_plain_sgd, rule


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
        return _step(frame)
    if frame.phase is Phase.ZERO_GRAD:
        return _zero_grad(frame)
    return _setting(frame)


def step_comment(frame: Frame) -> str:
    """Say beside optimizer.step() what it does to the first parameter."""
    name = frame.params.layout.names[0].rpartition(".")[2]
    if is_plain_sgd(frame.optimizer):
        return f"# {name} -= {rate(frame.learning_rate)} * {name}.grad"
    return f"# {frame.optimizer.replace(',', ', ')}, lr {rate(frame.learning_rate)}"


def _question(frame: Frame, about: About) -> list[str]:
    names = " and ".join(frame.params.layout.names)
    if frame.params.whole and len(frame.params) <= 2:
        return [
            "Nothing has run yet.",
            f"Which way should {names} move, and who decides? Make a guess, then press space: it runs forward.",
        ]
    values = sum(row.size for row in frame.params)
    return [f"Nothing has run yet: {len(frame.params)} parameters with {values:,} values wait.", "space runs forward."]


def _forward(frame: Frame) -> list[str]:
    loss = "a loss that is not one number" if frame.loss is None else f"the loss {number(frame.loss)}"
    said = [f"forward made a prediction and measured {loss}. No parameter has moved."]
    errors = mean_square(frame)
    if errors and len(errors) <= 4:
        squares = " + ".join(short(error * error) for error in errors)
        said.append(f"  ({squares}) / {len(errors)} = {number(frame.loss)}")
    if frame.graph == "alive":
        said.append("It recorded the graph of what it computed: backward can now go back through it.")
    else:
        said.append("This loss has no graph: it was made without recording, so a backward would raise.")
    if frame.grads.state != "none":
        said.append("The gradients are from before: a backward now adds to them.")
    return said


def _backward(frame: Frame) -> list[str]:
    held = [grad for grad in frame.grads if grad is not None]
    said = [f"backward computed the gradient of the loss for {_count(len(held))}."]
    for grad in held[:4]:
        if grad.values and grad.size == 1:
            value = grad.values[0]
            said.append(f"  {_derivative(frame, grad)} = {number(value, signed=True)}{_pull(grad.name, value)}")
    if len(held) > 4 and (most := largest(held)):
        said.append(f"  the largest is that of {most.name}: {number(most.norm)}")
    summed = max((grad.backwards for grad in held), default=0)
    if summed > 1:
        said.append(f"They were not cleared before, so they are sums of up to {summed} backwards now.")
    said.append("No parameter has moved: step does that. The graph is used up and freed.")
    return said


def largest(grads: list[GradStats]) -> GradStats | None:
    """Give the gradient with the greatest norm; one that is NaN or infinite counts as greatest."""
    known = [grad for grad in grads if grad.norm is not None]
    return max(known, key=lambda grad: (not math.isfinite(grad.norm or 0.0), grad.norm or 0.0), default=None)


def _derivative(frame: Frame, grad: GradStats) -> str:
    """Write the chain rule in numbers where it is that of a mean square: 2/3 x (3x1 + 1x2 - 1x3)."""
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
                    + (f"x{short(factor)}" if factors is inputs else "")
                    for error, factor in zip(errors, factors, strict=True)
                ]
                terms = " ".join(products).removeprefix("+ ")
                return f"{grad.name}.grad = 2/{n} x ({terms})"
    return f"{grad.name}.grad"


def _pull(name: str, grad: float) -> str:
    if not math.isfinite(grad):
        return ""
    if grad == 0:
        return ": flat here"
    return f": raising {name} {'raises' if grad > 0 else 'lowers'} the loss"


def _step(frame: Frame) -> list[str]:
    before = frame.before
    if frame.grads.state == "none":
        return ["step moved nothing: every gradient is None, so it had nothing to use.", *_loss_age(frame)]
    if before is None or before is frame.params:
        return ["step ran, and no parameter has changed.", *_loss_age(frame)]
    said = [f"step moved each parameter by {rule(frame.optimizer)}:"]
    for old, new, grad in list(zip(before, frame.params, frame.grads, strict=True))[:4]:
        if old.size == 1 and old.values and new.values:
            said.append("  " + _move(frame, old.name, old.values[0], new.values[0], grad.values if grad else None))
    if len(frame.params) > 4 and frame.moves:
        said += _most_and_least(frame)
    return [*said, *_loss_age(frame), "The gradients stay until zero_grad: a backward now would add to them."]


def _most_and_least(frame: Frame) -> list[str]:
    """Name the parameters that moved most and least for their size."""
    assert frame.before is not None
    assert frame.moves is not None
    rows = [(old, move) for old, move in zip(frame.before, frame.moves, strict=True) if old.norm]
    ranked = sorted(((move / (old.norm or 1.0), old) for old, move in rows), key=lambda pair: pair[0])
    if not ranked:
        return []
    said = []
    for word, (share, row) in (("most", ranked[-1]), ("least", ranked[0])):
        said.append(f"  {word} for its size: {row.name}, {'~' * (row.size > SAMPLE)}{fitted(share * 100, 7)}%")
    return said


def _move(frame: Frame, name: str, old: float, new: float, grad: tuple[float, ...] | None) -> str:
    if grad is None:
        return f"{name}  {number(old)}: its gradient is None" + ("" if old == new else f", yet it is {number(new)}")
    if is_plain_sgd(frame.optimizer) and frame.step_rate is not None:
        sign = "-" if grad[0] >= 0 else "+"
        return f"{name}  {number(old)} {sign} {rate(frame.step_rate)} x {number(abs(grad[0]))} = {number(new)}"
    turned = (new - old) * grad[0] > 0
    return f"{name}  {number(old)} → {number(new)}" + (
        ", not the way its gradient alone would send it" if turned else ""
    )


def _loss_age(frame: Frame) -> list[str]:
    if frame.loss is None or not frame.old:
        return []
    return [f"The loss {number(frame.loss)} is from before this move: forward makes a new one."]


def _zero_grad(frame: Frame) -> list[str]:
    return [
        "zero_grad cleared the gradients: each .grad is None again, so the next backward starts from nothing.",
        "The parameters stay as they are, and so does what the optimizer remembers.",
    ]


def _setting(frame: Frame) -> list[str]:
    assert frame.command is not None
    if frame.command.name == "lr":
        return [f"The learning rate is {rate(frame.learning_rate)} from the next step on. Nothing else has changed."]
    if frame.command.name == "optimizer":
        return [f"The optimizer is {frame.optimizer} now, with empty state and lr {rate(frame.learning_rate)}."]
    return [f"You set {frame.command}: no gradient had a say in it.", *_loss_age(frame)]


def _raised(frame: Frame, error: TorchError) -> list[str]:
    where = f" ({error.file.rpartition('/')[2]}, line {error.line})" if error.line else ""
    name = frame.phase.value if frame.phase else str(frame.command)
    return [
        f"{name} raised {error.type}{where}:",
        *(line for line in error.message.strip().split("\n") if line),
        "Parameters, gradients, buffers and random numbers are as before it.",
    ]


def _count(parameters: int) -> str:
    return "1 parameter" if parameters == 1 else f"{parameters} parameters"
