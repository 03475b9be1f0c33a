"""Parameters folded into layers: the first part of their names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autograd_tui.engine.frame import Frame
from autograd_tui.engine.stats_table import SAMPLE


@dataclass(frozen=True, slots=True)
class Layer:
    """All parameters whose names begin alike."""

    name: str
    tensors: int
    size: int  # values in them
    norm: float
    grad_norm: float | None  # None where every `.grad` is None
    update: float | None  # the last move over what it moved from; None before the first
    estimated: bool  # the update is, from samples of large tensors


def ratio(moves: Sequence[float], norms: Sequence[float]) -> float:
    """Give a move relative to what it moved from."""
    size = math.hypot(*norms)
    return math.hypot(*moves) / size if size else math.inf


def layers(frame: Frame) -> list[Layer]:
    """Fold the parameters in the model's order."""
    grouped: dict[str, list[int]] = {}
    for place, name in enumerate(frame.params.layout.names):
        grouped.setdefault(name.partition(".")[0], []).append(place)
    params, grads = list(frame.params), list(frame.grads)
    before = list(frame.before or ())
    found = []
    for name, places in grouped.items():
        update = None
        if frame.moves is not None and before:
            update = ratio([frame.moves[place] for place in places], [before[place].norm or 0.0 for place in places])
        held = [grad.norm for place in places if (grad := grads[place]) is not None and grad.norm is not None]
        found.append(
            Layer(
                name,
                len(places),
                sum(params[place].size for place in places),
                math.hypot(*(params[place].norm or 0.0 for place in places)),
                math.hypot(*held) if held else None,
                update,
                any(params[place].size > SAMPLE for place in places),
            )
        )
    return found
