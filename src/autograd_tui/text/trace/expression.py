"""Writes traced tensors as arithmetic: "(y - Q)^2" rather than "pow 4"."""

from __future__ import annotations

from autograd_tui.core.trace import Operation, Trace, Value
from autograd_tui.text.numbers import terse
from autograd_tui.text.styled_text import one_line
from autograd_tui.text.trace.tensor_words import name_of

MAX_LENGTH = 24  # characters of an expression; beyond that a name is easier to read
SYNONYMS = {
    "iadd": "add",
    "radd": "add",
    "isub": "sub",
    "subtract": "sub",
    "imul": "mul",
    "rmul": "mul",
    "multiply": "mul",
    "truediv": "div",
    "itruediv": "div",
    "true_divide": "div",
    "divide": "div",
    "ipow": "pow",
}
REVERSED = {"rsub": "sub", "rpow": "pow", "rdiv": "div", "rtruediv": "div"}  # the second operand comes first
ARITHMETIC_NAMES = ("add", "sub", "mul", "div", "pow", "neg", "square", *REVERSED)
SIGNS = {"add": "+", "sub": "-", "mul": "×", "div": "/", "pow": "^"}


def plain_name(name: str) -> str:
    """Return the common name of an operation: "add" for add_ and iadd; "rsub" stays, as its operands are reversed."""
    plain = name.strip("_")
    return SYNONYMS.get(plain, plain)


def expression(trace: Trace, value: Value | None) -> str:
    """Write how a tensor without a name was computed from named ones, where that is short; else its name."""
    if value is None or value.name or value.maker is None:
        return short_name(trace, value)
    if not _is_from_named(trace, value):
        return name_of(trace, value)
    text = call_expression(trace, trace.forward_ops[value.maker])
    return text if text and len(text) <= MAX_LENGTH else name_of(trace, value)


def _is_from_named(trace: Trace, value: Value) -> bool:
    """Return whether a tensor was computed by arithmetic from tensors that all have names."""
    ops = trace.forward_ops
    if value.name or value.maker is None:
        return bool(value.name)
    # A tensor that is changed in place has the same name before and after, so it may be its own input.
    maker = ops[value.maker] if value.maker < len(ops) else None
    is_arithmetic = maker is not None and plain_name(maker.name) in ARITHMETIC_NAMES and not maker.mutates
    return maker is not None and is_arithmetic and all(_is_from_named(trace, each) for each in maker.inputs)


def short_name(trace: Trace, value: Value | None) -> str:
    """Return a tensor's name without the path of its module: weight for layer1.0.conv1.weight."""
    return name_of(trace, value).rpartition(".")[2]


def inner(text: str) -> str:
    """Put an expression of several terms in parentheses; a name such as "mul 1" stays."""
    name, blank, number = text.partition(" ")
    return text if not blank or (number.isdigit() and name.isidentifier()) else f"({text})"


def tight(text: str) -> str:
    """Put a text with a space in parentheses, as the base of a power or a denominator."""
    return f"({text})" if " " in text and not (text.startswith("(") and text.endswith(")")) else text


def differential(text: str) -> str:
    """Write the differential of an expression: dw, d(weight), d(y - Q)."""
    is_grouped = text.startswith("(") and text.endswith(")")
    return f"d{text}" if is_grouped or len(text) <= 2 else f"d({text})"


def call_expression(trace: Trace, call: Operation) -> str | None:
    """Write an arithmetic operation with its operands: "w × x", "(y - Q)^2"; None for any other operation."""
    name, terms = plain_name(call.name), operands(trace, call)
    if name == "neg" and len(terms) == 1:
        return f"-{inner(terms[0])}"
    if name == "square" and len(terms) == 1:
        return f"{tight(terms[0])}^2"
    if len(terms) != 2 or dict(call.settings).keys() & {"alpha", "rounding_mode"} or call.opaque:
        return None
    if name in REVERSED or (name == "pow" and len(call.inputs) == 1 and not dict(call.settings).get("exponent")):
        name, terms = REVERSED.get(name, name), terms[::-1]
    sign, (left, right) = SIGNS.get(name), map(inner, terms)
    if sign in ("+", "-"):  # products need no parentheses in a sum
        left, right = terms[0], right if _is_sum(terms[1]) else terms[1]
    if sign == "^":
        return f"{tight(terms[0])}^{tight(terms[1])}"
    return sign and f"{left} {sign} {tight(right) if sign == '/' else right}"


def _is_sum(text: str) -> bool:
    return " + " in text or " - " in text or text.startswith("-")


def operands(trace: Trace, call: Operation) -> list[str]:
    """Write the operands of an arithmetic operation: its tensors, then the number among its settings."""
    numbers = [value for name, value in call.settings if name in ("self", "other", "exponent")]
    return [*(expression(trace, value) for value in call.inputs), *map(_number_words, numbers)]


def _number_words(text: str) -> str:
    try:
        return terse(float(text))
    except ValueError:
        return one_line(text, 12)
