"""Writes a traced tensor in a few characters, and names it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from autograd_tui.core.tensor_stats import TensorStats
from autograd_tui.core.trace import Node, Trace, Value
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
