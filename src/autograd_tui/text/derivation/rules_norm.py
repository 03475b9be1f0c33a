"""The local derivatives of normalization and pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import product

from autograd_tui.text.derivation.derivation import BackwardRule, Derivation, gradient
from autograd_tui.text.derivation.rule_context import NodeContext
from autograd_tui.text.derivation.small_tensor import Shape, SmallTensor, exact_sum, full, indices, scatter_add
from autograd_tui.text.trace.expression import short_name


def batch_norm(context: NodeContext) -> list[Derivation]:
    """Derive by input, weight and bias, a channel at a time."""
    training = (context.setting("training") or context.setting("use_input_stats")) == "True"
    eps = context.number("eps", 1e-5)
    return _norm(context, "channel", eps, uses_own_statistics=training)


def layer_norm(context: NodeContext) -> list[Derivation]:
    """Derive by input, weight and bias, a row at a time."""
    eps = context.number("eps", 1e-5)
    return _norm(context, "row", eps, uses_own_statistics=True)


def _norm(context: NodeContext, over: str, eps: float | None, *, uses_own_statistics: bool) -> list[Derivation]:
    """Derive by input, weight and bias.

    `over` is "channel" or "row". With `uses_own_statistics`, mean and variance are functions of the input; otherwise
    they are running statistics, constants to the gradient.
    """
    weight = _parameter_name(context, "weight")
    factor = f"{weight} / sd" if context.saved("weight") else "1 / sd"
    correction = " - mean(u) - n × mean(u × n)" if uses_own_statistics else ""
    inside = f"(u{correction})" if correction else "upstream"
    u = (f", u = upstream × {weight}" if context.saved("weight") else ", u = upstream") if correction else ""
    factor = "1 / sd" if correction else factor
    reduced = "each channel" if over == "channel" else "all rows"
    source = "" if uses_own_statistics else ", both as remembered"
    formulas = [
        f"n = (input - mean) / sd{source}: {factor} × {inside}{u}, a {over} at a time",
        f"upstream × n, added up over {reduced}",
        f"upstream, added up over {reduced}",
    ]
    gradients = (
        _gradients(context, over, eps)
        if uses_own_statistics and eps is not None and not context.one_value
        else [None, None, None]
    )
    inputs = context.small(context.saved("input"))
    gain = max(_max_inverse_sd(context, over, eps), 1.0) if inputs and gradients[0] else 1.0
    magnitude = (context.upstream.max_abs if context.upstream else 0.0) * gain * 10
    return [gradient(context, index, formulas[index], gradients[index], largest=magnitude) for index in range(3)]


def _parameter_name(context: NodeContext, role: str) -> str:
    values = [value for value in context.op.inputs if value.role == role]
    return short_name(context.trace, values[0]) if values and context.is_whole_call else role


def _groups(shape: Shape, over: str, parameter_shape: Shape) -> dict[Shape, list[Shape]]:
    """Return the indices of the elements that are normalized together, by channel or by leading index (row)."""
    groups: dict[Shape, list[Shape]] = {}
    for index in indices(shape):
        key = (index[1],) if over == "channel" else index[: len(shape) - len(parameter_shape)]
        groups.setdefault(key, []).append(index)
    return groups


def _parameter_shape(context: NodeContext, over: str, shape: Shape) -> Shape:
    """Return the shape that weight and bias have, or would have."""
    weight = context.saved("weight")
    return weight.stats.shape if weight else (shape[1],) if over == "channel" else shape[-1:]


def _max_inverse_sd(context: NodeContext, over: str, eps: float | None) -> float:
    """Return the largest 1 / sd: the factor by which rounding grows."""
    inputs = context.small(context.saved("input"))
    if inputs is None or eps is None:
        return 1.0
    groups = _groups(inputs.shape, over, _parameter_shape(context, over, inputs.shape)).values()
    return max(1 / _mean_and_sd([inputs.at(index) for index in group], eps)[1] for group in groups)


def _mean_and_sd(values: list[float], eps: float) -> tuple[float, float]:
    mean = exact_sum(values) / len(values)
    return mean, math.sqrt(exact_sum((value - mean) * (value - mean) for value in values) / len(values) + eps)


def _gradients(context: NodeContext, over: str, eps: float) -> list[SmallTensor | None]:
    inputs, up = context.small(context.saved("input")), context.upstream
    if inputs is None or up is None or len(inputs.shape) < 2 or not all(map(math.isfinite, inputs.values)):
        return [None, None, None]
    parameter_shape = _parameter_shape(context, over, inputs.shape)
    weight = SmallTensor.of(context.saved("weight")) or full(parameter_shape, 1.0)
    if len(weight.values) != math.prod(parameter_shape):
        return [None, None, None]
    parameter_index = {index: _parameter_index(index, over, len(parameter_shape)) for index in indices(inputs.shape)}
    scaled = SmallTensor(
        inputs.shape, tuple(up.at(index) * weight.at(parameter_index[index]) for index in parameter_index)
    )
    by_input: dict[Shape, float] = {}
    normalized: dict[Shape, float] = {}
    for group in _groups(inputs.shape, over, parameter_shape).values():
        by_input |= _group_input_gradient(inputs, scaled, group, eps, normalized)
    return [
        scatter_add(inputs.shape, iter(by_input.items())),
        scatter_add(
            parameter_shape, ((parameter_index[index], up.at(index) * normalized[index]) for index in parameter_index)
        ),
        scatter_add(parameter_shape, ((parameter_index[index], up.at(index)) for index in parameter_index)),
    ]


def _parameter_index(index: Shape, over: str, parameter_dims: int) -> Shape:
    """Return the index into weight and bias that belongs to an index into the input."""
    return (index[1],) if over == "channel" else index[len(index) - parameter_dims :]


def _group_input_gradient(
    inputs: SmallTensor, scaled: SmallTensor, group: list[Shape], eps: float, normalized: dict[Shape, float]
) -> dict[Shape, float]:
    """Return the input gradient of one group by index; also write the normalized values to `normalized`."""
    mean, sd = _mean_and_sd([inputs.at(index) for index in group], eps)
    normalized |= {index: (inputs.at(index) - mean) / sd for index in group}
    mean_gradient, mean_product = (
        _mean(map(scaled.at, group)),
        _mean(scaled.at(index) * normalized[index] for index in group),
    )
    return {index: (scaled.at(index) - mean_gradient - normalized[index] * mean_product) / sd for index in group}


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return exact_sum(numbers) / len(numbers)


NORMALIZATION_RULES: dict[str, BackwardRule] = {
    "NativeBatchNormBackward0": batch_norm,
    "CudnnBatchNormBackward0": batch_norm,
    "NativeLayerNormBackward0": layer_norm,
}


Window = Callable[[Shape, Shape, Shape], list[range]]  # of an output's index, output shape and input shape
MAX_POOL_FORMULA = "each gradient goes to the greatest value of its window, the others get 0"


def max_pool(context: NodeContext) -> list[Derivation]:
    """Send each gradient to the index that the node remembers."""
    up, max_indices = context.upstream, SmallTensor.of(context.saved("result1"))
    input_gradient = context.op.grad_out[0] if context.op.grad_out else None
    result = None
    if up and max_indices and input_gradient and not context.one_value and math.prod(input_gradient.stats.shape) <= 64:
        spatial_dims = 2 if context.op.name.startswith("MaxPool2D") else 3
        shape = input_gradient.stats.shape
        result = scatter_add(
            shape,
            (
                ((*at[:-spatial_dims], *_unravel_index(int(max_indices.at(at)), shape[-spatial_dims:])), up.at(at))
                for at in indices(up.shape)
            ),
        )
    return [gradient(context, 0, MAX_POOL_FORMULA, result)]


def _unravel_index(index: int, shape: Shape) -> Shape:
    digits: list[int] = []
    for size in reversed(shape):
        index, digit = divmod(index, size)
        digits.insert(0, digit)
    return tuple(digits)


def adaptive_max_pool(context: NodeContext) -> list[Derivation]:
    """Say where the gradients go, without numbers."""
    return [gradient(context, 0, MAX_POOL_FORMULA)]


def avg_pool(context: NodeContext) -> list[Derivation]:
    """Share each gradient equally among its window."""
    kernel, stride = context.integers("kernel_size"), context.integers("stride")
    is_unsupported = context.setting("padding") not in (None, "0", "(0, 0)") or context.setting("ceil_mode") == "True"
    if kernel is None or is_unsupported or context.setting("divisor_override") not in (None, "None"):
        return [gradient(context, 0, "each gradient is shared by the values of its window")]
    kernel_size = kernel * 2 if len(kernel) == 1 else kernel
    strides = kernel_size if stride is None else stride * 2 if len(stride) == 1 else stride

    def window(at: Shape, _: Shape, __: Shape) -> list[range]:
        return [
            range(position * stride_size, position * stride_size + size)
            for position, stride_size, size in zip(at, strides, kernel_size, strict=True)
        ]

    formula = f"each value of a window gets 1/{math.prod(kernel_size)} of its gradient"
    return [gradient(context, 0, formula, _share_among_windows(context, window))]


def adaptive_avg_pool(context: NodeContext) -> list[Derivation]:
    """Share each gradient equally among its window; window sizes may differ."""

    def window(at: Shape, output_shape: Shape, input_shape: Shape) -> list[range]:
        return [
            range(position * size // output_size, -(-(position + 1) * size // output_size))
            for position, output_size, size in zip(at, output_shape, input_shape, strict=True)
        ]

    return [
        gradient(
            context,
            0,
            "each value of a window gets an equal share of its gradient",
            _share_among_windows(context, window),
        )
    ]


def _share_among_windows(context: NodeContext, window: Window) -> SmallTensor | None:
    """Return the input gradient of average pooling: each upstream value divided equally among its window."""
    up, input_gradient = context.upstream, context.op.grad_out[0] if context.op.grad_out else None
    if (
        up is None
        or input_gradient is None
        or context.one_value
        or len(up.shape) < 2
        or math.prod(input_gradient.stats.shape) > 64
    ):
        return None
    shape, shares = input_gradient.stats.shape, []
    for at in indices(up.shape):
        positions = list(product(*window(at[-2:], up.shape[-2:], shape[-2:])))
        shares += [((*at[:-2], *position), up.at(at) / len(positions)) for position in positions]
    return scatter_add(shape, iter(shares))


POOLING_RULES: dict[str, BackwardRule] = {
    "MaxPool2DWithIndicesBackward0": max_pool,
    "MaxPool3DWithIndicesBackward0": max_pool,
    "AdaptiveMaxPool2DBackward0": adaptive_max_pool,
    "AvgPool2DBackward0": avg_pool,
    "AdaptiveAvgPool2DBackward0": adaptive_avg_pool,
}
