"""The gradients of convolution and of pooling, whose outputs are each made from a window of the input."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

from autograd_tui.text.derivation.derivation import Derivation, product_magnitude
from autograd_tui.text.derivation.rule_context import BackwardRule, NodeContext, formula_only
from autograd_tui.text.derivation.small_tensor import MAX_SIZE, Shape, SmallTensor, indices, scatter_add
from autograd_tui.text.trace.expression import differential, short_name


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


MAX_POOL_FORMULA = "each gradient goes to the greatest value of its window, the others get 0"


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
