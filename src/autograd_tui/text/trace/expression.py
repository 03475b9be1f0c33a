"""Traced tensors as a reader would write them: "(y - Q)^2" in place of "pow 4"."""

from __future__ import annotations

from autograd_tui.core.trace import Operation, Trace, Value
from autograd_tui.text.numbers import terse
from autograd_tui.text.styled_text import one_line
from autograd_tui.text.trace.tensor_words import name_of

LONGEST = 24  # characters; above it a name is easier to read
ALIKE = {
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
TURNED = {"rsub": "sub", "rpow": "pow", "rdiv": "div", "rtruediv": "div"}  # the number comes first
WRITTEN = ("add", "sub", "mul", "div", "pow", "neg", "square", *TURNED)
SIGNS = {"add": "+", "sub": "-", "mul": "×", "div": "/", "pow": "^"}


def plain_name(name: str) -> str:
    """Give an operation's name without its marks: "add" for add_ and iadd; "rsub" stays, since it is turned round."""
    bare = name.strip("_")
    return ALIKE.get(bare, bare)


def expression(trace: Trace, value: Value | None) -> str:
    """Write how a tensor without a name came from named ones, where that is short; else its name."""
    if value is None or value.name or value.maker is None:
        return short_name(trace, value)
    if not _from_named(trace, value):
        return name_of(trace, value)
    written = call_written(trace, (trace.forward or trace).ops[value.maker])
    return written if written and len(written) <= LONGEST else name_of(trace, value)


def _from_named(trace: Trace, value: Value) -> bool:
    """Tell whether a tensor came by arithmetic from tensors that all have names."""
    ops = (trace.forward or trace).ops
    if value.name or value.maker is None:
        return bool(value.name)
    # What was changed in place is called by the same name before and after, so it may have come from itself.
    maker = ops[value.maker] if value.maker < len(ops) else None
    known = maker is not None and plain_name(maker.name) in WRITTEN and not maker.mutates
    return maker is not None and known and all(_from_named(trace, each) for each in maker.inputs)


def short_name(trace: Trace, value: Value | None) -> str:
    """Name a tensor without the path of its module: weight for layer1.0.conv1.weight."""
    return name_of(trace, value).rpartition(".")[2]


def inner(text: str) -> str:
    """Put what is made of several words in parentheses, for use inside arithmetic."""
    name, blank, number = text.partition(" ")
    return text if not blank or (number.isdigit() and name.isidentifier()) else f"({text})"


def tight(text: str) -> str:
    """Put what has a blank in parentheses: before a power, and below a fraction."""
    return f"({text})" if " " in text and not (text.startswith("(") and text.endswith(")")) else text


def differential(text: str) -> str:
    """Write what is derived by: dw, d(weight), d(y - Q)."""
    bare = text.startswith("(") and text.endswith(")")
    return f"d{text}" if bare or len(text) <= 2 else f"d({text})"


def call_written(trace: Trace, call: Operation) -> str | None:
    """Write an arithmetic operation as it stands in code: "w × x", "(y - Q)^2"; None for any other."""
    name, terms = plain_name(call.name), operands(trace, call)
    if name == "neg" and len(terms) == 1:
        return f"-{inner(terms[0])}"
    if name == "square" and len(terms) == 1:
        return f"{tight(terms[0])}^2"
    if len(terms) != 2 or dict(call.settings).keys() & {"alpha", "rounding_mode"} or call.opaque:
        return None
    if name in TURNED or (name == "pow" and len(call.inputs) == 1 and not dict(call.settings).get("exponent")):
        name, terms = TURNED.get(name, name), terms[::-1]
    sign, (left, right) = SIGNS.get(name), map(inner, terms)
    if sign in ("+", "-"):  # products stand in a sum without parentheses
        left, right = terms[0], right if _is_sum(terms[1]) else terms[1]
    if sign == "^":
        return f"{tight(terms[0])}^{tight(terms[1])}"
    return sign and f"{left} {sign} {tight(right) if sign == '/' else right}"


def _is_sum(text: str) -> bool:
    return " + " in text or " - " in text or text.startswith("-")


def operands(trace: Trace, call: Operation) -> list[str]:
    """Write what an arithmetic operation was called with: tensors, then the number among its settings."""
    numbers = [value for name, value in call.settings if name in ("self", "other", "exponent")]
    return [*(expression(trace, value) for value in call.inputs), *map(_number, numbers)]


def _number(written: str) -> str:
    try:
        return terse(float(written))
    except ValueError:
        return one_line(written, 12)
