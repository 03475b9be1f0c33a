"""A traced tensor in a few characters, and what it is called."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from autograd_tui.core.trace import Node, Trace, Value
from autograd_tui.text.numbers import estimate, terse
from autograd_tui.text.styled_text import one_line

USUAL = "float32"
KEPT = {  # what torch calls only "result1"
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


def nested(values: Sequence[float], shape: tuple[int, ...], *, write: Callable[[float], str] = terse) -> str:
    """Write all values as PyTorch nests them: [[1, 2], [3, 4]]."""
    if len(values) == 1:
        return write(values[0])
    if len(shape) <= 1:
        return f"[{', '.join(map(write, values))}]"
    step = len(values) // shape[0]
    rows = (values[at : at + step] for at in range(0, len(values), step))
    return f"[{', '.join(_inner(row, shape[1:], write) for row in rows)}]"


def _inner(values: Sequence[float], shape: tuple[int, ...], write: Callable[[float], str]) -> str:
    return f"[{write(values[0])}]" if len(values) == 1 and len(shape) == 1 else nested(values, shape, write=write)


def value_words(value: Value | None, width: int) -> str:
    """Write a tensor's values where they fit, else its shape and as many of its numbers as do.

    The dtype stands behind them where it is not float32, if there is room for it.
    """
    if value is None:
        return "None"
    stats, dtype = value.stats, dtype_words(value)
    if stats.values is not None:
        written = nested(stats.values, stats.shape)
        if len(written) <= width or stats.size == 1:
            return written + (dtype if len(written + dtype) <= width else "")
    shape = shape_words(stats.shape)
    return next((line for line in _longest_first(value, shape + dtype) if len(line) <= width), shape)


def dtype_words(value: Value) -> str:
    """Write a tensor's dtype behind a blank; "" for float32, which is the usual one."""
    return "" if value.stats.dtype == USUAL else f" {value.stats.dtype}"


def dtype_change(given: Iterable[Value | None], made: Iterable[Value | None]) -> str:
    """Say that what comes out has another dtype than what went in; "" where it has not, or is of whole numbers."""
    before, after = (
        list(dict.fromkeys(each.stats.dtype for each in side if each and "float" in each.stats.dtype))
        for side in (given, made)
    )
    if not before or not after or set(before) == set(after):
        return ""
    verbs = ("goes" if len(before) == 1 else "go"), ("comes" if len(after) == 1 else "come")
    return f"{' and '.join(before)} {verbs[0]} in, {' and '.join(after)} {verbs[1]} out."


def shape_words(shape: tuple[int, ...]) -> str:
    """Write a shape as PyTorch's tuples: (64, 3, 7, 7), (3,), ()."""
    return str(tuple(shape))


def _longest_first(value: Value, kind: str) -> list[str]:
    """Write what is known behind `kind`, the shape and dtype."""
    stats = value.stats
    if stats.norm is None:
        spread = [] if stats.mean is None or stats.std is None else [(stats.mean, stats.std)]  # from a sample
        return [*(f"{kind} mean {estimate(mean)}, std {estimate(std)}" for mean, std in spread), kind]
    if stats.dtype.startswith(("int", "uint")):  # class numbers, places: a norm of them says nothing
        return [f"{kind}, {terse(stats.min or 0.0)} to {terse(stats.max or 0.0)}", kind]
    if stats.nonfinite:
        return [f"{kind} {_wild(value)}", f"{kind} {'some NaN' if has_nan(value) else 'some inf'}", kind]
    norm = f"norm {terse(stats.norm)}"
    known = stats.min is not None and stats.max is not None
    ends = f", {terse(stats.min or 0.0)} to {terse(stats.max or 0.0)}" if known else ""
    return [f"{kind} {norm}{ends}", f"{kind} {norm}", kind]


def has_nan(value: Value) -> bool:
    """Tell whether one of a tensor's values is NaN."""
    numbers = value.stats.values or (value.stats.min, value.stats.max)
    return any(number is not None and number != number for number in numbers)


def _wild(value: Value) -> str:
    """Count what is not finite, and say what it is: of a mask, how great the rest is."""
    stats = value.stats
    if stats.min is not None and stats.max is not None and stats.min == -math.inf < stats.max < math.inf:
        return f"{stats.nonfinite} -inf, else up to {terse(stats.max)}"
    if stats.min is not None and stats.max is not None and -math.inf < stats.min < stats.max == math.inf:
        return f"{stats.nonfinite} inf, else from {terse(stats.min)}"
    return f"{stats.nonfinite} NaN or infinite"


def name_of(trace: Trace, value: Value | None) -> str:
    """Name a tensor: as the model or the batch calls it, else by the operation that made it: "w", "Q", "mul 1"."""
    if value is None:
        return "None"
    if value.name:
        return one_line(value.name)
    ops = (trace.forward or trace).ops
    if value.maker is None or not value.maker < len(ops):
        return "a number" if value.stats.size == 1 and not value.stats.shape else "a tensor"
    return op_name(trace, value.maker)


def kept_name(trace: Trace, node: Node, value: Value) -> str:
    """Name what a node keeps; what has no name of its own by what it is to the node."""
    if value.name or value.maker is not None:
        return name_of(trace, value)
    if value.stats.values and not value.stats.shape and value.role in ("self", "other", "exponent"):
        return terse(value.stats.values[0])
    return KEPT.get((node.name, value.role), KEPT.get(("", value.role), one_line(value.role)))


def op_name(trace: Trace, place: int) -> str:
    """Name an operation of the forward by its place among all of them: "mul 1" is the first."""
    return f"{one_line((trace.forward or trace).ops[place].name)} {place + 1}"
