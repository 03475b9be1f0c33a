"""The gradients of batch norm and layer norm."""

from __future__ import annotations

import math
from collections.abc import Iterable

from autograd_tui.text.derivation.derivation import Derivation
from autograd_tui.text.derivation.rule_context import BackwardRule, NodeContext
from autograd_tui.text.derivation.small_tensor import Shape, SmallTensor, exact_sum, full, indices, scatter_add
from autograd_tui.text.trace.expression import short_name


def batch_norm(context: NodeContext) -> list[Derivation]:
    """Derive by input, weight and bias, a channel at a time."""
    training = (context.setting("training") or context.setting("use_input_stats")) == "True"
    return _norm(context, "channel", uses_own_statistics=training)


def layer_norm(context: NodeContext) -> list[Derivation]:
    """Derive by input, weight and bias, a row at a time."""
    return _norm(context, "row", uses_own_statistics=True)


def _norm(context: NodeContext, over: str, *, uses_own_statistics: bool) -> list[Derivation]:
    """Derive by input, weight and bias.

    `over` is "channel" or "row". With `uses_own_statistics`, mean and variance are functions of the input; otherwise
    they are running statistics, constants to the gradient, and there are no numbers.
    """
    parameter = context.op.named_input("weight") if context.is_whole_call else None
    weight = short_name(context.trace, parameter) if parameter else "weight"
    has_weight, reduced = context.saved("weight") is not None, "each channel" if over == "channel" else "all rows"
    if uses_own_statistics:
        u = f"upstream × {weight}" if has_weight else "upstream"
        by_input = f"n = (input - mean) / sd: 1 / sd × (u - mean(u) - n × mean(u × n)), u = {u}"
    else:
        by_input = f"n = (input - mean) / sd, both as remembered: {weight if has_weight else '1'} / sd × upstream"
    formulas = [
        f"{by_input}, a {over} at a time",
        f"upstream × n, added up over {reduced}",
        f"upstream, added up over {reduced}",
    ]
    gradients, gain = _gradients(context, over) if uses_own_statistics else ([None, None, None], 1.0)
    magnitude = (context.upstream.max_abs if context.upstream else 0.0) * gain * 10
    return [context.gradient(formulas[index], gradients[index], index=index, largest=magnitude) for index in range(3)]


def _gradients(context: NodeContext, over: str) -> tuple[list[SmallTensor | None], float]:
    """Return the gradients of input, weight and bias, and the largest 1 / sd, if above 1: by it rounding grows."""
    inputs, up, eps = context.whole(context.saved("input")), context.whole_upstream, context.number("eps", 1e-5)
    if (
        inputs is None
        or up is None
        or eps is None
        or len(inputs.shape) < 2
        or not all(map(math.isfinite, inputs.values))
    ):
        return [None, None, None], 1.0
    saved_weight, is_channel = context.saved("weight"), over == "channel"
    default_shape = inputs.shape[1:2] if is_channel else inputs.shape[-1:]
    parameter_shape = saved_weight.stats.shape if saved_weight else default_shape
    weight = SmallTensor.of(saved_weight) or full(parameter_shape, 1.0)
    if len(weight.values) != math.prod(parameter_shape):
        return [None, None, None], 1.0
    ahead = len(inputs.shape) - len(parameter_shape)
    parameter_index = {index: index[1:2] if is_channel else index[ahead:] for index in indices(inputs.shape)}
    groups: dict[Shape, list[Shape]] = {}  # the indices of the values that are normalized together
    for index in parameter_index:
        groups.setdefault(index[1:2] if is_channel else index[:ahead], []).append(index)
    by_input, normalized, gain = dict[Shape, float](), dict[Shape, float](), 1.0
    for group in groups.values():
        mean = _mean(map(inputs.at, group))
        sd = math.sqrt(_mean((inputs.at(index) - mean) * (inputs.at(index) - mean) for index in group) + eps)
        gain = max(gain, 1 / sd)
        normalized |= {index: (inputs.at(index) - mean) / sd for index in group}
        u = {index: up.at(index) * weight.at(parameter_index[index]) for index in group}
        mean_u, mean_product = _mean(u.values()), _mean(u[index] * normalized[index] for index in group)
        by_input |= {index: (u[index] - mean_u - normalized[index] * mean_product) / sd for index in group}
    by_weight = ((parameter_index[index], up.at(index) * normalized[index]) for index in parameter_index)
    by_bias = ((parameter_index[index], up.at(index)) for index in parameter_index)
    gradients: list[SmallTensor | None] = [
        scatter_add(inputs.shape, iter(by_input.items())),
        scatter_add(parameter_shape, by_weight),
        scatter_add(parameter_shape, by_bias),
    ]
    return gradients, gain


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return exact_sum(numbers) / len(numbers)


NORMALIZATION_RULES: dict[str, BackwardRule] = {  # by the node's name
    "NativeBatchNormBackward0": batch_norm,
    "CudnnBatchNormBackward0": batch_norm,
    "NativeLayerNormBackward0": layer_norm,
}
