"""Frames as lines of strict JSON and back, to the bit; values are built only where they fit their annotations."""

from __future__ import annotations

import json
import math
from array import array
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sized
from dataclasses import fields
from functools import cache, lru_cache
from itertools import pairwise
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from autograd_tui.core.command import PHASES, Command, parse_recorded
from autograd_tui.core.errors import UnknownCommand
from autograd_tui.core.frame import Frame, ParamGroups, StrayLeaf, TorchError
from autograd_tui.core.history import MAX_ROWS, Path, Series, SizeTable
from autograd_tui.core.optimizer_spec import OptimizerSpec
from autograd_tui.core.script_stop import ScriptStop
from autograd_tui.core.session_protocol import SessionInfo
from autograd_tui.core.tensor_stats import (
    HISTOGRAM_BINS,
    MAX_LISTED_VALUES,
    ROW_WIDTH,
    SAMPLE_SIZE,
    Grads,
    GradStats,
    StatsLayout,
    StatsTable,
    TensorStats,
)
from autograd_tui.core.trace import Trace

Made = TypeVar("Made")
INTEGER_LIMIT = 2**63  # that an integer stays below, as in tensors and arrays
MAX_TEXT_LENGTH = 20_000  # characters of a text: the engine keeps 10,000 of what was raised
SERIES_CAPACITIES = range(8, 1 << 20)  # points of a series: with fewer it could not be thinned
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


def parse_json(line: bytes | str) -> Any:
    """Read one line of strict JSON; raises ValueError where it is none, or is nested deeper than any frame."""
    try:
        return json.loads(line if isinstance(line, str) else line.decode(), parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def decode_array(typecode: str, text: Any) -> array[Any]:
    """Read an array that was written in base64; raises ValueError."""
    if not isinstance(text, str):
        raise ValueError("an array that is no text")
    column: array[Any] = array(typecode)
    column.frombytes(b64decode(text, validate=True))
    return column


def validated(of: type[Made], values: Any) -> Made:
    """Return an instance of a dataclass, made of its fields by name; raises ValueError where they do not match it."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{of.__name__} without fields")
    checks = _fields(cast("Any", of))
    for name, value in values.items():
        if name not in checks or not checks[name](value):
            raise ValueError(f"{of.__name__} has no such {name[:40]}")
    try:
        instance = of(**values)
    except TypeError:
        raise ValueError(f"{of.__name__} lacks a field") from None
    fits = _FITTING.get(of)
    if fits is not None and not fits(instance):
        raise ValueError(f"{of.__name__} whose parts do not fit together")
    return instance


@cache
def _fields(of: type[Any]) -> dict[str, Callable[[Any], bool]]:
    names = {"Trace": Trace, "array": list}  # the one is imported for types alone, the other no hint in Python 3.11
    return {name: _is(hint) for name, hint in get_type_hints(of, localns=names).items()}


def _is(hint: Any) -> Callable[[Any], bool]:
    """Make the test that tells whether a value is of an annotated type."""
    origin, inside = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if origin is Literal:
        return lambda value: isinstance(value, str) and value in inside
    if origin in (Union, UnionType):
        tests = [_is(each) for each in inside]
        return lambda value: any(test(value) for test in tests)
    if origin is tuple and inside[-1] is not ...:
        several = [_is(each) for each in inside]
        return lambda value: (
            type(value) is tuple
            and len(value) == len(several)
            and all(test(each) for test, each in zip(several, value, strict=True))
        )
    if origin in (tuple, frozenset):
        test = _is(inside[0])
        return lambda value: type(value) is origin and all(map(test, value))
    if origin is Mapping:
        key, test = map(_is, inside)
        return lambda value: isinstance(value, dict) and all(key(each) and test(value[each]) for each in value)
    if origin is list:
        return lambda value: isinstance(value, array)
    if not isinstance(hint, type):
        raise TypeError(hint)
    return lambda value: isinstance(value, hint)


def _is_text(value: Any) -> bool:
    return type(value) is str and len(value) <= MAX_TEXT_LENGTH


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < INTEGER_LIMIT


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and -INTEGER_LIMIT < value < INTEGER_LIMIT)


def _is_json(value: Any) -> bool:
    """Return whether an option may have this value."""
    if isinstance(value, (tuple, list)):
        return all(map(_is_json, value))
    return value is None or isinstance(value, bool) or any(is_one(value) for is_one in (_is_text, _is_number))


_PLAIN: dict[Any, Callable[[Any], bool]] = {
    Any: _is_json,
    str: _is_text,
    int: _is_whole,
    float: _is_number,
    bool: lambda value: type(value) is bool,
    NoneType: lambda value: value is None,
}


# What the annotations do not say: how the parts of one value fit together.


def _layout(layout: StatsLayout) -> bool:
    count = len(layout.names)
    return (
        count == len(set(layout.names)) == len(layout.shapes) == len(layout.dtypes) == len(layout.measurable)
        and all(index < count and layout.measurable[index] for index in layout.sparse)
        and all(math.prod(shape) < INTEGER_LIMIT for shape in layout.shapes)
        and all(map(math.prod, _of_measurable(layout)))
    )


def _of_measurable(layout: StatsLayout) -> list[tuple[int, ...]]:
    """Return the shapes of tensors that have numbers: an empty one has none."""
    return [shape for shape, measurable in zip(layout.shapes, layout.measurable, strict=True) if measurable]


def _table(table: StatsTable) -> bool:
    layout, numbers = table.layout, table.numbers
    return len(numbers) == ROW_WIDTH * len(layout.names) and all(
        _row(layout, index, numbers[index * ROW_WIDTH : (index + 1) * ROW_WIDTH])
        for index, measurable in enumerate(layout.measurable)
        if measurable
    )


def _row(layout: StatsLayout, index: int, row: array[float]) -> bool:
    """Return whether counts are counts, and values lie between the least and the greatest."""
    size = math.prod(layout.shapes[index])
    _, low, high, nonfinite, _, _, *rest, _ = row
    ordinary, exact = layout.ordinary(index), layout.exact or size <= SAMPLE_SIZE
    if not exact and ordinary:
        return True  # what it has of counts is not read
    if not _is_count(nonfinite):
        return False
    if not ordinary:
        return index not in layout.sparse or not math.isfinite(row[4]) or _is_count(row[4])
    finite = math.isfinite(low) and math.isfinite(high)
    if size <= MAX_LISTED_VALUES:
        return not finite or all(low <= value <= high for value in rest[:size])
    return all(map(_is_count, rest)) and (sum(rest) > 0 or not finite)


def _is_count(value: float) -> bool:
    return 0 <= value < INTEGER_LIMIT and value.is_integer()


def _grads(grads: Grads) -> bool:
    count = len(grads.backwards)
    return (
        count == len(grads.used)
        and sum(map(bool, grads.backwards)) == len(grads.table)
        and all(index < count for index in grads.outside)
    )


def _tensor(row: TensorStats) -> bool:
    size = math.prod(row.shape)
    return (
        size < INTEGER_LIMIT
        and (row.values is None or len(row.values) == size <= MAX_LISTED_VALUES)
        and (row.histogram is None or len(row.histogram) == HISTOGRAM_BINS)
    )


def _groups(groups: ParamGroups) -> bool:
    count = len(groups.learning_rates)
    return (
        0 < count == len(groups.optimizers)
        and all(group is None or group < count for group in groups.of)
        and all(map(_is_optimizer, groups.optimizers))
    )


@lru_cache(maxsize=64)
def _is_optimizer(text: str) -> bool:
    try:
        return bool(OptimizerSpec.parse(text))
    except UnknownCommand:
        return False


def _frame(frame: Frame) -> bool:
    count = len(frame.params)
    tables = (frame.before, frame.loss_params, frame.grads_params, frame.moves)
    parallel: list[Sized | None] = [*tables, frame.grads, frame.added_to, frame.last_grads]
    parallel += [frame.groups.of if frame.groups else None]
    group = frame.command.group if frame.command else None
    return (
        (count > 0 or frame.script is not None)  # a script may not have made its model yet
        and all(len(each) == count for each in parallel if each is not None)
        and all(index < count for indices in (frame.frozen, frame.frozen_before, frame.unused) for index in indices)
        and (frame.groups is None or len(frame.step_rates) in (0, len(frame.groups.learning_rates)))
        and (group is None or group < len(frame.learning_rates) or frame.error is not None)
        and _is_optimizer(frame.optimizer)
        and 0 <= frame.seconds < math.inf
    )


def _about(about: SessionInfo) -> bool:
    return about.listing.keys() >= PHASES.keys()


def _series(series: Series) -> bool:
    return (
        series.capacity in SERIES_CAPACITIES
        and len(series.values) == len(series.indices) == len(series.iterations) <= series.capacity
        and series.bucket > 0
        and all(one < next_one for one, next_one in pairwise([-1, *series.indices]))
        and all(one <= next_one for one, next_one in pairwise([0, *series.iterations]))
    )


def _path(path: Path) -> bool:
    lengths = {len(path.indices), len(path.iterations), len(path.xs), len(path.ys)}
    return (
        path.capacity in SERIES_CAPACITIES and len(lengths) == 1 and _is_in_order(path) and len(path) <= path.capacity
    )


def _size_table(table: SizeTable) -> bool:
    return (
        len(table.rows) == len(table.indices) == len(table.iterations) <= MAX_ROWS
        and len({len(row) for row in table.rows}) <= 1
        and 0 < table.spacing < INTEGER_LIMIT
        and _is_in_order(table)
    )


def _is_in_order(table: Path | SizeTable) -> bool:
    """Return whether neither frames nor iterations go back."""
    return all(
        one <= next_one for column in (table.indices, table.iterations) for one, next_one in pairwise([0, *column])
    )


_FITTING: dict[type[Any], Callable[[Any], bool]] = {
    StatsLayout: _layout,
    StatsTable: _table,
    Grads: _grads,
    TensorStats: _tensor,
    ParamGroups: _groups,
    Frame: _frame,
    SessionInfo: _about,
    Series: _series,
    Path: _path,
    SizeTable: _size_table,
}


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
