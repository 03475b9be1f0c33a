"""Frames as lines of strict JSON and back, to the bit."""

from __future__ import annotations

import json
import math
from array import array
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from autograd_tui.core.command import Command, parse_recorded
from autograd_tui.core.decoding import decode_array, parse_json, validated
from autograd_tui.core.errors import UnknownCommand
from autograd_tui.core.frame import Frame, ParamGroups, StrayLeaf, TorchError
from autograd_tui.core.script_stop import ScriptStop
from autograd_tui.core.tensor_stats import Grads, GradStats, StatsLayout, StatsTable, TensorStats

_CLASSES: dict[str, type[Any]] = {  # by the names that files have for them, which never change
    "TorchError": TorchError,
    "Grads": Grads,
    "Groups": ParamGroups,
    "Stray": StrayLeaf,
    "TensorStats": TensorStats,
    "GradStats": GradStats,
    "Layout": StatsLayout,
    "ScriptStop": ScriptStop,
}
_NAMES = {cls: name for name, cls in _CLASSES.items()}
_LEFT_OUT = ("trace",)  # of a frame: it belongs to who asked for it
_NOT_FINITE = {str(each): each for each in (math.nan, math.inf, -math.inf)}


class FrameEncoder:
    """Writes frames one after the other; its lines are read in the same order, from the first."""

    def __init__(self) -> None:
        self._tables: dict[int, tuple[int, StatsTable]] = {}  # of the frame before, by identity, with their numbers
        self._layouts: dict[int, tuple[int, StatsLayout]] = {}
        self._count = 0

    def line(self, frame: Frame) -> str:
        """Write one frame."""
        new: dict[int, Any] = {}
        before, self._tables = self._tables, {}
        values = {
            field.name: self._plain(getattr(frame, field.name), before, new)
            for field in fields(Frame)
            if field.name not in _LEFT_OUT and getattr(frame, field.name) != field.default
        }
        return json.dumps({"frame": values, "tables": new}, allow_nan=False, separators=(",", ":")) + "\n"

    def _plain(self, value: Any, before: Mapping[int, tuple[int, StatsTable]], new: dict[int, Any]) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else {"float": str(value)}
        if value is None or isinstance(value, (bool, int, str)):
            return str(value) if isinstance(value, str) else value
        if isinstance(value, tuple):
            return [self._plain(each, before, new) for each in value]
        if isinstance(value, frozenset):
            return {"set": sorted(value)}
        if isinstance(value, array):
            return {"array": _packed(value)}
        if isinstance(value, Command):
            return {"Command": str(value)}
        if isinstance(value, StatsTable):
            return {"table": self._table(value, before, new)}
        inside = {field.name: self._plain(getattr(value, field.name), before, new) for field in fields(value)}
        return {_NAMES[type(value)]: inside}

    def _table(self, table: StatsTable, before: Mapping[int, tuple[int, StatsTable]], new: dict[int, Any]) -> int:
        """Return a table's number; one that the frame before did not have is written out."""
        entry = self._tables.get(id(table)) or before.get(id(table))
        if entry is None:
            self._count += 1
            entry = (self._count, table)
            written_layout = self._layouts.get(id(table.layout))
            layout = written_layout[0] if written_layout else self._plain(table.layout, before, new)
            new[self._count] = [layout, _packed(table.numbers)]
            if written_layout is None:
                self._layouts[id(table.layout)] = (self._count, table.layout)
        self._tables[id(table)] = entry
        return entry[0]


class FrameDecoder:
    """Reads what a FrameEncoder has written; what it gives is a frame as the engine makes them, or ValueError."""

    def __init__(self) -> None:
        self._tables: dict[int, StatsTable] = {}  # of the frame before
        self._layouts: dict[int, StatsLayout] = {}  # by the table that brought them
        self._commands: dict[str, Command] = {}  # of the frame that is read: what moved the parameters may be the same

    def frame(self, line: str | bytes) -> Frame:
        """Read one line; raises ValueError where it is none, or follows lines that were not read."""
        try:
            written = parse_json(line)
            tables = self._tables | {
                int(number): self._table(int(number), *each) for number, each in written["tables"].items()
            }
            self._tables, self._commands = {}, {}
            return validated(Frame, {name: self._value(value, tables) for name, value in written["frame"].items()})
        except (KeyError, TypeError, AttributeError, RecursionError, UnknownCommand) as error:
            raise ValueError(f"no frame: {error}") from None

    def _table(self, number: int, layout: Any, numbers: Any) -> StatsTable:
        if not isinstance(layout, int):
            self._layouts[number] = self._value(layout, {})
            layout = number
        return validated(StatsTable, {"layout": self._layouts[layout], "numbers": decode_array("d", numbers)})

    def _value(self, value: Any, tables: Mapping[int, StatsTable]) -> Any:
        if isinstance(value, list):
            return tuple(self._value(each, tables) for each in value)
        if not isinstance(value, dict):
            return value
        ((kind, inside),) = value.items()
        if kind == "float":
            return _NOT_FINITE[inside]
        if kind == "set":
            return frozenset(inside)
        if kind == "array":
            return decode_array("d", inside)
        if kind == "Command":
            return self._commands.setdefault(inside, parse_recorded(inside))
        if kind == "table":
            self._tables[inside] = tables[inside]
            return tables[inside]
        return validated(_CLASSES[kind], {name: self._value(each, tables) for name, each in inside.items()})


def _packed(numbers: array[float]) -> str:
    return b64encode(numbers.tobytes()).decode()
