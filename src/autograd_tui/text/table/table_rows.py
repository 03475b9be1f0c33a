"""The table by layer, with a row for each parameter below an opened one, and the rows of buffers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import MISSING, SizeTable
from autograd_tui.core.tensor_stats import ROW_WIDTH, StatsTable, TensorStats
from autograd_tui.text.nonfinite import shows_nonfinite
from autograd_tui.text.numbers import bar, count, number, percentage
from autograd_tui.text.sparkline import (
    MIN_TREND_VALUES,
    TREND_CELLS,
    TREND_VALUES,
    GradientSparklines,
    trend,
)
from autograd_tui.text.styled_text import Line, wrapped
from autograd_tui.text.table.gradient_status import gradient_statuses
from autograd_tui.text.table.layers import Indices, Layers, ParameterColumns, TableView, ViewRow, row_parameters

GUTTER = 3  # cursor, opened, a blank
MIN_NAME_WIDTH = 17  # characters of the longest names that other columns leave
TOTAL = "all"
BAR_WIDTH = 13  # cells of the bar that compares gradients, at least
MAX_BAR_WIDTH = 48
COLUMNS_BY_WORTH = (
    "grad",
    "state",
    "update",
    "flow",
    "rms",
    "trend",
    "values",
    "spread",
    "params",
    "tensors",
)  # those that matter most first


@dataclass(frozen=True, slots=True)
class Column:
    """One column after the name; `key` is what `sort` calls it."""

    heading: str
    key: str
    width: int
    write: Callable[[Indices], str]
    style: Callable[[Indices], str]


@dataclass(frozen=True, slots=True)
class LogScale:
    """A logarithmic scale between two powers of ten, for bars."""

    low: int  # exponents
    high: int

    @classmethod
    def of(cls, values: Sequence[float]) -> LogScale | None:
        """Return the scale that holds the positive finite ones of some values; None where none is."""
        logs = [math.log10(value) for value in values if 0 < value < math.inf]
        if not logs:
            return None
        low = math.floor(min(logs))
        return cls(low, max(math.ceil(max(logs)), low + 1))

    def share(self, value: float) -> float:
        """Return how far up the scale a value lies, from 0 to 1; 0 for what has no place on it."""
        if not 0 < value < math.inf:
            return 0.0
        return min(max((math.log10(value) - self.low) / (self.high - self.low), 0.02), 1.0)

    def heading(self, width: int) -> str:
        """Name both ends over a bar of a width."""
        ends = f"1e{self.low}", f"1e{self.high}"
        return f"{ends[0]}{'log':^{width - len(ends[0]) - len(ends[1])}}{ends[1]}"


class TableRows:
    """Writes the rows of one frame."""

    def __init__(self, frame: Frame, layers: Layers, columns: ParameterColumns, grads: SizeTable | None = None) -> None:
        """`grads` are the sizes of the gradients after the last backwards, up to the frame's."""
        self._frame, self._layers, self._columns = frame, layers, columns
        self._grads = grads or SizeTable()
        self._spreads = GradientSparklines(frame.grads)
        self._everything = tuple(range(len(layers.names)))
        self._ages = gradient_statuses(frame)
        self._mixed = len(set(self._ages)) > 1
        sizes = [columns.grad_rms(indices) for indices in layers.groups.values()]
        self._scale = LogScale.of([size for size in sizes if size is not None])

    def shape(self, view: TableView, listed: Sequence[ViewRow], width: int) -> TableLayout:
        """Choose the columns that fit: those that matter least go first, but never the one that is sorted by."""
        longest = max(len(_heading(view)), *(len(self._label(row)) for row in listed))
        room = width - GUTTER - min(longest, MIN_NAME_WIDTH)
        by_worth = sorted(
            self._possible(), key=lambda column: (column.key != view.column, COLUMNS_BY_WORTH.index(column.key))
        )
        kept = set()
        for column in by_worth:
            if column.width <= room:
                room -= column.width
                kept.add(column.key)
        columns = [column for column in self._possible() if column.key in kept]
        left = max(0, width - GUTTER - sum(column.width for column in columns))
        name_width = min(longest, left)
        wider = min(left - name_width, MAX_BAR_WIDTH - BAR_WIDTH)
        columns = [self._flow(BAR_WIDTH + wider) if column.key == "flow" else column for column in columns]
        labels = [self._label(row) for row in listed if row.parameter is None]
        short = dict(zip(labels, shorten_names(labels, name_width), strict=True))
        return TableLayout(columns, name_width, view, short)

    def heading(self, shape: TableLayout) -> Line:
        """Write the names of the columns, the sorted one marked."""
        by, name = shape.view.column, _heading(shape.view)
        cells = [f"{'▼ ' * (column.key == by) + column.heading:>{column.width}}" for column in shape.columns]
        return [(f"{'':{GUTTER}}{name:<{shape.name_width}}" + "".join(cells), "dim")]

    def row(self, shape: TableLayout, row: ViewRow) -> Line:
        """Write one row."""
        here, opened = row == shape.view.cursor, row.parameter is None and row.layer in shape.view.opened
        inside = row.parameter is not None and not self._layers.alone(row.layer)
        whole = self._label(row)
        label = shape.labels.get(whole) or " " * inside + shorten_name(whole.lstrip(), shape.name_width - inside)
        line: Line = [("▶" if here else " ", "accent"), ("▾ " if opened else "  ", "dim")]
        line.append((f"{label:<{shape.name_width}}", "now" if here else "strong" if row.parameter is None else ""))
        return line + self._cells(shape, row_parameters(self._layers, row))

    def total(self, shape: TableLayout) -> Line:
        """Write the row for all parameters together."""
        cells = self._cells(shape, self._everything, but=("spread", "flow"))
        return [(f"{'':{GUTTER}}{TOTAL:<{shape.name_width}}", "strong"), *cells]

    def _label(self, row: ViewRow) -> str:
        if row.parameter is None:
            return row.layer
        short = self._layers.names[row.parameter].removeprefix(row.layer)
        return f" {short}" if short else row.layer

    def _cells(self, shape: TableLayout, at: Indices, *, but: Sequence[str] = ()) -> Line:
        written = [(column, "" if column.key in but else column.write(at)) for column in shape.columns]
        return [
            (f"{text:>{column.width}}", "error" if shows_nonfinite(text) else column.style(at))
            for column, text in written
        ]

    def _possible(self) -> list[Column]:
        columns, values = self._columns, len(count(self._columns.size(self._everything))) + 1
        listed = [
            Column("tensors", "tensors", 9, lambda at: str(len(at)), _dim),
            Column("values", "values", max(values, 9), lambda at: count(columns.size(at)), _dim),
            Column("|params|", "params", 11, columns.norm_words, _plain),
            Column("|grad|", "grad", 11, self._grad, self._grad_style),
            Column("per value", "rms", 10, self._rms, self._grad_style),
            self._flow(BAR_WIDTH),
            Column(f"last {TREND_VALUES}", "trend", TREND_CELLS + 2, self._trend, _plain),
            Column("its spread", "spread", 11, self._spreads.of, self._grad_style),
            Column(".grad is", "state", 17, self._state, self._grad_style),
            Column(self._moved_by(), "update", 11, self._update, self._update_style),
        ]
        says_something = {"state": self._mixed, "trend": len(self._grads) >= MIN_TREND_VALUES}
        return [column for column in listed if says_something.get(column.key, True)]

    def _moved_by(self) -> str:
        """Name what moved the parameters: before the next step it is the last one that did."""
        mover = self._frame.mover
        if mover is not None and mover.phase is None:
            return "you set"
        return (
            "last step" if mover is not None and mover.phase is Phase.STEP and self._is_earlier_update() else "update"
        )

    def _is_earlier_update(self) -> bool:
        """Return whether another command than the frame's own moved the parameters."""
        return self._frame.mover is not self._frame.command or self._frame.error is not None

    def _grad(self, at: Indices) -> str:
        held = any(self._frame.grads.backwards[index] for index in at)
        return self._columns.grad_words(at) if held else "frozen" if self._frame.frozen.issuperset(at) else "None"

    def _rms(self, at: Indices) -> str:
        rms = self._columns.grad_rms(at)
        return "" if rms is None else f"{rms:.1e}" if math.isfinite(rms) else number(rms)

    def _flow(self, width: int) -> Column:
        """Return the column of bars that compare the size of one value of the gradient."""
        heading = self._scale.heading(width) if self._scale is not None else ""
        return Column(heading, "flow", width + 2, lambda at: self._bar(at, width), self._grad_style)

    def _bar(self, at: Indices, width: int) -> str:
        rms = self._columns.grad_rms(at)
        drawn = bar(self._scale.share(rms), width) if self._scale is not None and rms is not None else ""
        return f"{drawn:<{width}}"

    def _trend(self, at: Indices) -> str:
        return f"{trend([size for size in self._grads.sizes(at) if size != MISSING]):<{TREND_CELLS}}"

    def _state(self, at: Indices) -> str:
        words = {self._ages[index] for index in at}
        return words.pop() if len(words) == 1 else "mixed"

    def _grad_style(self, at: Indices) -> str:
        return {"fresh": "accent", "None": "dim", "frozen": "dim"}.get(self._state(at), "")

    def _update(self, at: Indices) -> str:
        update = self._columns.update(at)
        if update is None:
            return "-"
        if not math.isfinite(update):
            return "from 0" if update > 0 else "NaN"
        return percentage(update, sampled=self._columns.estimated(at))

    def _update_style(self, _: Indices) -> str:
        return "dim" if self._is_earlier_update() else ""


@dataclass(frozen=True, slots=True)
class TableLayout:
    """Which columns there is room for, and for how much of a name."""

    columns: Sequence[Column]
    name_width: int
    view: TableView
    labels: Mapping[str, str]  # of layers, as far as there is room


def shorten_name(name: str, width: int) -> str:
    """Keep the end of a name that is too long: there names differ."""
    return name if len(name) <= width else ("…" + name[len(name) - width + 1 :])[:width]


def shorten_names(names: Sequence[str], width: int) -> list[str]:
    """Shorten names alike; where their ends alone would not tell them apart, they keep their beginnings too."""
    half = max(width // 2, 1)
    beginnings = (0, *sorted(range(1, max(width, 1)), key=lambda beginning: abs(beginning - half)))
    for beginning in beginnings:
        short = [_cut_inside(name, width, beginning) for name in names]
        if len(set(short)) == len(set(names)):
            return short
    return [_cut_inside(name, width, half) for name in names]


def _cut_inside(name: str, width: int, beginning: int) -> str:
    """Leave out what stands behind so many first characters of a name that is too long."""
    if len(name) <= width:
        return name
    return f"{name[:beginning]}…{name[len(name) - (width - beginning - 1) :]}"[:width]


def _heading(view: TableView) -> str:
    return "▲ layer" if view.column == "name" else "layer"


def _plain(_: Indices) -> str:
    return ""


def _dim(_: Indices) -> str:
    return "dim"


def buffer_lines(frame: Frame, layer: str, width: int, height: int) -> list[Line]:
    """Return a line on what has changed, and the few buffers that fit, those of `layer` first."""
    names = frame.buffers.layout.names
    changed = _changed(frame)
    order = sorted(range(len(names)), key=lambda index: not f"{names[index]}.".startswith(f"{layer}."))
    lines: list[Line] = wrapped(buffer_summary(frame, sum(changed)), width, style="dim")
    room = height - len(lines)
    room -= len(names) > room  # for the row that counts the others
    shown = order[: max(room, 0)]
    name_width = min(max((len(names[index]) for index in shown), default=0), max(width - 24, 8))
    lines += [_row(frame, index, name_width=name_width, width=width) for index in shown]
    if len(shown) < len(names):
        lines.append([(f"... {len(names) - len(shown)} more", "dim")])
    return lines


def buffer_summary(frame: Frame, changed: int) -> str:
    """Return a sentence on how many of the buffers have other numbers since before the last forward."""
    buffers = len(frame.buffers)
    if frame.buffers_before is None:
        beginning = "found" if frame.script is not None else "as the model was built"
        return f"{buffers} {beginning}: forward may change them"
    now = frame.phase is Phase.FORWARD and frame.error is None
    who = "forward" if now else "the last forward"
    unknown = len(frame.buffers.layout.left_out())
    beside = f", {unknown} not measured" * bool(unknown)
    if not changed:
        return f"{who} changed the numbers of none of {buffers}{beside}"
    return f"{who} changed {'all' if changed == buffers else f'{changed} of'} {buffers}{beside}"


def _changed(frame: Frame) -> list[bool]:
    """Return for each buffer whether its numbers are others than before the last forward."""
    now, before = frame.buffers, frame.buffers_before
    if before is None or now is before:
        return [False] * len(now)
    known = {name: index for index, name in enumerate(before.layout.names)}
    return [
        name not in known or _row_bits(now, index) != _row_bits(before, known[name])
        for index, name in enumerate(now.layout.names)
    ]


def _row_bits(table: StatsTable, index: int) -> tuple[object, ...]:
    numbers = table.numbers[index * ROW_WIDTH : (index + 1) * ROW_WIDTH]
    return table.layout.shapes[index], table.layout.dtypes[index], numbers.tobytes()


def _row(frame: Frame, index: int, *, name_width: int, width: int) -> Line:
    row: TensorStats = frame.buffers[index]
    was = frame.buffers_before.named(row.name) if frame.buffers_before is not None else None
    new, old = _content(row), _content(was) if was is not None else ""
    line: Line = [(f"{shorten_name(row.name, name_width):<{name_width}}  ", "strong")]
    if old and old != new and name_width + len(old) + len(new) + 5 <= width:
        line.append((f"{old} → ", "dim"))
    return [*line, (new, "error" * shows_nonfinite(new))]


def _content(row: TensorStats) -> str:
    """Write a single value, a whole number as one, else the norm; NaN stands for what the veil hides of any dtype."""
    if row.size == 1 and row.values:
        whole = not row.dtype.startswith(("float", "bfloat")) and math.isfinite(row.values[0])
        return count(int(row.values[0])) if whole else number(row.values[0])
    return f"norm {number(row.norm)}" if row.norm is not None else row.dtype
