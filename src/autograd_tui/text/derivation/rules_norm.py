"""The chain rule of normalization and pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import product

from autograd_tui.text.derivation.derivation import BackwardRule, Derivation, gradient
from autograd_tui.text.derivation.rule_context import NodeContext
from autograd_tui.text.derivation.small_tensor import Shape, SmallTensor, exact_sum, full, indices, scatter_add
from autograd_tui.text.trace.expression import short_name


def batch_norm(context: NodeContext) -> list[Derivation]:
    """Derive by input, weight and bias, a channel at a time."""
    training = (context.setting("training") or context.setting("use_input_stats")) == "True"
    eps = context.number("eps", 1e-5)
    return _norm(context, "channel", 2 if training else 0, eps)


def layer_norm(context: NodeContext) -> list[Derivation]:
    """Derive by input, weight and bias, a row at a time."""
    eps = context.number("eps", 1e-5)
    return _norm(context, "row", 2, eps)


def _norm(context: NodeContext, over: str, means: int, eps: float | None) -> list[Derivation]:
    """Derive by input, weight and bias; `means`: 2 where mean and variance come from the input itself, else 0."""
    weight = _named(context, "weight")
    lead = f"{weight} / sd" if context.saved("weight") else "1 / sd"
    less = " - mean(u) - n × mean(u × n)" if means else ""
    inside = f"(u{less})" if less else "upstream"
    u = (f", u = upstream × {weight}" if context.saved("weight") else ", u = upstream") if less else ""
    lead = "1 / sd" if less else lead
    rest = "each channel" if over == "channel" else "all rows"
    formulas = [
        f"n = (input - mean) / sd{'' if means else ', both as remembered'}: {lead} × {inside}{u}, a {over} at a time",
        f"upstream × n, added up over {rest}",
        f"upstream, added up over {rest}",
    ]
    known = _worked(context, over, eps) if means and eps is not None and not context.one_value else [None, None, None]
    inputs = context.small(context.saved("input"))
    scale = max(_gain(context, over, eps), 1.0) if inputs and known[0] else 1.0
    top = (context.upstream.max_abs if context.upstream else 0.0) * scale * 10
    return [gradient(context, index, formulas[index], known[index], largest=top) for index in range(3)]


def _named(context: NodeContext, role: str) -> str:
    given = [value for value in context.op.inputs if value.role == role]
    return short_name(context.trace, given[0]) if given and context.is_whole_call else role


def _groups(shape: Shape, over: str, own: Shape) -> dict[Shape, list[Shape]]:
    """Sort a tensor's places into what is normalized together: a channel, or the trailing `own` dimensions."""
    groups: dict[Shape, list[Shape]] = {}
    for index in indices(shape):
        key = (index[1],) if over == "channel" else index[: len(shape) - len(own)]
        groups.setdefault(key, []).append(index)
    return groups


def _own(context: NodeContext, over: str, shape: Shape) -> Shape:
    """Give the shape of weight and bias."""
    weight = context.saved("weight")
    return weight.stats.shape if weight else (shape[1],) if over == "channel" else shape[-1:]


def _gain(context: NodeContext, over: str, eps: float | None) -> float:
    """Give the largest 1 / sd: the factor by which rounding grows."""
    inputs = context.small(context.saved("input"))
    if inputs is None or eps is None:
        return 1.0
    groups = _groups(inputs.shape, over, _own(context, over, inputs.shape)).values()
    return max(1 / _spread([inputs.at(index) for index in group], eps)[1] for group in groups)


def _spread(values: list[float], eps: float) -> tuple[float, float]:
    average = exact_sum(values) / len(values)
    return average, math.sqrt(exact_sum((value - average) * (value - average) for value in values) / len(values) + eps)


def _worked(context: NodeContext, over: str, eps: float) -> list[SmallTensor | None]:
    inputs, up = context.small(context.saved("input")), context.upstream
    if inputs is None or up is None or len(inputs.shape) < 2 or not all(map(math.isfinite, inputs.values)):
        return [None, None, None]
    own = _own(context, over, inputs.shape)
    weight = SmallTensor.of(context.saved("weight")) or full(own, 1.0)
    if len(weight.values) != math.prod(own):
        return [None, None, None]
    home = {index: _home(index, over, len(own)) for index in indices(inputs.shape)}
    scaled = SmallTensor(inputs.shape, tuple(up.at(index) * weight.at(home[index]) for index in home))
    by_input: dict[Shape, float] = {}
    normal: dict[Shape, float] = {}
    for group in _groups(inputs.shape, over, own).values():
        by_input |= _group(inputs, scaled, group, eps, normal)
    return [
        scatter_add(inputs.shape, iter(by_input.items())),
        scatter_add(own, ((home[index], up.at(index) * normal[index]) for index in home)),
        scatter_add(own, ((home[index], up.at(index)) for index in home)),
    ]


def _home(index: Shape, over: str, own: int) -> Shape:
    """Give the index in weight and bias that belongs to one of the input."""
    return (index[1],) if over == "channel" else index[len(index) - own :]


def _group(
    inputs: SmallTensor, scaled: SmallTensor, group: list[Shape], eps: float, normal: dict[Shape, float]
) -> dict[Shape, float]:
    """Derive what was normalized together, and note the normalized values in `normal`."""
    average, spread = _spread([inputs.at(index) for index in group], eps)
    normal |= {index: (inputs.at(index) - average) / spread for index in group}
    mean, tilt = _mean(map(scaled.at, group)), _mean(scaled.at(index) * normal[index] for index in group)
    return {index: (scaled.at(index) - mean - normal[index] * tilt) / spread for index in group}


def _mean(values: Iterable[float]) -> float:
    written_values = list(values)
    return exact_sum(written_values) / len(written_values)


NORMALIZATION_RULES: dict[str, BackwardRule] = {
    "NativeBatchNormBackward0": batch_norm,
    "CudnnBatchNormBackward0": batch_norm,
    "NativeLayerNormBackward0": layer_norm,
}


Window = Callable[[Shape, Shape, Shape], list[range]]  # of an output's index, output shape and input shape
GREATEST = "each gradient goes to the greatest value of its window, the others get 0"


def max_pool(context: NodeContext) -> list[Derivation]:
    """Send each gradient to the index that the node remembers."""
    up, chosen = context.upstream, SmallTensor.of(context.saved("result1"))
    below = context.op.grad_out[0] if context.op.grad_out else None
    result = None
    if up and chosen and below and not context.one_value and math.prod(below.stats.shape) <= 64:
        sides = 2 if context.op.name.startswith("MaxPool2D") else 3
        shape = below.stats.shape
        result = scatter_add(
            shape,
            (((*at[:-sides], *_unravelled(int(chosen.at(at)), shape[-sides:])), up.at(at)) for at in indices(up.shape)),
        )
    return [gradient(context, 0, GREATEST, result)]


def _unravelled(index: int, shape: Shape) -> Shape:
    digits: list[int] = []
    for size in reversed(shape):
        index, digit = divmod(index, size)
        digits.insert(0, digit)
    return tuple(digits)


def greatest(context: NodeContext) -> list[Derivation]:
    """Say where the gradients go, for nodes whose places are not known here."""
    return [gradient(context, 0, GREATEST)]


def avg_pool(context: NodeContext) -> list[Derivation]:
    """Share each gradient equally among its window."""
    kernel, stride = context.integers("kernel_size"), context.integers("stride")
    odd = context.setting("padding") not in (None, "0", "(0, 0)") or context.setting("ceil_mode") == "True"
    if kernel is None or odd or context.setting("divisor_override") not in (None, "None"):
        return [gradient(context, 0, "each gradient is shared by the values of its window")]
    sides = kernel * 2 if len(kernel) == 1 else kernel
    steps = sides if stride is None else stride * 2 if len(stride) == 1 else stride

    def window(at: Shape, _: Shape, __: Shape) -> list[range]:
        return [range(here * step, here * step + side) for here, step, side in zip(at, steps, sides, strict=True)]

    formula = f"each value of a window gets 1/{math.prod(sides)} of its gradient"
    return [gradient(context, 0, formula, _spread_out(context, window))]


def adaptive(context: NodeContext) -> list[Derivation]:
    """Share each gradient equally among its window, of whatever size that is."""

    def window(at: Shape, above: Shape, below: Shape) -> list[range]:
        return [
            range(here * size // many, -(-(here + 1) * size // many))
            for here, many, size in zip(at, above, below, strict=True)
        ]

    return [
        gradient(context, 0, "each value of a window gets an equal share of its gradient", _spread_out(context, window))
    ]


def _spread_out(context: NodeContext, window: Window) -> SmallTensor | None:
    """Share every upstream value among its window."""
    up, below = context.upstream, context.op.grad_out[0] if context.op.grad_out else None
    if up is None or below is None or context.one_value or len(up.shape) < 2 or math.prod(below.stats.shape) > 64:
        return None
    shape, parts = below.stats.shape, []
    for at in indices(up.shape):
        positions = list(product(*window(at[-2:], up.shape[-2:], shape[-2:])))
        parts += [((*at[:-2], *position), up.at(at) / len(positions)) for position in positions]
    return scatter_add(shape, iter(parts))


POOLING_RULES: dict[str, BackwardRule] = {
    "MaxPool2DWithIndicesBackward0": max_pool,
    "MaxPool3DWithIndicesBackward0": max_pool,
    "AdaptiveMaxPool2DBackward0": greatest,
    "AvgPool2DBackward0": avg_pool,
    "AdaptiveAvgPool2DBackward0": adaptive,
}
