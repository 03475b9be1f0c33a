"""Forward operations that work value by value, sums and matrix products."""

from __future__ import annotations

import math
from collections.abc import Callable

from autograd_tui.text.inside.activations import sigmoid
from autograd_tui.text.inside.called import Called, Computed, ForwardRule
from autograd_tui.text.inside.downstream import added
from autograd_tui.text.inside.expression import call_written, inner, plain_name, short_name
from autograd_tui.text.inside.part import listed
from autograd_tui.text.inside.products import MOST_TERMS
from autograd_tui.text.inside.small import Small, each, multiplied, pairs, summed_over, turned
from autograd_tui.text.inside.value_words import terse

Number = Callable[..., float]
SIGNS: dict[str, tuple[str, Number]] = {
    "add": ("+", lambda a, b: a + b),
    "sub": ("-", lambda a, b: a - b),
    "mul": ("×", lambda a, b: a * b),
    "div": ("/", lambda a, b: a / b),
    "pow": ("^", lambda a, b: float(a**b)),
}
FEW = 4


def arithmetic(call: Called) -> Computed:
    """Write two operands and their sign; of many values, the whole lists."""
    name, terms = plain_name(call.op.name), [call.operand(0), call.operand(1)]
    turned_name = {"rsub": "sub", "rpow": "pow", "rdiv": "div", "rtruediv": "div"}.get(name)
    number_first = turned_name or (name == "pow" and call.words("self") is not None)
    if number_first:
        name, terms = turned_name or name, terms[::-1]
    sign, function = SIGNS[name]
    alpha = call.number("alpha", 1.0)
    odd = call.words("rounding_mode") is not None or alpha is None
    formula = call_written(call.trace, call.op) or sign.join(f" {inner(each)} " for each in call.names()).strip()
    if alpha not in (None, 1.0):
        formula = f"{inner(call.names()[0])} {sign} {terse(alpha or 0)} × {inner(call.names()[-1])}"
        terms[1] = each(lambda b: b * (alpha or 0), terms[1])
    left, right = terms
    result = None if odd else each(function, left, right)
    if result is None or left is None or right is None:
        return Computed(formula, by_value=not odd)
    size = max(left.largest, right.largest, left.largest * right.largest if sign == "×" else 0.0)
    return Computed(formula, result, _written(left, sign, right, result), size, by_value=True)


def _written(left: Small, sign: str, right: Small, result: Small) -> str:
    lefts, rights = each(lambda a, _: a, left, right), each(lambda _, b: b, left, right)
    assert lefts is not None
    assert rights is not None
    if len(result.values) > FEW:
        return f"{listed(left)} {sign} {listed(right)}"
    terms = [_pair(a, sign, b) for a, b in zip(lefts.values, rights.values, strict=True)]
    return terms[0] if len(terms) == 1 else f"[{', '.join(terms)}]"


def _pair(a: float, sign: str, b: float) -> str:
    if sign == "^":
        return f"({terse(a)})^{terse(b)}" if math.copysign(1, a) < 0 else f"{terse(a)}^{terse(b)}"
    return f"{terse(a)} {sign} {f'({terse(b)})' if math.copysign(1, b) < 0 else terse(b)}"


def unary(of: str, function: Callable[[float], float]) -> ForwardRule:
    """Make the rule of a function of one number; `of`: the function as written, "{}" its input."""

    def rule(call: Called) -> Computed:
        before = call.operand(0)
        result = each(function, before)
        formula = of.format(call.name(), inner(call.name()))
        if result is None or before is None:
            return Computed(formula, by_value=True)
        written = of.format(listed(before), listed(before)) if len(result.values) == 1 else ""
        return Computed(formula, result, written, before.largest, by_value=True)

    return rule


def total(call: Called) -> Computed:
    """Work a sum."""
    return _sum(call, "sum")


def mean(call: Called) -> Computed:
    """Work a mean."""
    return _sum(call, "mean")


def _sum(call: Called, name: str) -> Computed:
    before, output = call.small(call.op.inputs[0]), call.op.output[0]
    many = max(call.op.inputs[0].stats.size // max(output.stats.size, 1), 1)
    over = f"{name} of {call.name()}: {many} values {'added up' if name == 'sum' else 'averaged'}"
    over += f" along dim {call.words('dim')}" if call.words("dim") else ""
    dims = call.whole("dim") or (tuple(range(len(call.op.inputs[0].stats.shape))) if not call.words("dim") else None)
    if before is None or dims is None or call.first or not before.shape:
        return Computed(over)
    sums = summed_over(before, dims)
    by = many if name == "mean" else 1
    result = each(lambda up: up / by, sums)
    worked = f"({added(before)})" if name == "mean" else added(before)
    worked = worked + f" / {many}" * (name == "mean") if len(before.values) <= 8 and output.stats.size == 1 else ""
    return Computed(over, result and result.reshaped(output.stats.shape), worked, before.largest * many)


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
    written = " + ".join(f"{terse(a)} × {terse(b)}" for a, b in terms)
    written += f" + {terse(bias.values[0])}" if len(call.op.inputs) > 2 else ""
    first = "" if len(result.values) == 1 else "first value: "
    size = left.largest * right.largest * len(terms) + bias.largest
    return Computed(formula, result, f"{first}{written}" if len(terms) <= MOST_TERMS else "", size)


FORWARD: dict[str, ForwardRule] = {
    **dict.fromkeys([*SIGNS, "rsub", "rpow", "rdiv", "rtruediv"], arithmetic),
    "neg": unary("-{1}", lambda x: -x),
    "square": unary("{1}^2", lambda x: x * x),
    "exp": unary("exp({0})", math.exp),
    "log": unary("log({0})", math.log),
    "sqrt": unary("sqrt({0})", math.sqrt),
    "abs": unary("|{0}|", abs),
    "relu": unary("max(0, {0})", lambda x: 0.0 if x <= 0 else x),
    "sigmoid": unary("1 / (1 + exp(-{1}))", sigmoid),
    "tanh": unary("tanh({0})", math.tanh),
    "silu": unary("{1} × sigmoid({0})", lambda x: x * sigmoid(x)),
    "sum": total,
    "mean": mean,
    "linear": linear,
    "matmul": matmul,
    "mm": matmul,
    "bmm": matmul,
    "addmm": addmm,
}
