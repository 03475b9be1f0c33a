"""The chain rule of matrix products, convolutions and attention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autograd_tui.text.derivation.input_gradient import InputGradient, Rule, added_products, scaled, size, times, whole
from autograd_tui.text.derivation.node_context import NodeContext, parsed_whole
from autograd_tui.text.derivation.small_tensor import Shape, SmallTensor, collected, multiplied, pairs, places, turned
from autograd_tui.text.trace.expression import differential, inner, short_name

MOST_TERMS = 4  # of a sum that is written out


def addmm(scene: NodeContext) -> list[InputGradient]:
    """Derive bias + left @ right, as linear does with right = weight.T."""
    beta = 1.0 if scene.words("beta") is None else scene.number("beta")
    alpha = 1.0 if scene.words("alpha") is None else scene.number("alpha")
    bias = inner(_names(scene)[2] or scene.name(0))
    plain = beta == alpha == 1.0
    formula = f"d(product + {bias})/{differential(bias)} = 1" if plain else f"d/{differential(bias)} = beta"
    first = scaled(scene, 0, formula, beta)
    return [first, *_product(scene, 1, ("mat1", "mat2"), known=plain)]


def mm(scene: NodeContext) -> list[InputGradient]:
    """Derive left @ right."""
    return _product(scene, 0, ("self", "mat2"))


def baddbmm(scene: NodeContext) -> list[InputGradient]:
    """Derive bias + left @ right, of batches of matrices."""
    plain = scene.words("beta") is None and scene.words("alpha") is None
    bias = scaled(scene, 0, f"d/{differential(scene.name(0))} = {'1' if plain else 'beta'}", 1.0 if plain else None)
    return [bias, *_product(scene, 1, ("batch1", "batch2"), known=plain)]


def _product(scene: NodeContext, place: int, roles: tuple[str, str], *, known: bool = True) -> list[InputGradient]:
    """Derive left @ right, whose gradients go to `place` and the one after it."""
    left, right = (scene.small(scene.saved(role)) for role in roles)
    names = _names(scene)
    first = inner(names[0] or scene.name(place))
    second = f"{names[1]}.T" if names[1] else inner(scene.name(place + 1))
    back = names[1] or f"{second}.T"  # the transpose of a transpose is the weight itself
    up, scale = scene.upstream if known and not scene.first else None, "" if known else "alpha × "
    return [
        _multiplied(scene, place, f"{first} @ {second}: {scale}upstream @ {back}", up, turned(right)),
        _multiplied(scene, place + 1, f"{first} @ {second}: {scale}{first}.T @ upstream", turned(left), up),
    ]


def _multiplied(
    scene: NodeContext, place: int, formula: str, left: SmallTensor | None, right: SmallTensor | None
) -> InputGradient:
    result = multiplied(left, right)
    if result is None or left is None or right is None:
        return InputGradient(place, formula)
    terms = pairs(left, right, (0,) * len(result.shape))
    written = added_products(terms)
    first = "" if len(result.values) == 1 else "first value: "
    worked = f"{first}{written}" if len(terms) <= MOST_TERMS else ""
    return whole(scene, place, formula, result, worked=worked, largest=size(left, right))


def _names(scene: NodeContext) -> tuple[str, str, str]:
    """Name input, weight and bias of a linear layer; "" for other operations."""
    call = scene.call
    if call is None or call.name != "linear" or len(call.inputs) < 2:
        return "", "", ""
    found = [short_name(scene.trace, value) for value in call.inputs]
    return found[0], found[1], (*found, "")[2]


def turn(scene: NodeContext) -> list[InputGradient]:
    """Derive a transpose, which turns the gradient back."""
    upstream = scene.upstream if not scene.first else None
    return [whole(scene, 0, "a transpose: the gradient is turned back, upstream.T", turned(upstream))]


def mv(scene: NodeContext) -> list[InputGradient]:
    """Derive matrix @ vector."""
    matrix, vector, up = scene.small(scene.saved("self")), scene.small(scene.saved("vec")), scene.upstream
    names = inner(scene.name(0)), inner(scene.name(1))
    column = up.reshaped((*up.shape, 1)) if up and not scene.first else None
    row = vector.reshaped((1, *vector.shape)) if vector else None
    by_vector = multiplied(turned(matrix), column)
    return [
        _multiplied(scene, 0, f"{names[0]} @ {names[1]}: upstream × each value of {names[1]}", column, row),
        whole(
            scene,
            1,
            f"{names[0]} @ {names[1]}: {names[0]}.T @ upstream",
            by_vector.reshaped(by_vector.shape[:1]) if by_vector else None,
            largest=size(column, matrix) if column and matrix else 0.0,
        ),
    ]


def dot(scene: NodeContext) -> list[InputGradient]:
    """Derive the sum of products of two vectors."""
    left, right = scene.name(0), scene.name(1)
    return [
        times(scene, 0, f"d(sum of products)/{differential(left)} = {right}", scene.factor("tensor", 1)),
        times(scene, 1, f"d(sum of products)/{differential(right)} = {left}", scene.factor("self", 0)),
    ]


PRODUCT_RULES: dict[str, Rule] = {
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
    def of(cls, scene: NodeContext, dims: int) -> Geometry | None:
        """Read it from the operation's settings; None where they are written in another way."""
        read = {word: cls._read(scene, word, dims) for word in ("stride", "padding", "dilation", "groups")}
        if not all(read.values()):
            return None
        return cls(read["stride"], read["padding"], read["dilation"], read["groups"][0])

    @staticmethod
    def _read(scene: NodeContext, word: str, dims: int) -> Shape:
        written = scene.words(word)
        numbers = ((0,) if word == "padding" else (1,)) if written is None else parsed_whole(written)
        return numbers * dims if numbers and len(numbers) == 1 else numbers or ()

    def meetings(self, output: Shape, weight: Shape, inputs: Shape) -> Iterator[tuple[Shape, Shape, Shape]]:
        """Give every (output, weight, input) place whose numbers meet in a product."""
        channels, each = weight[1], weight[0] // self.groups
        for at in places(output):
            for tap in places(weight[1:]):
                spot = tuple(
                    o * stride - padding + k * dilation
                    for o, k, stride, padding, dilation in zip(
                        at[2:], tap[1:], self.stride, self.padding, self.dilation, strict=True
                    )
                )
                if all(0 <= here < size for here, size in zip(spot, inputs[2:], strict=True)):
                    yield at, (at[1], *tap), (at[0], at[1] // each * channels + tap[0], *spot)


def convolution(scene: NodeContext) -> list[InputGradient]:
    """Derive by input, weight and bias."""
    inputs, weight, up = (*map(scene.small, map(scene.saved, ("input", "weight"))), scene.upstream)
    given = scene.op.inputs if scene.alone else ()
    names = [short_name(scene.trace, value) for value in given] + ["input", "weight", "bias"][len(given) :]
    known = inputs and weight and up and not scene.first and len(weight.shape) == len(up.shape) == len(inputs.shape)
    plain = scene.call is not None and scene.call.name in ("conv1d", "conv2d", "conv3d")
    parts: list[SmallTensor | None] = [None, None, None]
    if known and plain and inputs and weight and up:
        parts = _worked(scene, up, weight, inputs)
    said = [
        f"from every output that it fed, upstream × {names[1]} between them, added up",
        f"for each of its values, upstream × {names[0]} where they met, added up",
        f"d(output)/{differential(names[2])} = 1: upstream added up over images and places",
    ]
    scale = size(up, SmallTensor((), (max(inputs.largest, weight.largest),))) if up and inputs and weight else 0.0
    return [whole(scene, place, said[place], parts[place], largest=scale) for place in range(3)]


def _worked(scene: NodeContext, up: SmallTensor, weight: SmallTensor, inputs: SmallTensor) -> list[SmallTensor | None]:
    channels = collected((up.shape[1],), (((at[1],), up.at(at)) for at in places(up.shape)))
    geometry = Geometry.of(scene, len(up.shape) - 2)
    if geometry is None:
        return [None, None, channels]
    met = list(geometry.meetings(up.shape, weight.shape, inputs.shape))
    by_input = collected(inputs.shape, ((spot, up.at(at) * weight.at(tap)) for at, tap, spot in met))
    by_weight = collected(weight.shape, ((tap, up.at(at) * inputs.at(spot)) for at, tap, spot in met))
    return [by_input, by_weight, channels]


CONVOLUTION_RULES: dict[str, Rule] = {"ConvolutionBackward0": convolution}


WEIGHTS = "P = softmax(query @ key.T × scale)"
SLOPES = "D = P × (upstream @ value.T - its mean by P)"


def attention(scene: NodeContext) -> list[InputGradient]:
    """Say in matrices what goes to query, key and value; no head is small enough to be worked by hand."""
    return [
        whole(scene, 0, f"query, with {WEIGHTS}, {SLOPES}: D @ key × scale", None),
        whole(scene, 1, "key: D.T @ query × scale", None),
        whole(scene, 2, "value: P.T @ upstream", None),
    ]


NODES = (
    "ScaledDotProductFlashAttentionForCpuBackward0",
    "ScaledDotProductFlashAttentionBackward0",
    "ScaledDotProductEfficientAttentionBackward0",
    "ScaledDotProductCudnnAttentionBackward0",
)
ATTENTION_RULES: dict[str, Rule] = dict.fromkeys(NODES, attention)
