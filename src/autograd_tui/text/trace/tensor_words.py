"""Traced tensors in a few characters, named, and written as arithmetic: "(y - Q)^2" rather than "pow 4"."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from autograd_tui.core.tensor_stats import TensorStats
from autograd_tui.core.trace import Node, Operation, Trace, Value
from autograd_tui.text.numbers import estimate, terse
from autograd_tui.text.styled_text import one_line

DEFAULT_DTYPE = "float32"
SAVED_TENSOR_NAMES = {  # by node and role, where PyTorch's name, such as "result1", says little
    ("NativeBatchNormBackward0", "result1"): "each channel's mean",
    ("NativeBatchNormBackward0", "result2"): "each channel's 1 / sd",
    ("NativeLayerNormBackward0", "result1"): "each row's mean",
    ("NativeLayerNormBackward0", "result2"): "each row's 1 / sd",
    ("NllLossBackward0", "self"): "log p",
    ("NllLoss2DBackward0", "self"): "log p",
    ("NllLossBackward0", "total_weight"): "the targets' total weight",
    ("NllLoss2DBackward0", "total_weight"): "the targets' total weight",
    ("", "result"): "its result",
    ("MaxPool2DWithIndicesBackward0", "result1"): "where the greatest stood",
}
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


def nested(values: Sequence[float], shape: tuple[int, ...], *, write: Callable[[float], str] = terse) -> str:
    """Write all values as PyTorch nests them: [[1, 2], [3, 4]]."""
    if len(values) == 1:
        return write(values[0])
    if len(shape) <= 1:
        return f"[{', '.join(map(write, values))}]"
    stride = len(values) // shape[0]
    rows = (values[start : start + stride] for start in range(0, len(values), stride))
    return f"[{', '.join(_nested_row(row, shape[1:], write) for row in rows)}]"


def _nested_row(values: Sequence[float], shape: tuple[int, ...], write: Callable[[float], str]) -> str:
    return f"[{write(values[0])}]" if len(values) == 1 and len(shape) == 1 else nested(values, shape, write=write)


def value_words(value: Value | None, width: int) -> str:
    """Write a tensor's values where they fit into `width`, else its shape and as many statistics as fit.

    The dtype comes last where it is not float32, if there is room.
    """
    if value is None:
        return "None"
    stats, dtype = value.stats, dtype_words(value)
    if stats.values is not None:
        text = nested(stats.values, stats.shape)
        if len(text) <= width or stats.size == 1:
            return text + (dtype if len(text + dtype) <= width else "")
    shape = shape_words(stats.shape)
    return next((text for text in _variants(value, shape + dtype) if len(text) <= width), shape)


def dtype_words(value: Value) -> str:
    """Write a tensor's dtype after a space; "" for float32."""
    return "" if value.stats.dtype == DEFAULT_DTYPE else f" {value.stats.dtype}"


def shape_words(shape: tuple[int, ...]) -> str:
    """Write a shape as a tuple: (64, 3, 7, 7), (3,), ()."""
    return str(tuple(shape))


def _variants(value: Value, prefix: str) -> list[str]:
    """Return texts from long to short: `prefix`, which is the shape and dtype, with statistics behind it."""
    stats = value.stats
    if stats.norm is None:
        moments = [] if stats.mean is None or stats.std is None else [(stats.mean, stats.std)]  # from a sample
        return [*(f"{prefix} mean {estimate(mean)}, std {estimate(std)}" for mean, std in moments), prefix]
    if stats.dtype.startswith(("int", "uint")):  # class numbers and indices: their norm says nothing
        return [f"{prefix}, {_range_words(stats)}", prefix]
    if stats.nonfinite:
        kind = "some NaN" if has_nan(value) else "some inf"
        return [f"{prefix} {_nonfinite_words(value)}", f"{prefix} {kind}", prefix]
    norm = f"norm {terse(stats.norm)}"
    has_range = stats.min is not None and stats.max is not None
    value_range = f", {_range_words(stats)}" if has_range else ""
    return [f"{prefix} {norm}{value_range}", f"{prefix} {norm}", prefix]


def _range_words(stats: TensorStats) -> str:
    low, high = stats.min or 0.0, stats.max or 0.0
    return f"{estimate(low)} to {estimate(high)}" if stats.range_sampled else f"{terse(low)} to {terse(high)}"


def has_nan(value: Value) -> bool:
    """Return whether one of a tensor's values is NaN."""
    numbers = value.stats.values or (value.stats.min, value.stats.max)
    return any(number is not None and number != number for number in numbers)


def _nonfinite_words(value: Value) -> str:
    """Write how many values are not finite, and which; for a mask of -inf also the maximum of the others."""
    stats = value.stats
    if stats.min is not None and stats.max is not None and stats.min == -math.inf < stats.max < math.inf:
        return f"{stats.nonfinite} -inf, else up to {terse(stats.max)}"
    if stats.min is not None and stats.max is not None and -math.inf < stats.min < stats.max == math.inf:
        return f"{stats.nonfinite} inf, else from {terse(stats.min)}"
    return f"{stats.nonfinite} NaN or infinite"


def name_of(trace: Trace, value: Value | None) -> str:
    """Return a tensor's name in the model or the batch, else the operation that made it: "w", "Q", "mul 1"."""
    if value is None:
        return "None"
    if value.name:
        return one_line(value.name)
    ops = trace.forward_ops
    if value.maker is None or not value.maker < len(ops):
        return "a number" if value.stats.size == 1 and not value.stats.shape else "a tensor"
    return op_name(trace, value.maker)


def saved_name(trace: Trace, node: Node, value: Value) -> str:
    """Return the name of a tensor that a node saved; of one without a name, its role in the node."""
    if value.name or value.maker is not None:
        return name_of(trace, value)
    if value.stats.values and not value.stats.shape and value.role in ("self", "other", "exponent"):
        return terse(value.stats.values[0])
    default = SAVED_TENSOR_NAMES.get(("", value.role), one_line(value.role))
    return SAVED_TENSOR_NAMES.get((node.name, value.role), default)


def op_name(trace: Trace, index: int) -> str:
    """Return an operation of the forward with its number, counted from 1: "mul 1"."""
    return f"{one_line(trace.forward_ops[index].name)} {index + 1}"


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
