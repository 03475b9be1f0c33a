"""The gradients of layers: matrix products, attention, normalization, convolution and pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from autograd_tui.text.derivation.derivation import (
    FIRST_VALUE,
    MAX_PRODUCT_TERMS,
    Derivation,
    product_magnitude,
    written_products,
)
from autograd_tui.text.derivation.rule_context import BackwardRule, NodeContext, formula_only
from autograd_tui.text.derivation.small_tensor import (
    MAX_SIZE,
    Shape,
    SmallTensor,
    exact_sum,
    full,
    indices,
    matrix_product,
    product_terms,
    scatter_add,
    transposed,
)
from autograd_tui.text.trace.tensor_words import differential, inner, short_name

ATTENTION_WEIGHTS = "P = softmax(query @ key.T × scale)"
SCORE_GRADIENT = "D = P × (upstream @ value.T - its mean by P)"
MAX_POOL_FORMULA = "each gradient goes to the greatest value of its window, the others get 0"


def addmm(context: NodeContext) -> list[Derivation]:
    """Derive bias + left @ right, as linear does with right = weight.T."""
    beta = context.number("beta", 1.0)
    alpha = context.number("alpha", 1.0)
    bias = inner(_linear_names(context)[2] or context.name(0))
    is_unscaled = beta == alpha == 1.0
    formula = f"d(product + {bias})/{differential(bias)} = 1" if is_unscaled else f"d/{differential(bias)} = beta"
    bias_gradient = context.scaled(formula, beta)
    return [bias_gradient, *_product(context, 1, ("mat1", "mat2"), is_unscaled=is_unscaled)]


def mm(context: NodeContext) -> list[Derivation]:
    """Derive left @ right."""
    return _product(context, 0, ("self", "mat2"))


def baddbmm(context: NodeContext) -> list[Derivation]:
    """Derive bias + left @ right, of batches of matrices."""
    is_unscaled = context.setting("beta") is None and context.setting("alpha") is None
    formula = f"d/{differential(context.name(0))} = {'1' if is_unscaled else 'beta'}"
    bias_gradient = context.scaled(formula, 1.0 if is_unscaled else None)
    return [bias_gradient, *_product(context, 1, ("batch1", "batch2"), is_unscaled=is_unscaled)]


def _product(context: NodeContext, index: int, roles: tuple[str, str], *, is_unscaled: bool = True) -> list[Derivation]:
    """Derive left @ right, whose gradients go to `index` and the one after it."""
    left, right = (context.whole(context.saved(role)) for role in roles)
    names = _linear_names(context)
    left_name = inner(names[0] or context.name(index))
    right_name = f"{names[1]}.T" if names[1] else inner(context.name(index + 1))
    right_transpose = names[1] or f"{right_name}.T"  # the transpose of a transpose is the weight itself
    up, alpha = context.whole_upstream if is_unscaled else None, "" if is_unscaled else "alpha × "
    product = f"{left_name} @ {right_name}: {alpha}"
    by_left, by_right = f"{product}upstream @ {right_transpose}", f"{product}{left_name}.T @ upstream"
    return [
        _product_gradient(context, index, by_left, up, transposed(right)),
        _product_gradient(context, index + 1, by_right, transposed(left), up),
    ]


def _product_gradient(
    context: NodeContext, index: int, formula: str, left: SmallTensor | None, right: SmallTensor | None
) -> Derivation:
    result = matrix_product(left, right)
    if result is None or left is None or right is None:
        return Derivation(formula, index=index)
    terms = product_terms(left, right, (0,) * len(result.shape))
    text = written_products(terms)
    prefix = "" if len(result.values) == 1 else FIRST_VALUE
    arithmetic = f"{prefix}{text}" if len(terms) <= MAX_PRODUCT_TERMS else ""
    return context.gradient(formula, result, index=index, arithmetic=arithmetic, largest=product_magnitude(left, right))


def _linear_names(context: NodeContext) -> tuple[str, str, str]:
    """Return the names of a linear layer's input, weight and bias; three "" for other calls."""
    call = context.call
    if call is None or call.name != "linear" or len(call.inputs) < 2:
        return "", "", ""
    names = [short_name(context.trace, value) for value in call.inputs]
    return names[0], names[1], (*names, "")[2]


def transpose(context: NodeContext) -> list[Derivation]:
    """Derive a transpose: the gradient is transposed back."""
    formula = "a transpose: the gradient is turned back, upstream.T"
    return [context.gradient(formula, transposed(context.whole_upstream))]


def mv(context: NodeContext) -> list[Derivation]:
    """Derive matrix @ vector."""
    matrix, vector = context.whole(context.saved("self")), context.whole(context.saved("vec"))
    left, right, up = inner(context.name(0)), inner(context.name(1)), context.whole_upstream
    column = up.reshaped((*up.shape, 1)) if up else None
    row = vector.reshaped((1, *vector.shape)) if vector else None
    by_vector = matrix_product(transposed(matrix), column)
    by_vector = by_vector.reshaped(by_vector.shape[:1]) if by_vector else None
    largest = product_magnitude(column, matrix) if column and matrix else 0.0
    return [
        _product_gradient(context, 0, f"{left} @ {right}: upstream × each value of {right}", column, row),
        context.gradient(f"{left} @ {right}: {left}.T @ upstream", by_vector, index=1, largest=largest),
    ]


def dot(context: NodeContext) -> list[Derivation]:
    """Derive the sum of products of two vectors."""
    left, right, of = context.name(0), context.name(1), "d(sum of products)"
    by_left, by_right = context.operand("tensor", 1), context.operand("self", 0)
    return [
        context.times(f"{of}/{differential(left)} = {right}", by_left, shows_local=False),
        context.times(f"{of}/{differential(right)} = {left}", by_right, index=1, shows_local=False),
    ]


def attention(context: NodeContext) -> list[Derivation]:
    """Write the gradients of query, key and value as matrix formulas, without numbers: heads are too large."""
    return [
        context.gradient(f"query, with {ATTENTION_WEIGHTS}, {SCORE_GRADIENT}: D @ key × scale"),
        context.gradient("key: D.T @ query × scale", index=1),
        context.gradient("value: P.T @ upstream", index=2),
    ]


MATRIX_RULES: dict[str, BackwardRule] = {  # by the node's name
    "AddmmBackward0": addmm,
    "MmBackward0": mm,
    "BmmBackward0": mm,
    "BaddbmmBackward0": baddbmm,
    "MvBackward0": mv,
    "DotBackward0": dot,
    "TBackward0": transpose,
    **dict.fromkeys(
        (
            "ScaledDotProductFlashAttentionForCpuBackward0",
            "ScaledDotProductFlashAttentionBackward0",
            "ScaledDotProductEfficientAttentionBackward0",
            "ScaledDotProductCudnnAttentionBackward0",
        ),
        attention,
    ),
}


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


@dataclass(frozen=True, slots=True)
class ConvolutionGeometry:
    """A convolution's stride, padding and dilation, one number a spatial dimension, and its groups."""

    stride: Shape
    padding: Shape
    dilation: Shape
    groups: int

    @classmethod
    def of(cls, context: NodeContext, dims: int) -> ConvolutionGeometry | None:
        """Read the geometry from the call's settings; None if one cannot be read, such as padding="same"."""
        settings = {name: cls._read(context, name, dims) for name in ("stride", "padding", "dilation", "groups")}
        if not all(settings.values()):
            return None
        return cls(settings["stride"], settings["padding"], settings["dilation"], settings["groups"][0])

    @staticmethod
    def _read(context: NodeContext, name: str, dims: int) -> Shape:
        default = (0,) if name == "padding" else (1,)
        numbers = default if context.setting(name) is None else context.integers(name)
        return numbers * dims if numbers and len(numbers) == 1 else numbers or ()

    def products(self, output: Shape, weight: Shape, inputs: Shape) -> Iterator[tuple[Shape, Shape, Shape]]:
        """Yield the (output, weight, input) indices of every product that the convolution sums."""
        inputs_per_group, outputs_per_group = weight[1], weight[0] // self.groups
        for output_index in indices(output):
            image, output_channel, *output_at = output_index
            for group_channel, *weight_at in indices(weight[1:]):
                geometry = zip(output_at, weight_at, self.stride, self.padding, self.dilation, strict=True)
                input_at = tuple(o * stride - padding + k * dilation for o, k, stride, padding, dilation in geometry)
                if all(0 <= coordinate < size for coordinate, size in zip(input_at, inputs[2:], strict=True)):
                    input_channel = output_channel // outputs_per_group * inputs_per_group + group_channel
                    weight_index = (output_channel, group_channel, *weight_at)
                    yield output_index, weight_index, (image, input_channel, *input_at)


def convolution(context: NodeContext) -> list[Derivation]:
    """Derive by input, weight and bias."""
    call_inputs = context.op.inputs if context.is_whole_call else ()
    names = [short_name(context.trace, value) for value in call_inputs]
    names += ["input", "weight", "bias"][len(names) :]
    formulas = [
        f"from every output that it fed, upstream × {names[1]} between them, added up",
        f"for each of its values, upstream × {names[0]} where they met, added up",
        f"d(output)/{differential(names[2])} = 1: upstream added up over images and places",
    ]
    inputs, weight = context.whole(context.saved("input")), context.whole(context.saved("weight"))
    up, gradients, largest = context.whole_upstream, list[SmallTensor | None]([None, None, None]), 0.0
    if inputs and weight and up:
        largest = product_magnitude(up, SmallTensor((), (max(inputs.max_abs, weight.max_abs),)))
        is_plain = context.call is not None and context.call.name in ("conv1d", "conv2d", "conv3d")
        if is_plain and len(weight.shape) == len(up.shape) == len(inputs.shape):
            gradients = _convolution_gradients(context, up, weight, inputs)
    return [context.gradient(formulas[index], gradients[index], index=index, largest=largest) for index in range(3)]


def _convolution_gradients(
    context: NodeContext, up: SmallTensor, weight: SmallTensor, inputs: SmallTensor
) -> list[SmallTensor | None]:
    """Return the gradients of input, weight and bias; of unknown settings, the bias's alone."""
    channels = scatter_add((up.shape[1],), (((at[1],), up.at(at)) for at in indices(up.shape)))
    geometry = ConvolutionGeometry.of(context, len(up.shape) - 2)
    if geometry is None:
        return [None, None, channels]
    products = list(geometry.products(up.shape, weight.shape, inputs.shape))
    by_input = scatter_add(inputs.shape, ((position, up.at(at) * weight.at(tap)) for at, tap, position in products))
    by_weight = scatter_add(weight.shape, ((tap, up.at(at) * inputs.at(position)) for at, tap, position in products))
    return [by_input, by_weight, channels]


def max_pool(context: NodeContext) -> list[Derivation]:
    """Send each gradient to the index that the node saved."""
    up, max_indices = context.whole_upstream, context.whole(context.saved("result1"))
    shape, result = context.input_shape, None
    if up and max_indices and shape and math.prod(shape) <= MAX_SIZE:
        window_dims = 2 if context.op.name.startswith("MaxPool2D") else 3
        ahead, window_shape = -window_dims, shape[-window_dims:]
        targets = ((*at[:ahead], *_unravel_index(int(max_indices.at(at)), window_shape)) for at in indices(up.shape))
        result = scatter_add(shape, zip(targets, up.values, strict=True))
    return [context.gradient(MAX_POOL_FORMULA, result)]


def _unravel_index(index: int, shape: Shape) -> Shape:
    digits: list[int] = []
    for size in reversed(shape):
        index, digit = divmod(index, size)
        digits.insert(0, digit)
    return tuple(digits)


def avg_pool(context: NodeContext) -> list[Derivation]:
    """Share each gradient equally among its window."""
    kernel, stride = context.integers("kernel_size"), context.integers("stride")
    is_unsupported = context.setting("padding") not in (None, "0", "(0, 0)") or context.setting("ceil_mode") == "True"
    if kernel is None or is_unsupported or context.setting("divisor_override") not in (None, "None"):
        return [context.gradient("each gradient is shared by the values of its window")]
    sizes = kernel * 2 if len(kernel) == 1 else kernel
    strides = sizes if stride is None else stride * 2 if len(stride) == 1 else stride

    def window(at: Shape, _: Shape) -> list[range]:
        starts = [index * stride_size for index, stride_size in zip(at, strides, strict=True)]
        return [range(start, start + size) for start, size in zip(starts, sizes, strict=True)]

    formula = f"each value of a window gets 1/{math.prod(sizes)} of its gradient"
    return [context.gradient(formula, _share_among_windows(context, window))]


def adaptive_avg_pool(context: NodeContext) -> list[Derivation]:
    """Share each gradient equally among its window; window sizes may differ."""
    outputs = context.whole_upstream.shape[-2:] if context.whole_upstream else ()

    def window(at: Shape, input_shape: Shape) -> list[range]:
        sizes = list(zip(at, outputs, input_shape, strict=True))
        return [range(index * size // count, -(-(index + 1) * size // count)) for index, count, size in sizes]

    formula = "each value of a window gets an equal share of its gradient"
    return [context.gradient(formula, _share_among_windows(context, window))]


def _share_among_windows(context: NodeContext, window: Callable[[Shape, Shape], list[range]]) -> SmallTensor | None:
    """Return the input gradient of average pooling: each upstream value divided equally among its window.

    `window` has the index of an output and the input's shape, both without the dimensions of batch and channel.
    """
    up, shape = context.whole_upstream, context.input_shape
    if up is None or shape is None or len(up.shape) < 2 or math.prod(shape) > MAX_SIZE:
        return None
    shares: list[tuple[Shape, float]] = []
    for at in indices(up.shape):
        elements = list(product(*window(at[-2:], shape[-2:])))
        shares += [((*at[:-2], *element), up.at(at) / len(elements)) for element in elements]
    return scatter_add(shape, iter(shares))


WINDOW_RULES: dict[str, BackwardRule] = {  # by the node's name
    "ConvolutionBackward0": convolution,
    "MaxPool2DWithIndicesBackward0": max_pool,
    "MaxPool3DWithIndicesBackward0": max_pool,
    "AdaptiveMaxPool2DBackward0": formula_only(MAX_POOL_FORMULA),
    "AvgPool2DBackward0": avg_pool,
    "AdaptiveAvgPool2DBackward0": adaptive_avg_pool,
}
