"""Parameters folded into layers, their numbers added up, and what the user has made of the table of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

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


class ViewRow(NamedTuple):
    """A layer, or one parameter of it."""

    layer: str
    parameter: int | None = None  # its index in the model; None of the layer


@dataclass(frozen=True, slots=True)
class TableView:
    """A view of the table; the functions below give another."""

    cursor: ViewRow | None = None  # none before a key or the mouse has put it somewhere
    opened: frozenset[str] = frozenset()  # layers whose parameters are shown
    column: str = "model"  # that the rows are sorted by
    search: str = ""  # the last one
    asked: bool = False  # enter has asked for a parameter's numbers


def list_rows(layers: Layers, columns: ParameterColumns, view: TableView) -> list[ViewRow]:
    """Return the rows from first to last, a layer's parameters below it where it is open."""
    found = []
    for row in _sorted([_layer_row(layers, layer) for layer in layers.groups], layers, columns, column=view.column):
        found.append(row)
        if row.parameter is None and row.layer in view.opened:
            inside = [ViewRow(row.layer, index) for index in layers.groups[row.layer]]
            found += _sorted(inside, layers, columns, column=view.column)
    return found


def count_rows(layers: Layers, view: TableView) -> int:
    """Return how many rows there are, without sorting them."""
    opened = view.opened & layers.groups.keys()
    return len(layers.groups) + sum(len(layers.groups[layer]) for layer in opened if not layers.alone(layer))


def row_parameters(layers: Layers, row: ViewRow) -> Sequence[int]:
    """Return the parameters that a row is about."""
    return layers.groups[row.layer] if row.parameter is None else (row.parameter,)


def row_name(layers: Layers, row: ViewRow) -> str:
    """Return the full name of a row's layer or parameter."""
    return row.layer if row.parameter is None else layers.names[row.parameter]


def move_cursor(view: TableView, listed: Sequence[ViewRow], by: int) -> TableView:
    """Move the cursor among the rows as listed, to the first or last where it stood nowhere."""
    if view.cursor not in listed:
        return replace(view, cursor=listed[0 if by > 0 else -1])
    index = listed.index(view.cursor) + by
    return replace(view, cursor=listed[min(max(index, 0), len(listed) - 1)])


def toggle_layer(view: TableView, layer: str) -> TableView:
    """Open a layer, or close it."""
    return replace(view, opened=view.opened ^ {layer})


def find_parameter(layers: Layers, columns: ParameterColumns, view: TableView, text: str) -> TableView | None:
    """Move the cursor to the next parameter with `text` in its name, after the last to the first; None if none has."""
    listed = list_rows(layers, columns, replace(view, opened=frozenset(layers.groups)))
    start = listed.index(view.cursor) + 1 if view.cursor in listed else 0
    named = [
        (layers.names[row.parameter].casefold(), row)
        for row in listed[start:] + listed[:start]
        if row.parameter is not None
    ]
    fitting = [row for name, row in named if text.casefold() in name]
    if not fitting:
        return None
    row = dict(named).get(text.casefold(), fitting[0])  # the one of that very name, where there is one
    return replace(view, cursor=row, opened=view.opened | {row.layer}, search=text)


def _layer_row(layers: Layers, layer: str) -> ViewRow:
    return ViewRow(layer, layers.groups[layer][0]) if layers.alone(layer) else ViewRow(layer)


def _sorted(listed: list[ViewRow], layers: Layers, columns: ParameterColumns, *, column: str) -> list[ViewRow]:
    """Sort by name, or with the largest number first; rows without a number come last, in the model's order."""
    if column == "model":
        return listed
    if column == "name":
        return sorted(listed, key=lambda row: row_name(layers, row))
    measures = {"values": columns.size, "params": columns.norm, "grad": columns.grad, "update": columns.update}
    measure = measures.get(column, len)
    return sorted(listed, key=lambda row: _rank(measure(row_parameters(layers, row))))


def _rank(value: float | None) -> tuple[bool, bool, float]:
    """Put NaN first, as what is most worth seeing, and None last."""
    wild = value is not None and math.isnan(value)
    return value is None, not wild, 0.0 if value is None or wild else -value
