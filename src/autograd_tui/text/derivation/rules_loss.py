"""The chain rule of sums, means and loss functions."""

from __future__ import annotations

import math

from autograd_tui.core.trace import Value
from autograd_tui.text.derivation.derivation import (
    FIRST_VALUE,
    MAX_LISTED_VALUES,
    BackwardRule,
    Derivation,
    product_magnitude,
    times,
    written_values,
)
from autograd_tui.text.derivation.rule_context import NodeContext
from autograd_tui.text.derivation.rules_elementwise import sigmoid
from autograd_tui.text.derivation.small_tensor import SmallTensor, full, indices, map_values
from autograd_tui.text.equation import exact
from autograd_tui.text.trace.expression import differential


def total(context: NodeContext) -> list[Derivation]:
    """Derive a sum."""
    return [_shared(context, "sum", f"d(sum)/d({_any_value(context)}) = 1: each gets the gradient of its sum", 1)]


def mean(context: NodeContext) -> list[Derivation]:
    """Derive a mean."""
    many = _averaged(context)
    return [_shared(context, "mean", f"d(mean)/d({_any_value(context)}) = 1/{many}", many)]


def _any_value(context: NodeContext) -> str:
    """Name any one of the values."""
    return f"each of {context.name(0)}"


def _averaged(context: NodeContext) -> int:
    """Count the values that went into each result."""
    below, above = context.op.grad_out, context.op.grad_in
    if not (below and above and below[0] and above[0] and above[0].stats.size):
        return 1
    return below[0].stats.size // above[0].stats.size


def _shared(context: NodeContext, name: str, formula: str, many: int) -> Derivation:
    upstream, below = context.upstream, context.op.grad_out[0] if context.op.grad_out else None
    known = _beside(context, upstream, below.stats.shape) if upstream and below else None
    if known is None or below is None or math.prod(below.stats.shape) > 64:
        return Derivation(formula)
    if len(known.values) > 1:
        known = map_values(lambda up, _: up, known, full(below.stats.shape)) or known
    result = map_values(lambda up, _: up / many, known, full(below.stats.shape))
    up = written_values(known) if len(known.values) <= MAX_LISTED_VALUES else f"{FIRST_VALUE}{exact(known.values[0])}"
    arithmetic = f"{up} × 1/{many}" if many > 1 else ""
    return Derivation(formula, result, arithmetic, product_magnitude(known, full((), 1.0)))


def _beside(context: NodeContext, upstream: SmallTensor, shape: tuple[int, ...]) -> SmallTensor | None:
    """Give the upstream the shape it would have had if the dimensions that were summed had stayed, with size 1."""
    if len(upstream.values) == 1:
        return SmallTensor((), upstream.values)
    dims = context.integers("dim")
    if dims is None:
        return upstream if len(upstream.shape) == len(shape) else None
    gone = {dim % len(shape) for dim in dims}
    kept = tuple(1 if dim in gone else size for dim, size in enumerate(shape))
    return upstream.reshaped(kept) if math.prod(kept) == len(upstream.values) else None


REDUCTION_RULES: dict[str, BackwardRule] = {
    "SumBackward0": total,
    "SumBackward1": total,
    "MeanBackward0": mean,
    "MeanBackward1": mean,
}


def _divisor(context: NodeContext, value: Value | None) -> tuple[float | None, str]:
    """Give what a loss over so many values is divided by, as a number and as a reader writes it."""
    reduction = context.setting("reduction") or "mean"
    if reduction in ("sum", "none"):
        return 1.0, ""
    if reduction != "mean" or value is None:
        return None, " / n"
    return float(value.stats.size), f" / {value.stats.size}"


def mse(context: NodeContext) -> list[Derivation]:
    """Derive the mean squared error by prediction and target."""
    prediction, target = context.saved("self"), context.saved("target")
    names = context.name(0), context.name(1)
    many, over = _divisor(context, prediction)
    error = (
        map_values(lambda a, b: 2 * (a - b) / many, context.small(prediction), context.small(target)) if many else None
    )
    turned = map_values(lambda e: -e, error)
    return [
        times(context, 0, f"dloss/{differential(names[0])} = 2 × ({names[0]} - {names[1]}){over}", error, by=""),
        times(context, 1, f"dloss/{differential(names[1])} = -2 × ({names[0]} - {names[1]}){over}", turned, by=""),
    ]


def binary(context: NodeContext) -> list[Derivation]:
    """Derive binary_cross_entropy_with_logits by its logits."""
    prediction, target = context.saved("self"), context.saved("target")
    weighted = context.saved("weight") or context.saved("pos_weight")
    names = context.name(0), context.name(1)
    many, over = _divisor(context, prediction)
    values = context.small(prediction), context.small(target)
    local = map_values(lambda x, y: (sigmoid(x) - y) / many, *values) if many and not weighted else None
    formula = f"dloss/{differential(names[0])} = (sigmoid({names[0]}) - {names[1]}){over}"
    return [times(context, 0, formula + ", weighted" * bool(weighted), local, by="")]


def nll(context: NodeContext) -> list[Derivation]:
    """Derive the negative log likelihood by the log probabilities."""
    made, target = context.small(context.saved("self")), context.small(context.saved("target"))
    weighted, reduction = context.saved("weight"), context.setting("reduction") or "mean"
    local = (
        None
        if made is None or target is None or weighted or context.one_value
        else _hits(context, made, target, reduction)
    )
    share = {"mean": f"-1/{_targets(context)}", "sum": "-1", "none": "-1"}.get(reduction, "-1 × a share")
    sentence = f"{share}{', by class weight,' * bool(weighted)} at each target's class, 0 elsewhere"
    part = times(context, 0, f"dloss/d(log p) = {sentence}", local, by="")
    upstream = context.upstream
    if reduction == "none" and upstream and len(upstream.values) > 1:  # one a target: not yet beside the classes
        return [Derivation(part.formula)]
    return [part]


def _targets(context: NodeContext) -> str:
    """Count the targets, of which those that are to be ignored do not count."""
    target = context.saved("target")
    counts = target is not None and target.stats.min is not None and target.stats.min >= 0
    return str(target.stats.size) if target and counts else "n"


def _hits(context: NodeContext, made: SmallTensor, target: SmallTensor, reduction: str) -> SmallTensor | None:
    ignored = context.number("ignore_index", -100.0)
    counted = [each for each in target.values if each != ignored]
    share = -1 / len(counted) if reduction == "mean" and counted else -1.0
    if reduction not in ("mean", "sum", "none"):
        return None
    side = 1 if len(made.shape) > 1 else 0  # the dimension of the classes

    def hit(index: tuple[int, ...]) -> float:
        wanted = target.at((*index[:side], *index[side + 1 :]))
        return share if index[side] == wanted != ignored else 0.0

    return SmallTensor(made.shape, tuple(hit(index) for index in indices(made.shape)))


LOSS_RULES: dict[str, BackwardRule] = {
    "MseLossBackward0": mse,
    "NllLossBackward0": nll,
    "NllLoss2DBackward0": nll,
    "BinaryCrossEntropyWithLogitsBackward0": binary,
}
