"""Forward operations that multiply matrices."""

from __future__ import annotations

from autograd_tui.text.equation import enclosed
from autograd_tui.text.inside.backward.part import added_products
from autograd_tui.text.inside.backward.products import MOST_TERMS
from autograd_tui.text.inside.expression import inner, short_name
from autograd_tui.text.inside.forward.called import Called, Computed, ForwardRule
from autograd_tui.text.inside.small import Small, each, multiplied, pairs, turned


def linear(call: Called) -> Computed:
    """Work input @ weight.T + bias."""
    names = [short_name(call.trace, value) for value in call.op.inputs]
    formula = f"{names[0]} @ {names[1]}.T" + (f" + {names[2]}" if len(names) > 2 else "")
    tensors = [call.small(value) for value in call.op.inputs]
    return _product(
        call, formula, tensors[0], turned(tensors[1]), tensors[2] if len(tensors) > 2 else Small((), (0.0,))
    )


def matmul(call: Called) -> Computed:
    """Work left @ right."""
    left, right = (call.small(value) for value in call.op.inputs[:2])
    formula = f"{inner(call.name(0))} @ {inner(call.name(1))}"
    return _product(call, formula, left, right, Small((), (0.0,)))


def addmm(call: Called) -> Computed:
    """Work bias + left @ right."""
    bias, left, right = (call.small(value) for value in call.op.inputs[:3])
    formula = f"{inner(call.name(0))} + {inner(call.name(1))} @ {inner(call.name(2))}"
    plain = call.words("beta") is None and call.words("alpha") is None
    return _product(call, formula if plain else f"{formula}, scaled", left, right, bias if plain else None)


def _product(call: Called, formula: str, left: Small | None, right: Small | None, bias: Small | None) -> Computed:
    flat = left and right and len(left.shape) == len(right.shape) >= 2
    product = multiplied(left, right) if flat and not call.first else None
    result = each(lambda a, b: a + b, product, bias)
    if result is None or left is None or right is None or bias is None:
        return Computed(formula)
    terms = pairs(left, right, (0,) * len(result.shape))
    written = added_products(terms)
    written += f" + {enclosed(bias.values[0])}" if len(call.op.inputs) > 2 else ""
    first = "" if len(result.values) == 1 else "first value: "
    size = left.largest * right.largest * len(terms) + bias.largest
    return Computed(formula, result, f"{first}{written}" if len(terms) <= MOST_TERMS else "", size)


FORWARD: dict[str, ForwardRule] = {
    "linear": linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), matmul),
    "addmm": addmm,
}
