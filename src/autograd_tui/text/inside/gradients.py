"""Gradients that vanish or explode on their way down the layers."""

from __future__ import annotations

import math
from collections.abc import Iterator

from autograd_tui.engine.values.trace import Trace
from autograd_tui.text.inside.backward.accumulation import is_accumulation
from autograd_tui.text.line import one_line
from autograd_tui.text.numbers import terse

VANISHED = 1e-4  # of the largest layer's norm
EXPLODED = 1e4  # a norm of one layer
Layers = dict[str, float]


def gradient_sentences(trace: Trace) -> Iterator[tuple[str, str]]:
    """Compare the norms of what arrived at each layer's parameters in this backward."""
    norms = layer_norms(trace)
    finite = {name: norm for name, norm in norms.items() if math.isfinite(norm)}
    zero = [name for name, norm in finite.items() if norm == 0]
    if zero:
        yield f"The gradient is exactly 0 for {_listed(zero)}: a step by it alone moves nothing there.", "warn"
    living = {name: norm for name, norm in finite.items() if norm > 0}
    if not living:
        return
    least, most = (choose(living, key=living.__getitem__) for choose in (min, max))
    if living[least] <= VANISHED * living[most]:
        yield _on_the_way_down(living, least, most), "warn"
    elif living[most] >= EXPLODED:
        yield f"Gradients explode: norm {terse(living[most])} in {one_line(most)}.", "warn"


def _on_the_way_down(norms: Layers, least: str, most: str) -> str:
    """Say which way they change, from the layer that the engine reached first to the other."""
    order = list(norms)
    first, last = sorted((least, most), key=order.index)
    word = "explode" if last == most else "vanish"
    ends = (f"norm {terse(norms[layer])} in {one_line(layer)}" for layer in (first, last))
    return f"Gradients {word} on their way back from the loss: {', then '.join(ends)}."


def layer_norms(trace: Trace) -> Layers:
    """Give the norm of this backward's gradient by the module that holds them, in the engine's order."""
    squares: dict[str, float] = {}
    for op in trace.ops:
        if not (is_accumulation(op) and op.accumulates_into and op.grad_in and op.grad_in[0]):
            continue
        layer, norm = op.accumulates_into.rpartition(".")[0] or op.accumulates_into, op.grad_in[0].stats.norm
        if norm is not None:
            squares[layer] = math.hypot(squares.get(layer, 0.0), norm)
    return squares


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(one_line, names[:3]))
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
