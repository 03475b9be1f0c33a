"""The chain rule of matrix products: linear, mm, addmm, bmm, mv, dot."""

from __future__ import annotations

from autograd_tui.text.inside.backward.part import Part, Rule, added_products, scaled, size, times, whole
from autograd_tui.text.inside.backward.scene import Scene
from autograd_tui.text.inside.expression import differential, inner, short_name
from autograd_tui.text.inside.small import Small, multiplied, pairs, turned

MOST_TERMS = 4  # of a sum that is written out


def addmm(scene: Scene) -> list[Part]:
    """Derive bias + left @ right, as linear does with right = weight.T."""
    beta = 1.0 if scene.words("beta") is None else scene.number("beta")
    alpha = 1.0 if scene.words("alpha") is None else scene.number("alpha")
    bias = inner(_names(scene)[2] or scene.name(0))
    plain = beta == alpha == 1.0
    formula = f"d(product + {bias})/{differential(bias)} = 1" if plain else f"d/{differential(bias)} = beta"
    first = scaled(scene, 0, formula, beta)
    return [first, *_product(scene, 1, ("mat1", "mat2"), known=plain)]


def mm(scene: Scene) -> list[Part]:
    """Derive left @ right."""
    return _product(scene, 0, ("self", "mat2"))


def baddbmm(scene: Scene) -> list[Part]:
    """Derive bias + left @ right, of batches of matrices."""
    plain = scene.words("beta") is None and scene.words("alpha") is None
    bias = scaled(scene, 0, f"d/{differential(scene.name(0))} = {'1' if plain else 'beta'}", 1.0 if plain else None)
    return [bias, *_product(scene, 1, ("batch1", "batch2"), known=plain)]


def _product(scene: Scene, place: int, roles: tuple[str, str], *, known: bool = True) -> list[Part]:
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


def _multiplied(scene: Scene, place: int, formula: str, left: Small | None, right: Small | None) -> Part:
    result = multiplied(left, right)
    if result is None or left is None or right is None:
        return Part(place, formula)
    terms = pairs(left, right, (0,) * len(result.shape))
    written = added_products(terms)
    first = "" if len(result.values) == 1 else "first value: "
    worked = f"{first}{written}" if len(terms) <= MOST_TERMS else ""
    return whole(scene, place, formula, result, worked=worked, largest=size(left, right))


def _names(scene: Scene) -> tuple[str, str, str]:
    """Name input, weight and bias of a linear layer; "" for other operations."""
    call = scene.call
    if call is None or call.name != "linear" or len(call.inputs) < 2:
        return "", "", ""
    found = [short_name(scene.trace, value) for value in call.inputs]
    return found[0], found[1], (*found, "")[2]


def turn(scene: Scene) -> list[Part]:
    """Derive a transpose, which turns the gradient back."""
    upstream = scene.upstream if not scene.first else None
    return [whole(scene, 0, "a transpose: the gradient is turned back, upstream.T", turned(upstream))]


def mv(scene: Scene) -> list[Part]:
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


def dot(scene: Scene) -> list[Part]:
    """Derive the sum of products of two vectors."""
    left, right = scene.name(0), scene.name(1)
    return [
        times(scene, 0, f"d(sum of products)/{differential(left)} = {right}", scene.factor("tensor", 1)),
        times(scene, 1, f"d(sum of products)/{differential(right)} = {left}", scene.factor("self", 0)),
    ]


BACKWARD: dict[str, Rule] = {
    "AddmmBackward0": addmm,
    "MmBackward0": mm,
    "BmmBackward0": mm,
    "BaddbmmBackward0": baddbmm,
    "MvBackward0": mv,
    "DotBackward0": dot,
    "TBackward0": turn,
}
