"""What the user has made of the table of parameters: the row under the cursor, opened layers, order, search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from autograd_tui.text.table.layers import Layers, ParameterColumns


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
