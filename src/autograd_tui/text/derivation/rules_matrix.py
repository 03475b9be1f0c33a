"""The chain rule of matrix written_product, convolutions and attention."""

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
    pairs,
    scatter_add,
    transposed,
)
from autograd_tui.text.trace.expression import differential, inner, short_name


def addmm(context: NodeContext) -> list[Derivation]:
    """Derive bias + left @ right, as linear does with right = weight.T."""
    beta = context.number("beta", 1.0)
    alpha = context.number("alpha", 1.0)
    bias = inner(_names(context)[2] or context.name(0))
    plain = beta == alpha == 1.0
    formula = f"d(product + {bias})/{differential(bias)} = 1" if plain else f"d/{differential(bias)} = beta"
    first = scaled(context, 0, formula, beta)
    return [first, *_product(context, 1, ("mat1", "mat2"), known=plain)]


def mm(context: NodeContext) -> list[Derivation]:
    """Derive left @ right."""
    return _product(context, 0, ("self", "mat2"))


def baddbmm(context: NodeContext) -> list[Derivation]:
    """Derive bias + left @ right, of batches of matrices."""
    plain = context.setting("beta") is None and context.setting("alpha") is None
    bias = scaled(context, 0, f"d/{differential(context.name(0))} = {'1' if plain else 'beta'}", 1.0 if plain else None)
    return [bias, *_product(context, 1, ("batch1", "batch2"), known=plain)]


def _product(context: NodeContext, index: int, roles: tuple[str, str], *, known: bool = True) -> list[Derivation]:
    """Derive left @ right, whose gradients go to `index` and the one after it."""
    left, right = (context.small(context.saved(role)) for role in roles)
    names = _names(context)
    first = inner(names[0] or context.name(index))
    second = f"{names[1]}.T" if names[1] else inner(context.name(index + 1))
    back = names[1] or f"{second}.T"  # the transpose of a transpose is the weight itself
    up, scale = context.upstream if known and not context.one_value else None, "" if known else "alpha × "
    return [
        _multiplied(context, index, f"{first} @ {second}: {scale}upstream @ {back}", up, transposed(right)),
        _multiplied(context, index + 1, f"{first} @ {second}: {scale}{first}.T @ upstream", transposed(left), up),
    ]


def _multiplied(
    context: NodeContext, index: int, formula: str, left: SmallTensor | None, right: SmallTensor | None
) -> Derivation:
    result = matrix_product(left, right)
    if result is None or left is None or right is None:
        return Derivation(formula, index=index)
    terms = pairs(left, right, (0,) * len(result.shape))
    written = written_products(terms)
    first = "" if len(result.values) == 1 else FIRST_VALUE
    arithmetic = f"{first}{written}" if len(terms) <= MAX_PRODUCT_TERMS else ""
    return gradient(context, index, formula, result, arithmetic=arithmetic, largest=product_magnitude(left, right))


def _names(context: NodeContext) -> tuple[str, str, str]:
    """Name input, weight and bias of a linear layer; "" for other operations."""
    call = context.call
    if call is None or call.name != "linear" or len(call.inputs) < 2:
        return "", "", ""
    found = [short_name(context.trace, value) for value in call.inputs]
    return found[0], found[1], (*found, "")[2]


def turn(context: NodeContext) -> list[Derivation]:
    """Derive a transpose, which turns the gradient back."""
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
        _multiplied(context, 0, f"{names[0]} @ {names[1]}: upstream × each value of {names[1]}", column, row),
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
    "TBackward0": turn,
}


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the window of a convolution lies; one number a dimension."""

    stride: Shape
    padding: Shape
    dilation: Shape
    groups: int

    @classmethod
    def of(cls, context: NodeContext, dims: int) -> Geometry | None:
        """Read it from the operation's settings; None where they are written in another way."""
        read = {word: cls._read(context, word, dims) for word in ("stride", "padding", "dilation", "groups")}
        if not all(read.values()):
            return None
        return cls(read["stride"], read["padding"], read["dilation"], read["groups"][0])

    @staticmethod
    def _read(context: NodeContext, word: str, dims: int) -> Shape:
        written = context.setting(word)
        numbers = ((0,) if word == "padding" else (1,)) if written is None else parse_ints(written)
        return numbers * dims if numbers and len(numbers) == 1 else numbers or ()

    def meetings(self, output: Shape, weight: Shape, inputs: Shape) -> Iterator[tuple[Shape, Shape, Shape]]:
        """Give every (output, weight, input) index whose numbers meet in a product."""
        channels, each = weight[1], weight[0] // self.groups
        for at in indices(output):
            for tap in indices(weight[1:]):
                position = tuple(
                    o * stride - padding + k * dilation
                    for o, k, stride, padding, dilation in zip(
                        at[2:], tap[1:], self.stride, self.padding, self.dilation, strict=True
                    )
                )
                if all(0 <= here < size for here, size in zip(position, inputs[2:], strict=True)):
                    yield at, (at[1], *tap), (at[0], at[1] // each * channels + tap[0], *position)


def convolution(context: NodeContext) -> list[Derivation]:
    """Derive by input, weight and bias."""
    inputs, weight, up = (*map(context.small, map(context.saved, ("input", "weight"))), context.upstream)
    given = context.op.inputs if context.is_whole_call else ()
    names = [short_name(context.trace, value) for value in given] + ["input", "weight", "bias"][len(given) :]
    known = (
        inputs and weight and up and not context.one_value and len(weight.shape) == len(up.shape) == len(inputs.shape)
    )
    plain = context.call is not None and context.call.name in ("conv1d", "conv2d", "conv3d")
    parts: list[SmallTensor | None] = [None, None, None]
    if known and plain and inputs and weight and up:
        parts = _worked(context, up, weight, inputs)
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


def _worked(
    context: NodeContext, up: SmallTensor, weight: SmallTensor, inputs: SmallTensor
) -> list[SmallTensor | None]:
    channels = scatter_add((up.shape[1],), (((at[1],), up.at(at)) for at in indices(up.shape)))
    geometry = Geometry.of(context, len(up.shape) - 2)
    if geometry is None:
        return [None, None, channels]
    products = list(geometry.meetings(up.shape, weight.shape, inputs.shape))
    by_input = scatter_add(inputs.shape, ((position, up.at(at) * weight.at(tap)) for at, tap, position in products))
    by_weight = scatter_add(weight.shape, ((tap, up.at(at) * inputs.at(position)) for at, tap, position in products))
    return [by_input, by_weight, channels]


CONVOLUTION_RULES: dict[str, BackwardRule] = {"ConvolutionBackward0": convolution}


WEIGHTS = "P = softmax(query @ key.T × scale)"
SLOPES = "D = P × (upstream @ value.T - its mean by P)"


def attention(context: NodeContext) -> list[Derivation]:
    """Say in matrices what goes to query, key and value; no head is small enough to be worked by hand."""
    return [
        gradient(context, 0, f"query, with {WEIGHTS}, {SLOPES}: D @ key × scale"),
        gradient(context, 1, "key: D.T @ query × scale"),
        gradient(context, 2, "value: P.T @ upstream"),
    ]


NODES = (
    "ScaledDotProductFlashAttentionForCpuBackward0",
    "ScaledDotProductFlashAttentionBackward0",
    "ScaledDotProductEfficientAttentionBackward0",
    "ScaledDotProductCudnnAttentionBackward0",
)
ATTENTION_RULES: dict[str, BackwardRule] = dict.fromkeys(NODES, attention)
