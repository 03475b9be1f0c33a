"""The gradients of sums, means and loss functions."""

from __future__ import annotations

import math

from autograd_tui.core.trace import Value
from autograd_tui.text.derivation.derivation import Derivation, product_magnitude, written_or_first
from autograd_tui.text.derivation.rule_context import BackwardRule, NodeContext
from autograd_tui.text.derivation.small_tensor import MAX_SIZE, Shape, SmallTensor, full, indices, map_values, sigmoid
from autograd_tui.text.trace.expression import differential


def sum_or_mean(context: NodeContext) -> list[Derivation]:
    """Derive a sum or a mean: each value gets the gradient of its sum, or an equal share of its mean's."""
    is_mean, each = context.op.name.startswith("Mean"), f"each of {context.name(0)}"
    shape, count = context.input_shape, _values_per_result(context) if is_mean else 1
    formula = (
        f"d(mean)/d({each}) = 1/{count}" if is_mean else f"d(sum)/d({each}) = 1: each gets the gradient of its sum"
    )
    upstream = _keepdim_upstream(context, context.upstream, shape) if context.upstream and shape is not None else None
    if upstream is None or shape is None or math.prod(shape) > MAX_SIZE:
        return [Derivation(formula)]
    if len(upstream.values) > 1:
        upstream = map_values(lambda up, _: up, upstream, full(shape)) or upstream
    result = map_values(lambda up, _: up / count, upstream, full(shape))
    arithmetic = f"{written_or_first(upstream)} × 1/{count}" if count > 1 else ""
    return [Derivation(formula, result, arithmetic, product_magnitude(upstream, full((), 1.0)))]


def _values_per_result(context: NodeContext) -> int:
    """Return how many input elements went into each output element."""
    upstream, shape = context.upstream_value, context.input_shape
    return math.prod(shape) // upstream.stats.size if shape is not None and upstream and upstream.stats.size else 1


def _keepdim_upstream(context: NodeContext, upstream: SmallTensor, shape: Shape) -> SmallTensor | None:
    """Return the upstream in the shape that `keepdim=True` would have given it; None if the shape is not known."""
    if len(upstream.values) == 1:
        return SmallTensor((), upstream.values)
    dims = context.integers("dim")
    if dims is None:
        return upstream if len(upstream.shape) == len(shape) else None
    summed_dims = {dim % len(shape) for dim in dims}
    keepdim_shape = tuple(1 if dim in summed_dims else size for dim, size in enumerate(shape))
    return upstream.reshaped(keepdim_shape) if math.prod(keepdim_shape) == len(upstream.values) else None


def _divisor(context: NodeContext, value: Value | None) -> tuple[float | None, str]:
    """Return what the reduction divides by, as a number (None if not known) and as formulas write it."""
    reduction = context.setting("reduction") or "mean"
    if reduction in ("sum", "none"):
        return 1.0, ""
    if reduction != "mean" or value is None:
        return None, " / n"
    return float(value.stats.size), f" / {value.stats.size}"


def mse(context: NodeContext) -> list[Derivation]:
    """Derive the mean squared error by prediction and target."""
    prediction, target = context.saved("self"), context.saved("target")
    names, (count, divisor_text) = (context.name(0), context.name(1)), _divisor(context, prediction)
    values = context.small(prediction), context.small(target)
    error = map_values(lambda a, b: 2 * (a - b) / count, *values) if count else None
    return [
        context.times(f"dloss/{differential(names[0])} = 2 × ({names[0]} - {names[1]}){divisor_text}", error),
        context.times(
            f"dloss/{differential(names[1])} = -2 × ({names[0]} - {names[1]}){divisor_text}",
            map_values(lambda e: -e, error),
            index=1,
        ),
    ]


def binary_cross_entropy(context: NodeContext) -> list[Derivation]:
    """Derive binary_cross_entropy_with_logits by its logits."""
    prediction, target = context.saved("self"), context.saved("target")
    is_weighted = bool(context.saved("weight") or context.saved("pos_weight"))
    names, (count, divisor_text) = (context.name(0), context.name(1)), _divisor(context, prediction)
    values = context.small(prediction), context.small(target)
    local = map_values(lambda x, y: (sigmoid(x) - y) / count, *values) if count and not is_weighted else None
    formula = f"dloss/{differential(names[0])} = (sigmoid({names[0]}) - {names[1]}){divisor_text}"
    return [context.times(formula + ", weighted" * is_weighted, local)]


def nll(context: NodeContext) -> list[Derivation]:
    """Derive the negative log likelihood by the log probabilities."""
    weight, reduction = context.saved("weight"), context.setting("reduction") or "mean"
    share = {"mean": f"-1/{_target_count(context)}", "sum": "-1", "none": "-1"}.get(reduction, "-1 × a share")
    formula = f"dloss/d(log p) = {share}{', by class weight,' * bool(weight)} at each target's class, 0 elsewhere"
    upstream = context.upstream
    if reduction == "none" and upstream and len(upstream.values) > 1:  # one a target: not yet beside the classes
        return [Derivation(formula)]
    log_probabilities, target = context.whole(context.saved("self")), context.whole(context.saved("target"))
    if log_probabilities is None or target is None or weight:
        return [context.times(formula, None)]
    return [context.times(formula, _nll_derivative(context, log_probabilities, target, reduction))]


def _target_count(context: NodeContext) -> str:
    """Return the number of targets as formulas write it: n if some may have a negative, ignored class."""
    target = context.saved("target")
    all_count = target is not None and target.stats.min is not None and target.stats.min >= 0
    all_count = all_count and target is not None and not target.stats.range_sampled
    return str(target.stats.size) if target and all_count else "n"


def _nll_derivative(
    context: NodeContext, log_probabilities: SmallTensor, target: SmallTensor, reduction: str
) -> SmallTensor | None:
    """Return the local derivative: a share of -1 at each target's class; None for an unknown reduction."""
    if reduction not in ("mean", "sum", "none"):
        return None
    ignore_index = context.number("ignore_index", -100.0)
    targets = [number for number in target.values if number != ignore_index]
    share = -1 / len(targets) if reduction == "mean" and targets else -1.0
    class_dim = 1 if len(log_probabilities.shape) > 1 else 0  # the dimension of the classes

    def derivative(index: Shape) -> float:
        target_class = target.at((*index[:class_dim], *index[class_dim + 1 :]))
        return share if index[class_dim] == target_class != ignore_index else 0.0

    return SmallTensor(log_probabilities.shape, tuple(derivative(index) for index in indices(log_probabilities.shape)))


LOSS_RULES: dict[str, BackwardRule] = {  # by the node's name
    **dict.fromkeys(("SumBackward0", "SumBackward1", "MeanBackward0", "MeanBackward1"), sum_or_mean),
    "MseLossBackward0": mse,
    "NllLossBackward0": nll,
    "NllLoss2DBackward0": nll,
    "BinaryCrossEntropyWithLogitsBackward0": binary_cross_entropy,
}
