"""Parameters folded into layers: the first part of their names."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autograd_tui.engine.frame import Frame


@dataclass(frozen=True, slots=True)
class Layer:
    """All parameters whose names begin alike."""

    name: str
    tensors: int
    size: int  # values in them
    norm: float
    grad_norm: float | None  # None where every `.grad` is None


def layers(frame: Frame) -> list[Layer]:
    """Fold the parameters in the model's order."""
    grouped: dict[str, list[int]] = {}
    for place, name in enumerate(frame.params.layout.names):
        grouped.setdefault(name.partition(".")[0], []).append(place)
    params, grads = list(frame.params), list(frame.grads)
    found = []
    for name, places in grouped.items():
        held = [grad.norm for place in places if (grad := grads[place]) is not None and grad.norm is not None]
        found.append(
            Layer(
                name,
                len(places),
                sum(params[place].size for place in places),
                math.hypot(*(params[place].norm or 0.0 for place in places)),
                math.hypot(*held) if held else None,
            )
        )
    return found
