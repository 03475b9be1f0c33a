"""Parameters folded into layers, and their numbers added up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import SAMPLE_SIZE
from autograd_tui.text.numbers import at_least

MAX_PARAMETER_ROWS = 12  # a model with more parameters is shown by layers
Indices = Sequence[int]  # of parameters, in the model's order


@dataclass(frozen=True, slots=True)
class Layers:
    """Which parameters belong to which layer; those of a small model stand each for itself."""

    names: tuple[str, ...]  # of the parameters
    groups: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, names: tuple[str, ...]) -> Layers:
        """Group by the first part in which names differ: conv1, layer1; where all begin with net, net.0, net.1."""
        if len(names) <= MAX_PARAMETER_ROWS:
            return cls(names, {name: (index,) for index, name in enumerate(names)})
        parts = [name.split(".") for name in names]
        pairs = zip(min(parts), max(parts), strict=False)  # what these two begin with, all do
        depth = next((depth for depth, (one, other) in enumerate(pairs, 1) if one != other), 1)
        grouped: dict[str, list[int]] = {}
        for index, part in enumerate(parts):
            grouped.setdefault(".".join(part[:depth]), []).append(index)
        return cls(names, {layer: tuple(indices) for layer, indices in grouped.items()})

    def alone(self, layer: str) -> bool:
        """Return whether a layer is nothing but one parameter of the same name."""
        indices = self.groups[layer]
        return len(indices) == 1 and self.names[indices[0]] == layer


@dataclass(frozen=True, slots=True)
class ParameterColumns:
    """A frame's numbers, one a parameter, from which those of any row are added up."""

    sizes: tuple[int, ...]
    norms: tuple[float | None, ...]
    grads: tuple[float | None, ...]  # norms; None where `.grad` is None, or has no norm
    ways: Sequence[float | None] | None  # of the last step or setting; None before the first
    starts: tuple[float | None, ...]  # the norms before it
    left_out: frozenset[int] = frozenset()  # places of parameters that have no norm
    grads_left_out: frozenset[int] = frozenset()  # and of gradients

    @classmethod
    def of(cls, frame: Frame) -> ParameterColumns:
        """Take the columns out of a frame's tables."""
        held = [index for index, backwards in enumerate(frame.grads.backwards) if backwards]
        return cls(
            tuple(map(math.prod, frame.params.layout.shapes)),
            frame.params.norms(),
            frame.grads.norms(),
            frame.move_norms,
            frame.before.norms() if frame.before is not None else (),
            frame.params.layout.left_out(),
            frozenset(held[row] for row in frame.grads.table.layout.left_out()),
        )

    def size(self, indices: Indices) -> int:
        """Count the values."""
        return sum(self.sizes[index] for index in indices)

    def norm_words(self, indices: Indices) -> str:
        """Write the norm of the parameters together, as at least what it is where some have none."""
        return at_least(self.norm(indices), partly=not self.left_out.isdisjoint(indices))

    def grad_words(self, indices: Indices) -> str:
        """Write the norm of the gradients together, as at least what it is where some have none."""
        return at_least(self.grad(indices), partly=not self.grads_left_out.isdisjoint(indices))

    def norm(self, indices: Indices) -> float | None:
        """Return the norm of the parameters together; None where none has one."""
        return _combined_norm(self.norms[index] for index in indices)

    def grad(self, indices: Indices) -> float | None:
        """Return the norm of the gradients together; None where none has one."""
        return _combined_norm(self.grads[index] for index in indices)

    def grad_rms(self, indices: Indices) -> float | None:
        """Return the root mean square of the gradients' values: the size of one, which a norm hides in a large layer.

        None where some have no norm.
        """
        norms = [self.grads[index] for index in indices]
        size = self.size(indices)
        if not size or any(norm is None for norm in norms):
            return None
        return math.hypot(*(norm for norm in norms if norm is not None)) / math.sqrt(size)

    def update(self, indices: Indices) -> float | None:
        """Return the last move over what it moved from: infinite from zero, None where none was measured."""
        if self.ways is None or not self.starts:
            return None
        ways = [way for index in indices if (way := self.ways[index]) is not None]
        if len(ways) < len(indices):
            return None
        way = math.hypot(*ways)
        start = math.hypot(*(self.starts[index] or 0.0 for index in indices))
        return way / start if start else math.inf if way else 0.0

    def estimated(self, indices: Indices) -> bool:
        """Return whether the update comes from samples of large tensors."""
        return any(self.sizes[index] > SAMPLE_SIZE for index in indices)


def _combined_norm(norms: Iterable[float | None]) -> float | None:
    known = [norm for norm in norms if norm is not None]
    return math.hypot(*known) if known else None
