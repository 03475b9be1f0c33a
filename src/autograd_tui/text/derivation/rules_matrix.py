"""The local derivatives of matrix products, convolutions and attention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autograd_tui.text.derivation.derivation import (
    FIRST_VALUE,
    MAX_PRODUCT_TERMS,
    BackwardRule,
    Derivation,
    gradient,
    product_magnitude,
    scaled,
    times,
    written_products,
)
from autograd_tui.text.derivation.rule_context import NodeContext, parse_ints
from autograd_tui.text.derivation.small_tensor import (
    Shape,
    SmallTensor,
    indices,
    matrix_product,
    product_terms,
    scatter_add,
    transposed,
)
from autograd_tui.text.trace.expression import differential, inner, short_name


def addmm(context: NodeContext) -> list[Derivation]:
    """Derive bias + left @ right, as linear does with right = weight.T."""
    beta = context.number("beta", 1.0)
    alpha = context.number("alpha", 1.0)
    bias = inner(_linear_names(context)[2] or context.name(0))
    is_unscaled = beta == alpha == 1.0
    formula = f"d(product + {bias})/{differential(bias)} = 1" if is_unscaled else f"d/{differential(bias)} = beta"
    bias_gradient = scaled(context, 0, formula, beta)
    return [bias_gradient, *_product(context, 1, ("mat1", "mat2"), is_unscaled=is_unscaled)]


def mm(context: NodeContext) -> list[Derivation]:
    """Derive left @ right."""
    return _product(context, 0, ("self", "mat2"))


def baddbmm(context: NodeContext) -> list[Derivation]:
    """Derive bias + left @ right, of batches of matrices."""
    is_unscaled = context.setting("beta") is None and context.setting("alpha") is None
    bias_gradient = scaled(
        context,
        0,
        f"d/{differential(context.name(0))} = {'1' if is_unscaled else 'beta'}",
        1.0 if is_unscaled else None,
    )
    return [bias_gradient, *_product(context, 1, ("batch1", "batch2"), is_unscaled=is_unscaled)]


def _product(context: NodeContext, index: int, roles: tuple[str, str], *, is_unscaled: bool = True) -> list[Derivation]:
    """Derive left @ right, whose gradients go to `index` and the one after it."""
    left, right = (context.small(context.saved(role)) for role in roles)
    names = _linear_names(context)
    left_name = inner(names[0] or context.name(index))
    right_name = f"{names[1]}.T" if names[1] else inner(context.name(index + 1))
    right_transpose = names[1] or f"{right_name}.T"  # the transpose of a transpose is the weight itself
    up, alpha = context.upstream if is_unscaled and not context.one_value else None, "" if is_unscaled else "alpha × "
    return [
        _product_gradient(
            context, index, f"{left_name} @ {right_name}: {alpha}upstream @ {right_transpose}", up, transposed(right)
        ),
        _product_gradient(
            context, index + 1, f"{left_name} @ {right_name}: {alpha}{left_name}.T @ upstream", transposed(left), up
        ),
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
    return gradient(context, index, formula, result, arithmetic=arithmetic, largest=product_magnitude(left, right))


def _linear_names(context: NodeContext) -> tuple[str, str, str]:
    """Return the names of a linear layer's input, weight and bias; three "" for other calls."""
    call = context.call
    if call is None or call.name != "linear" or len(call.inputs) < 2:
        return "", "", ""
    names = [short_name(context.trace, value) for value in call.inputs]
    return names[0], names[1], (*names, "")[2]


def transpose(context: NodeContext) -> list[Derivation]:
    """Derive a transpose: the gradient is transposed back."""
    upstream = context.upstream if not context.one_value else None
    return [gradient(context, 0, "a transpose: the gradient is turned back, upstream.T", transposed(upstream))]


def mv(context: NodeContext) -> list[Derivation]:
    """Derive matrix @ vector."""
    matrix, vector, up = context.small(context.saved("self")), context.small(context.saved("vec")), context.upstream
    names = inner(context.name(0)), inner(context.name(1))
    column = up.reshaped((*up.shape, 1)) if up and not context.one_value else None
    row = vector.reshaped((1, *vector.shape)) if vector else None
    by_vector = matrix_product(transposed(matrix), column)
    return [
        _product_gradient(context, 0, f"{names[0]} @ {names[1]}: upstream × each value of {names[1]}", column, row),
        gradient(
            context,
            1,
            f"{names[0]} @ {names[1]}: {names[0]}.T @ upstream",
            by_vector.reshaped(by_vector.shape[:1]) if by_vector else None,
            largest=product_magnitude(column, matrix) if column and matrix else 0.0,
        ),
    ]


def dot(context: NodeContext) -> list[Derivation]:
    """Derive the sum of products of two vectors."""
    left, right = context.name(0), context.name(1)
    return [
        times(context, 0, f"d(sum of products)/{differential(left)} = {right}", context.operand("tensor", 1)),
        times(context, 1, f"d(sum of products)/{differential(right)} = {left}", context.operand("self", 0)),
    ]


PRODUCT_RULES: dict[str, BackwardRule] = {
    "AddmmBackward0": addmm,
    "MmBackward0": mm,
    "BmmBackward0": mm,
    "BaddbmmBackward0": baddbmm,
    "MvBackward0": mv,
    "DotBackward0": dot,
    "TBackward0": transpose,
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
        text = context.setting(name)
        numbers = ((0,) if name == "padding" else (1,)) if text is None else parse_ints(text)
        return numbers * dims if numbers and len(numbers) == 1 else numbers or ()

    def products(self, output: Shape, weight: Shape, inputs: Shape) -> Iterator[tuple[Shape, Shape, Shape]]:
        """Yield the (output, weight, input) indices of every product that the convolution sums."""
        inputs_per_group, outputs_per_group = weight[1], weight[0] // self.groups
        for output_index in indices(output):
            for weight_index in indices(weight[1:]):
                input_position = tuple(
                    o * stride - padding + k * dilation
                    for o, k, stride, padding, dilation in zip(
                        output_index[2:], weight_index[1:], self.stride, self.padding, self.dilation, strict=True
                    )
                )
                if all(0 <= coordinate < size for coordinate, size in zip(input_position, inputs[2:], strict=True)):
                    yield (
                        output_index,
                        (output_index[1], *weight_index),
                        (
                            output_index[0],
                            output_index[1] // outputs_per_group * inputs_per_group + weight_index[0],
                            *input_position,
                        ),
                    )


def convolution(context: NodeContext) -> list[Derivation]:
    """Derive by input, weight and bias."""
    inputs, weight, up = (*map(context.small, map(context.saved, ("input", "weight"))), context.upstream)
    given = context.op.inputs if context.is_whole_call else ()
    names = [short_name(context.trace, value) for value in given] + ["input", "weight", "bias"][len(given) :]
    has_values = (
        inputs and weight and up and not context.one_value and len(weight.shape) == len(up.shape) == len(inputs.shape)
    )
    plain = context.call is not None and context.call.name in ("conv1d", "conv2d", "conv3d")
    parts: list[SmallTensor | None] = [None, None, None]
    if has_values and plain and inputs and weight and up:
        parts = _convolution_gradients(context, up, weight, inputs)
    formulas = [
        f"from every output that it fed, upstream × {names[1]} between them, added up",
        f"for each of its values, upstream × {names[0]} where they met, added up",
        f"d(output)/{differential(names[2])} = 1: upstream added up over images and places",
    ]
    scale = (
        product_magnitude(up, SmallTensor((), (max(inputs.max_abs, weight.max_abs),)))
        if up and inputs and weight
        else 0.0
    )
    return [gradient(context, index, formulas[index], parts[index], largest=scale) for index in range(3)]


def _convolution_gradients(
    context: NodeContext, up: SmallTensor, weight: SmallTensor, inputs: SmallTensor
) -> list[SmallTensor | None]:
    channels = scatter_add((up.shape[1],), (((at[1],), up.at(at)) for at in indices(up.shape)))
    geometry = ConvolutionGeometry.of(context, len(up.shape) - 2)
    if geometry is None:
        return [None, None, channels]
    products = list(geometry.products(up.shape, weight.shape, inputs.shape))
    by_input = scatter_add(inputs.shape, ((position, up.at(at) * weight.at(tap)) for at, tap, position in products))
    by_weight = scatter_add(weight.shape, ((tap, up.at(at) * inputs.at(position)) for at, tap, position in products))
    return [by_input, by_weight, channels]


CONVOLUTION_RULES: dict[str, BackwardRule] = {"ConvolutionBackward0": convolution}


ATTENTION_WEIGHTS = "P = softmax(query @ key.T × scale)"
SCORE_GRADIENT = "D = P × (upstream @ value.T - its mean by P)"


def attention(context: NodeContext) -> list[Derivation]:
    """Write the gradients of query, key and value as matrix formulas, without numbers: heads are too large."""
    return [
        gradient(context, 0, f"query, with {ATTENTION_WEIGHTS}, {SCORE_GRADIENT}: D @ key × scale"),
        gradient(context, 1, "key: D.T @ query × scale"),
        gradient(context, 2, "value: P.T @ upstream"),
    ]


ATTENTION_NODES = (
    "ScaledDotProductFlashAttentionForCpuBackward0",
    "ScaledDotProductFlashAttentionBackward0",
    "ScaledDotProductEfficientAttentionBackward0",
    "ScaledDotProductCudnnAttentionBackward0",
)
ATTENTION_RULES: dict[str, BackwardRule] = dict.fromkeys(ATTENTION_NODES, attention)
