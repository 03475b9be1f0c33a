"""The local derivatives of sums, means and loss functions."""

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
    return [_uniform_gradient(context, f"d(sum)/d({_any_value(context)}) = 1: each gets the gradient of its sum", 1)]


def mean(context: NodeContext) -> list[Derivation]:
    """Derive a mean."""
    count = _values_per_result(context)
    return [_uniform_gradient(context, f"d(mean)/d({_any_value(context)}) = 1/{count}", count)]


def _any_value(context: NodeContext) -> str:
    """Return what formulas call one of the values."""
    return f"each of {context.name(0)}"


def _values_per_result(context: NodeContext) -> int:
    """Return how many input elements went into each output element."""
    input_gradients, upstreams = context.op.grad_out, context.op.grad_in
    if not (input_gradients and upstreams and input_gradients[0] and upstreams[0] and upstreams[0].stats.size):
        return 1
    return input_gradients[0].stats.size // upstreams[0].stats.size


def _uniform_gradient(context: NodeContext, formula: str, count: int) -> Derivation:
    upstream, input_gradient = context.upstream, context.op.grad_out[0] if context.op.grad_out else None
    expanded = _keepdim_upstream(context, upstream, input_gradient.stats.shape) if upstream and input_gradient else None
    if expanded is None or input_gradient is None or math.prod(input_gradient.stats.shape) > 64:
        return Derivation(formula)
    if len(expanded.values) > 1:
        expanded = map_values(lambda up, _: up, expanded, full(input_gradient.stats.shape)) or expanded
    result = map_values(lambda up, _: up / count, expanded, full(input_gradient.stats.shape))
    up = (
        written_values(expanded)
        if len(expanded.values) <= MAX_LISTED_VALUES
        else f"{FIRST_VALUE}{exact(expanded.values[0])}"
    )
    arithmetic = f"{up} × 1/{count}" if count > 1 else ""
    return Derivation(formula, result, arithmetic, product_magnitude(expanded, full((), 1.0)))


def _keepdim_upstream(context: NodeContext, upstream: SmallTensor, shape: tuple[int, ...]) -> SmallTensor | None:
    """Return the upstream in the shape that `keepdim=True` would have given it; None if the shape is not known."""
    if len(upstream.values) == 1:
        return SmallTensor((), upstream.values)
    dims = context.integers("dim")
    if dims is None:
        return upstream if len(upstream.shape) == len(shape) else None
    summed_dims = {dim % len(shape) for dim in dims}
    keepdim_shape = tuple(1 if dim in summed_dims else size for dim, size in enumerate(shape))
    return upstream.reshaped(keepdim_shape) if math.prod(keepdim_shape) == len(upstream.values) else None


REDUCTION_RULES: dict[str, BackwardRule] = {
    "SumBackward0": total,
    "SumBackward1": total,
    "MeanBackward0": mean,
    "MeanBackward1": mean,
}


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
    names = context.name(0), context.name(1)
    count, divisor_text = _divisor(context, prediction)
    error = (
        map_values(lambda a, b: 2 * (a - b) / count, context.small(prediction), context.small(target))
        if count
        else None
    )
    negative_error = map_values(lambda e: -e, error)
    return [
        times(
            context, 0, f"dloss/{differential(names[0])} = 2 × ({names[0]} - {names[1]}){divisor_text}", error, by=""
        ),
        times(
            context,
            1,
            f"dloss/{differential(names[1])} = -2 × ({names[0]} - {names[1]}){divisor_text}",
            negative_error,
            by="",
        ),
    ]


def binary_cross_entropy(context: NodeContext) -> list[Derivation]:
    """Derive binary_cross_entropy_with_logits by its logits."""
    prediction, target = context.saved("self"), context.saved("target")
    weighted = context.saved("weight") or context.saved("pos_weight")
    names = context.name(0), context.name(1)
    count, divisor_text = _divisor(context, prediction)
    values = context.small(prediction), context.small(target)
    local = map_values(lambda x, y: (sigmoid(x) - y) / count, *values) if count and not weighted else None
    formula = f"dloss/{differential(names[0])} = (sigmoid({names[0]}) - {names[1]}){divisor_text}"
    return [times(context, 0, formula + ", weighted" * bool(weighted), local, by="")]


def nll(context: NodeContext) -> list[Derivation]:
    """Derive the negative log likelihood by the log probabilities."""
    log_probabilities, target = context.small(context.saved("self")), context.small(context.saved("target"))
    weighted, reduction = context.saved("weight"), context.setting("reduction") or "mean"
    local = (
        None
        if log_probabilities is None or target is None or weighted or context.one_value
        else _nll_derivative(context, log_probabilities, target, reduction)
    )
    share = {"mean": f"-1/{_target_count(context)}", "sum": "-1", "none": "-1"}.get(reduction, "-1 × a share")
    sentence = f"{share}{', by class weight,' * bool(weighted)} at each target's class, 0 elsewhere"
    derivation = times(context, 0, f"dloss/d(log p) = {sentence}", local, by="")
    upstream = context.upstream
    if reduction == "none" and upstream and len(upstream.values) > 1:  # one a target: not yet beside the classes
        return [Derivation(derivation.formula)]
    return [derivation]


def _target_count(context: NodeContext) -> str:
    """Return the number of targets as formulas write it: n if some may have a negative, ignored class."""
    target = context.saved("target")
    all_count = target is not None and target.stats.min is not None and target.stats.min >= 0
    return str(target.stats.size) if target and all_count else "n"


def _nll_derivative(
    context: NodeContext, log_probabilities: SmallTensor, target: SmallTensor, reduction: str
) -> SmallTensor | None:
    ignore_index = context.number("ignore_index", -100.0)
    targets = [number for number in target.values if number != ignore_index]
    share = -1 / len(targets) if reduction == "mean" and targets else -1.0
    if reduction not in ("mean", "sum", "none"):
        return None
    class_dim = 1 if len(log_probabilities.shape) > 1 else 0  # the dimension of the classes

    def derivative(index: tuple[int, ...]) -> float:
        target_class = target.at((*index[:class_dim], *index[class_dim + 1 :]))
        return share if index[class_dim] == target_class != ignore_index else 0.0

    return SmallTensor(log_probabilities.shape, tuple(derivative(index) for index in indices(log_probabilities.shape)))


LOSS_RULES: dict[str, BackwardRule] = {
    "MseLossBackward0": mse,
    "NllLossBackward0": nll,
    "NllLoss2DBackward0": nll,
    "BinaryCrossEntropyWithLogitsBackward0": binary_cross_entropy,
}
