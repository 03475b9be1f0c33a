"""What a backward did, in words and with the chain rule in numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product, zip_longest

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import GradStats
from autograd_tui.text.batch_table import errors_of_mean_square
from autograd_tui.text.equation import equation, evaluated, exact, fixed, parenthesized
from autograd_tui.text.numbers import number
from autograd_tui.text.styled_text import printable
from autograd_tui.text.table.gradient_status import largest_gradient

MAX_NAMED = 4  # parameters, which are called by their names
_signed = partial(number, signed=True)


def explain_backward(frame: Frame) -> list[str]:
    """Return sentences on which gradients a backward has computed, and why they are what they are."""
    reached = reached_by_backward(frame)
    sentences = [
        f"backward computed the gradient of the loss for {count_parameters(len(reached))}.",
        *explain_gradients(frame, reached),
    ]
    summed = max((frame.grads.backwards[index] for index in reached), default=0)
    if summed > 1:
        all_alike = {frame.grads.backwards[index] for index in reached} == {summed}
        sentences.append(
            f"They were not cleared before, so this backward was added: each is {'' if all_alike else 'up to '}"
            f"the sum of {summed} backwards, and need not point downhill."
        )
    return [*sentences, "No parameter has moved: step does that.", "The graph is used up and freed."]


def reached_by_backward(frame: Frame) -> list[int]:
    """Return the indices of the parameters that the last backward has given a gradient, or added to theirs."""
    before = frame.added_to.backwards if frame.added_to else (0,) * len(frame.grads)
    return [index for index, backwards in enumerate(frame.grads.backwards) if backwards > before[index]]


def explain_gradients(frame: Frame, reached: Sequence[int]) -> list[str]:
    """Return sentences on how large the gradients of a backward are, and which parameters it has not reached."""
    before = frame.added_to.backwards if frame.added_to else (0,) * len(frame.grads)
    sentences: list[str] = []
    grads: dict[int, GradStats] = {index: frame.grads[index] for index in reached[:MAX_NAMED]}
    factors = _factors(frame, grads)
    for index, grad in grads.items():
        if grad.values and grad.size == 1:
            pull = _direction(frame, grad) if grad.backwards == 1 else f": a sum of {grad.backwards}"
            sentences.append(f"  {grad.name}.grad = {_derivative(frame, index, grad, factors.get(grad.name))}{pull}")
    large = len(reached) > MAX_NAMED or (frame.script is not None and len(reached) > 1 and not sentences)
    if large and (most := largest_gradient(frame.grads, reached)):
        sentences.append(f"  largest: {most.name}.grad, {number(most.norm)}")
    sentences += stray_lines(frame)
    sentences += _without_gradient(frame)
    if left := [frame.params.layout.names[index] for index, held in enumerate(before) if held and index not in reached]:
        sentences.append(f"{list_names(left)}: not reached by this backward, so the gradient is that of one before.")
    return sentences


STRAY_REASONS = {  # it is none of the model's, and what would make it so
    "list of modules": "{} is a list of modules, and nn.ModuleList makes them the model's",
    "list of tensors": "{} is a list of tensors, and nn.ParameterList makes them the model's",
    "dict of modules": "{} is a dict of modules, and nn.ModuleDict makes them the model's",
    "dict of tensors": "{} is a dict of tensors, and nn.ParameterDict makes them the model's",
    "attribute": "{} is no nn.Parameter, which is what makes a tensor the model's",
    "changed": "{} was computed from an nn.Parameter, so it is none itself: put nn.Parameter around the result",
    "loss": "the loss function has parameters of its own, such as {}: as a module of the model it would be trained too",
    "outside": "{} is used beside the model: only what is a module or parameter of the model is trained",
    "": "only what model.parameters() gives is trained",
}


def stray_lines(frame: Frame) -> list[str]:
    """Return a sentence, once, on which tensors the gradient reached that no step will move, and the likely reason."""
    if frame.phase is not Phase.BACKWARD or frame.error or not frame.strays:
        return []
    shapes = ["×".join(map(str, each.shape)) or "one value" for each in frame.strays]
    several = f"{len(shapes)} tensors that are none" if len(shapes) > 1 else "a tensor that is none"
    shown = ", ".join(shapes[:MAX_NAMED]) + ", …" * (len(shapes) > MAX_NAMED)
    reasons = [STRAY_REASONS.get(each.kind, STRAY_REASONS[""]).format(each.path) for each in frame.strays]
    sentences = f"The gradient also reached {several} of the model's parameters, so no step moves "
    sentences += f"{'them' if len(shapes) > 1 else 'it'} ({shown}): {'; '.join(dict.fromkeys(reasons))}."
    return [printable(sentences)]


def _without_gradient(frame: Frame) -> list[str]:
    """Return sentences on which parameters have no gradient though a backward has run, and why."""
    names = frame.params.layout.names
    took_part = parameters_of(frame, frame.script.models) if frame.script else range(len(names))
    frozen = [names[at] for at in sorted(frame.frozen) if not frame.grads.backwards[at] and at in took_part]
    unused = [names[index] for index in sorted(frame.unused) if index in took_part]
    sentences = [f"{list_names(frozen)}: None, frozen (requires_grad=False)."] if frozen else []
    if unused:
        sentences.append(
            f"{list_names(unused)}: None, no gradient reached {_them(unused)}: the loss does not use {_them(unused)}, "
            "or detach or no_grad cut the graph on the way."
        )
    return sentences


def parameters_of(frame: Frame, models: Sequence[str]) -> Sequence[int]:
    """Return the indices of the parameters of some of a script's models; of all where no name begins with a model's."""
    beginnings = tuple(f"{model}." for model in models)
    indices = [index for index, name in enumerate(frame.params.layout.names) if name.startswith(beginnings)]
    return indices or range(len(frame.params))


def list_names(names: list[str]) -> str:
    """Name a few parameters, or count them."""
    return ", ".join(names) if len(names) <= MAX_NAMED else f"{len(names)} parameters"


def _them(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"


def _derivative(frame: Frame, index: int, grad: GradStats, factors: Sequence[float] | None) -> str:
    """Write a gradient as the sum that it is, or with the chain rule in numbers: 2/3 × (3×1 + 1×2 - 1×3) = +1.3333."""
    (value,) = grad.values or (math.nan,)
    text = _signed(value)
    found = frame.added_to[index] if frame.added_to else None
    before = found.values[0] if found and found.values else math.nan
    if math.isfinite(added := value - before):
        sign = "-" if added < 0 else "+"

        def written(digits: int) -> str:
            return f"{fixed(before, digits)} {sign} {fixed(abs(added), digits)}"

        return equation(written, [value], text, shown=_signed)
    if not factors:
        return text
    terms = _terms(errors_of_mean_square(frame) or [], factors if any(factor != 1 for factor in factors) else ())
    return evaluated(f"2/{len(factors)} × ({terms})", [value], text, shown=_signed)


def _terms(errors: Sequence[float], factors: Sequence[float]) -> str:
    pairs = zip_longest(errors, factors)
    products = [
        f"{'-' if error < 0 else '+'} {exact(abs(error))}" + ("" if factor is None else f"×{parenthesized(factor)}")
        for error, factor in pairs
    ]
    return re.sub("^- ", "-", " ".join(products).removeprefix("+ "))


def _factors(frame: Frame, grads: Mapping[int, GradStats]) -> dict[str, tuple[float, ...]]:
    """Find what each parameter is multiplied with, where the prediction is Q = w × x + b and the loss its mean square.

    It is found in the numbers of this frame: both the prediction and the gradients must come out, in one way alone.
    """
    errors, q, params = errors_of_mean_square(frame), frame.prediction, frame.loss_params
    x = frame.inputs.values if frame.inputs else None
    if frame.loss_is_old or not (errors and x and q and q.values and params and len(x) == len(errors) <= 4):
        return {}
    weights = [value for row in params for value in row.values or ()] if len(params) <= 2 and params.whole else []
    if len(weights) != len(params) or any(grad.backwards > 1 for grad in grads.values()):
        return {}
    known = [(index, value) for index, grad in grads.items() for value in grad.values or ()]
    ones = (1.0,) * len(x)
    found = []
    for factors in product((x, ones), repeat=len(params)):
        made = [sum(w * f[at] for w, f in zip(weights, factors, strict=True)) for at in range(len(x))]
        slopes = [2 / len(x) * sum(e * f for e, f in zip(errors, each, strict=True)) for each in factors]
        fits = all(map(_is_close, made, q.values)) and all(_is_close(slopes[index], value) for index, value in known)
        found += [dict(zip(params.layout.names, factors, strict=True))] * fits
    return found[0] if len(found) == 1 else {}


def _is_close(ours: float, theirs: float) -> bool:
    return math.isclose(ours, theirs, rel_tol=1e-4, abs_tol=1e-5)


def _direction(frame: Frame, grad: GradStats) -> str:
    """Return a sentence on which way the loss goes with one parameter."""
    (value,) = grad.values or (math.nan,)
    if not math.isfinite(value) or frame.loss is None or not math.isfinite(frame.loss):
        return ""
    there = ", where it was measured" if frame.loss_is_old else ""
    if value == 0:
        return f": flat {'there' if frame.loss_is_old else 'here'}"
    return f": raising {grad.name} {'raises' if value > 0 else 'lowers'} the loss{there}"


def count_parameters(parameters: int) -> str:
    """Count parameters."""
    return "1 parameter" if parameters == 1 else f"{parameters} parameters"
