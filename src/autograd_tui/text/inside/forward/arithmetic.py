"""Forward operations that work value by value, and sums."""

from __future__ import annotations

import math
from collections.abc import Callable

from autograd_tui.text.equation import enclosed, exact
from autograd_tui.text.inside.backward.activations import sigmoid
from autograd_tui.text.inside.backward.downstream import added
from autograd_tui.text.inside.backward.part import MOST_LISTED, MOST_PAIRS, listed
from autograd_tui.text.inside.expression import call_written, inner, plain_name, tight
from autograd_tui.text.inside.forward.called import Called, Computed, ForwardRule
from autograd_tui.text.inside.small import Small, each, exponential, logarithm, power, quotient, root, summed_over, wave
from autograd_tui.text.numbers import terse

Number = Callable[..., float]
SIGNS: dict[str, tuple[str, Number]] = {
    "add": ("+", lambda a, b: a + b),
    "sub": ("-", lambda a, b: a - b),
    "mul": ("×", lambda a, b: a * b),
    "div": ("/", quotient),
    "pow": ("^", power),
}


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
    if len(result.values) > MOST_LISTED:
        return f"first value: {_pair(lefts.values[0], sign, rights.values[0])}"
    if len(result.values) > MOST_PAIRS:
        return f"{listed(lefts)} {sign} {listed(rights)}"
    terms = [_pair(a, sign, b) for a, b in zip(lefts.values, rights.values, strict=True)]
    return terms[0] if len(terms) == 1 else f"[{', '.join(terms)}]"


def _pair(a: float, sign: str, b: float) -> str:
    if sign == "^":
        return f"{enclosed(a)}^{enclosed(b)}"
    return f"{exact(a)} {sign} {enclosed(b)}"


def unary(of: str, function: Callable[[float], float]) -> ForwardRule:
    """Make the rule of a function of one number; `of`: the function as written, "{}" its input."""

    def rule(call: Called) -> Computed:
        before = call.operand(0)
        result = each(function, before)
        formula = of.format(call.name(), tight(call.name()))
        if result is None or before is None:
            return Computed(formula, by_value=True)
        one = before.values[0] if len(result.values) == 1 else None
        written = "" if one is None else of.format(exact(one), enclosed(one))
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


FORWARD: dict[str, ForwardRule] = {
    **dict.fromkeys([*SIGNS, "rsub", "rpow", "rdiv", "rtruediv"], arithmetic),
    "neg": unary("-{1}", lambda x: -x),
    "square": unary("{1}^2", lambda x: x * x),
    "exp": unary("exp({0})", exponential),
    "log": unary("log({0})", logarithm),
    "sqrt": unary("sqrt({0})", root),
    "rsqrt": unary("1 / sqrt({0})", lambda x: quotient(1, root(x))),
    "sin": unary("sin({0})", lambda x: wave(math.sin, x)),
    "cos": unary("cos({0})", lambda x: wave(math.cos, x)),
    "abs": unary("|{0}|", abs),
    "relu": unary("max(0, {0})", lambda x: 0.0 if x <= 0 else x),
    "sigmoid": unary("1 / (1 + exp(-{1}))", sigmoid),
    "tanh": unary("tanh({0})", math.tanh),
    "silu": unary("{1} × sigmoid({0})", lambda x: x * sigmoid(x)),
    "sum": total,
    "mean": mean,
}
