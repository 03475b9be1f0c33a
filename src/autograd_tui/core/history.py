"""The series that plots need, thinned as they grow."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import FIRST_VALUE_COLUMN, NORM_COLUMN, Grads, StatsTable


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a plot."""

    index: int  # of the frame that brought it
    iteration: int
    value: float


@dataclass(slots=True)
class Series:
    """The points of one curve; thinning drops some, and keeps the least and the greatest of each bucket."""

    capacity: int = 4096
    bucket: int = 1  # iterations that share one pair of extremes, once thinned
    indices: array[int] = field(default_factory=lambda: array("q"))
    iterations: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self.values)

    def append(self, index: int, iteration: int, value: float) -> None:
        """Add a point that frame `index` brought."""
        self.indices.append(index)
        self.iterations.append(iteration)
        self.values.append(value)
        if len(self) > self.capacity:
            self._thin()

    def extend(self, indices: array[int], iterations: array[int], values: array[float]) -> None:
        """Add points in order, given the index and the iteration of the frame that brought each."""
        self.indices.extend(indices)
        self.iterations.extend(iterations)
        self.values.extend(values)
        if len(self) > self.capacity:
            self._thin()

    def extend_evenly(self, values: array[float], *, index: int, iteration: int, spacing: int) -> None:
        """Add a point for each iteration from `iteration` on; their frames, from `index` on, are `spacing` apart."""
        start = 0
        while start < len(values):
            if self.bucket == 1:  # each of them is kept, until there are too many
                end = min(start + self.capacity + 1 - len(self), len(values))
                self.indices.extend(range(index + start * spacing, index + end * spacing, spacing))
                self.iterations.extend(range(iteration + start, iteration + end))
                self.values.extend(values[start:end])
                start = end
                if len(self) > self.capacity:
                    self._thin()
                continue
            # Of those that share a bucket, what thinning would keep.
            end = min(start + self.bucket - (iteration + start) % self.bucket, len(values))
            offsets = {start + each for each in _extremes(values[start:end])}
            for offset in sorted(offsets | {end - 1} if end == len(values) else offsets):
                self.indices.append(index + offset * spacing)
                self.iterations.append(iteration + offset)
                self.values.append(values[offset])
            start = end
            if len(self) > self.capacity:
                self._thin()

    def truncate_after(self, index: int) -> None:
        """Drop what frames after `index` brought."""
        while self.indices and self.indices[-1] > index:
            for column in (self.indices, self.iterations, self.values):
                column.pop()

    def points(self) -> list[Point]:
        """Return the points in order, oldest first."""
        columns = zip(self.indices, self.iterations, self.values, strict=True)
        return [Point(*point) for point in columns]

    def at(self, index: int) -> Point | None:
        """Return the newest point that frame `index` or one before it brought."""
        position = bisect_right(self.indices, index) - 1
        return self._point(position) if position >= 0 else None

    def thinned(self, columns: int) -> list[Point]:
        """Return points for a plot: the extremes of each column and the newest, or all where they are few."""
        if len(self) <= columns * 2:
            return self.points()
        first, width = self.iterations[0], (self.iterations[-1] - self.iterations[0]) / columns
        bounds = [bisect_left(self.iterations, first + column * width) for column in range(columns)]
        positions = {len(self) - 1}
        for start, end in pairwise([*bounds, len(self)]):
            positions.update(start + each for each in (_extremes(self.values[start:end]) if start < end else ()))
        return [self._point(position) for position in sorted(positions)]

    def between(self, first: int, last: int | None) -> Series:
        """Return a series of the points from iteration `first` to `last`, None for the newest."""
        start = bisect_left(self.iterations, first)
        end = len(self) if last is None else bisect_right(self.iterations, last)
        return self._part(start, end)

    def last_of_iterations(self, *, whole: bool = False) -> Series:
        """Return a series of the newest point of each iteration: a script may measure several losses in one.

        whole: without the newest iteration, where that has had fewer of them than the one before.
        """
        last = Series(self.capacity, self.bucket)
        for position, iteration in enumerate(self.iterations):
            if iteration not in self.iterations[position + 1 : position + 2]:
                last.append(self.indices[position], iteration, self.values[position])
        if whole and len(last) > 1:
            newest, before = (self.iterations.count(last.iterations[position]) for position in (-1, -2))
            if newest < before:
                last.truncate_after(last.indices[-2])
        return last

    def share_since(self, other: Series) -> float:
        """Return the share of all iterations by which this series and an earlier copy of it differ in length."""
        if not self or not other:
            return float(len(self) != len(other))
        first, last = self.iterations[0], self.iterations[-1]
        return abs(last - other.iterations[-1]) / max(last - first, 1)

    def after(self, index: int, *, columns: int = 64) -> Series:
        """Return a series of what frames after `index` brought, the extremes alone where there is much."""
        thinned = Series(self.capacity, self.bucket)
        for point in self._part(bisect_right(self.indices, index)).thinned(columns):
            thinned.append(point.index, point.iteration, point.value)
        return thinned

    def _point(self, position: int) -> Point:
        return Point(self.indices[position], self.iterations[position], self.values[position])

    def copy(self) -> Series:
        """Return a copy, for another thread to read."""
        return self._part(0)

    def _part(self, start: int, end: int | None = None) -> Series:
        part = slice(start, end)
        return Series(self.capacity, self.bucket, self.indices[part], self.iterations[part], self.values[part])

    def append_between(self, other: Series, after: int, before: int) -> None:
        """Add the points that frames behind frame `after` and before frame `before` brought."""
        for point in other.points():
            if after < point.index < before:
                self.append(point.index, point.iteration, point.value)

    def _thin(self) -> None:
        """Keep the first, the last, and of each bucket of iterations the least and the greatest.

        Buckets are as small as fit in half of the capacity.
        """
        positions = self._thinned_positions()
        while len(positions) > self.capacity // 2:
            self.bucket *= 2
            positions = self._thinned_positions()
        self.indices = array("q", [self.indices[each] for each in positions])
        self.iterations = array("q", [self.iterations[each] for each in positions])
        self.values = array("d", [self.values[each] for each in positions])

    def _thinned_positions(self) -> list[int]:
        positions: list[int] = []
        for _, group in groupby(range(len(self)), key=lambda each: self.iterations[each] // self.bucket):
            bucket = list(group)
            positions += [bucket[each] for each in _extremes(self.values[bucket[0] : bucket[-1] + 1])]
        return sorted({0, *positions, len(self) - 1})


def _extremes(values: array[float]) -> list[int]:
    """Return the positions of the least and the greatest value."""
    if math.isnan(sum(values)):  # a NaN ranks above all: it is as worth seeing as any extreme
        ranks = [(math.isnan(value), 0.0 if math.isnan(value) else value) for value in values]
        return sorted({ranks.index(min(ranks)), ranks.index(max(ranks))})
    return sorted({values.index(min(values)), values.index(max(values))})


@dataclass(slots=True)
class Path:
    """Where two parameter values stood, frame by frame; empty for a model that has others. Thinned as it grows."""

    capacity: int = 2048
    indices: array[int] = field(default_factory=lambda: array("q"))  # of the frames that brought the points
    iterations: array[int] = field(default_factory=lambda: array("q"))  # that ended there
    xs: array[float] = field(default_factory=lambda: array("d"))
    ys: array[float] = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self.indices)

    def append(self, frame: Frame) -> None:
        """Add the point where a frame's two values stand, if that is another one than the last."""
        if sum(map(math.prod, frame.params.layout.shapes)) != 2:
            return
        values = [value for row in frame.params for value in row.values or ()]
        if len(values) == 2:
            self.extend([(frame.index, frame.iteration, values[0], values[1])])

    def extend(self, points: Iterable[tuple[int, int, float, float]]) -> None:
        """Add points, each with its frame and iteration in front, but for those that are where the last one is."""
        for index, iteration, x, y in points:
            if not self.indices or (x, y) != (self.xs[-1], self.ys[-1]):
                self.insert(index, iteration, x, y)

    def insert(self, index: int, iteration: int, x: float, y: float) -> None:
        """Add a point that frame `index` brought, behind those of the frames before it."""
        position = bisect_left(self.indices, index)
        for column, value in zip(self._columns(), (index, iteration, x, y), strict=True):
            column.insert(position, value)
        if len(self) > self.capacity:
            self._thin()

    def _thin(self) -> None:
        """Drop points that lie close to the one kept before them, so that what is left has the same shape."""
        distances = [math.hypot(x - u, y - v) for (u, v), (x, y) in pairwise(self.points())]
        spacing = 2 * sum(filter(math.isfinite, distances)) / self.capacity
        kept, last = [0], (self.xs[0], self.ys[0])
        for position, (x, y) in enumerate(self.points()):
            if math.hypot(x - last[0], y - last[1]) > spacing:
                kept.append(position)
                last = (x, y)
        kept = sorted({*kept[-self.capacity // 2 :], 0, len(self) - 1})
        for column in self._columns():
            column[:] = array(column.typecode, [column[each] for each in kept])

    def points(self) -> list[tuple[float, float]]:
        """Return the points, oldest first."""
        return list(zip(self.xs, self.ys, strict=True))

    def count(self, index: int) -> int:
        """Return how many points frames up to `index` have brought."""
        return bisect_right(self.indices, index)

    def truncate_after(self, index: int) -> None:
        """Drop the points that frames after `index` brought."""
        for column in self._columns()[1:]:
            del column[self.count(index) :]
        del self.indices[self.count(index) :]

    def copy(self) -> Path:
        """Return a copy for another thread to read."""
        return Path(self.capacity, *(column[:] for column in self._columns()))

    def _columns(self) -> tuple[array[Any], ...]:
        return self.indices, self.iterations, self.xs, self.ys


MISSING = -math.inf  # in a row of sizes, of a tensor that is not there or has no norm
RECENT_ROWS = 32  # that are never thinned, for trends
MAX_ROWS = 1024
MAX_ROW_VALUES = 1 << 16  # of all rows together, where that leaves enough of them


@dataclass(slots=True)
class SizeTable:
    """How large each of many tensors was, a row a frame: the value of one that has one alone, else its norm.

    Rows are shared between copies. The older ones are thinned evenly as they become too many.
    """

    spacing: int = 1  # iterations that share one of the older rows
    indices: array[int] = field(default_factory=lambda: array("q"))  # of the frames that brought the rows
    iterations: array[int] = field(default_factory=lambda: array("q"))
    rows: tuple[array[float], ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def values(self) -> int:
        """How many numbers there are in all rows."""
        return len(self.rows) * len(self.rows[0]) if self.rows else 0

    def append(self, index: int, iteration: int, sizes: array[float]) -> None:
        """Add a row that frame `index` brought."""
        self.indices.append(index)
        self.iterations.append(iteration)
        self.rows = (*self.rows, sizes)
        if len(self.rows) > self._capacity:
            self._thin()

    def sizes(self, tensors: Sequence[int]) -> list[float]:
        """Return how large some tensors were together, row by row: the norm over those that are there, or MISSING.

        Of one tensor alone that is its value, which has a sign, where it has only one.
        """
        if len(tensors) == 1:
            return [row[tensors[0]] for row in self.rows]
        return [_joint_norm(each) for each in self._picked(tensors)]

    def shares(self, wholes: SizeTable, tensors: Sequence[int]) -> Series:
        """Return the norm of some tensors here over that in another table with the same rows.

        Rows in which a tensor is missing are left out, and those whose whole is zero.
        """
        series = Series()
        pairs = zip(self._picked(tensors), wholes._picked(tensors), strict=True)
        for index, iteration, (parts, whole) in zip(self.indices, self.iterations, pairs, strict=True):
            norm = _joint_norm(whole)
            if MISSING not in parts and norm != MISSING and norm != 0:
                series.append(index, iteration, math.hypot(*parts) / norm if math.isfinite(norm) else math.nan)
        return series

    def _picked(self, tensors: Sequence[int]) -> Iterator[tuple[float, ...]]:
        """Yield the sizes of some tensors, row by row; 2,000 of them take no longer than a plot may."""
        if len(tensors) == 1:
            yield from ((row[tensors[0]],) for row in self.rows)
        else:
            yield from map(itemgetter(*tensors), self.rows)

    def series(self, tensors: Sequence[int]) -> Series:
        """Return what `sizes` does as a series, without the rows in which all are missing."""
        series = Series()
        for index, iteration, size in zip(self.indices, self.iterations, self.sizes(tensors), strict=True):
            if size != MISSING:
                series.append(index, iteration, size)
        return series

    def latest(self, index: int, rows: int) -> SizeTable:
        """Return a table of so many rows, the last one that of frame `index` or one before it."""
        end = bisect_right(self.indices, index)
        kept = slice(max(end - rows, 0), end)
        return SizeTable(self.spacing, self.indices[kept], self.iterations[kept], self.rows[kept])

    def truncate_after(self, index: int) -> None:
        """Drop the rows that frames after `index` brought."""
        count = bisect_right(self.indices, index)
        del self.iterations[count:], self.indices[count:]
        self.rows = self.rows[:count]

    def copy(self) -> SizeTable:
        """Return a copy for another thread to read."""
        return SizeTable(self.spacing, self.indices[:], self.iterations[:], self.rows)

    @property
    def _capacity(self) -> int:
        return min(max(MAX_ROW_VALUES // max(len(self.rows[-1]), 1), 2 * RECENT_ROWS), MAX_ROWS)

    def _thin(self) -> None:
        """Keep the newest rows, and of the older ones the first of each so many iterations."""
        kept = self._thinned_positions()
        while len(kept) > self._capacity * 3 // 4:
            self.spacing *= 2
            kept = self._thinned_positions()
        self.indices = array("q", [self.indices[each] for each in kept])
        self.iterations = array("q", [self.iterations[each] for each in kept])
        self.rows = tuple(self.rows[each] for each in kept)

    def _thinned_positions(self) -> list[int]:
        older = len(self) - RECENT_ROWS
        groups = [iteration // self.spacing for iteration in self.iterations[:older]]
        firsts = [each for each in range(older) if each == 0 or groups[each] != groups[each - 1]]
        return [*firsts, *range(older, len(self))]


def _joint_norm(sizes: tuple[float, ...]) -> float:
    if MISSING not in sizes:
        return math.hypot(*sizes)
    known = [size for size in sizes if size != MISSING]
    return math.hypot(*known) if known else MISSING


def _sizes(table: StatsTable) -> array[float]:
    """Return the value of each tensor that has one alone, the norm of any other; MISSING where there is neither."""
    layout, sizes = table.layout, table.column(NORM_COLUMN)
    for index in layout.unmeasurable:
        sizes[index] = MISSING
    if layout.single:
        values = table.column(FIRST_VALUE_COLUMN)
        for index in layout.single:
            value = values[index]
            sizes[index] = abs(value) if math.isinf(value) else value
    return sizes


def _grad_sizes(grads: Grads) -> array[float]:
    held = iter(_sizes(grads.table))
    return array("d", [next(held) if backwards else MISSING for backwards in grads.backwards])


def _moves_parameters(frame: Frame) -> bool:
    """Return whether the frame's own command has moved parameters, or it is the first frame."""
    return frame.index == 0 or (frame.command is not None and frame.command == frame.mover and not frame.error)


def _changes_group_rate(frame: Frame) -> bool:
    """Return whether the command has changed the learning rate of some group, perhaps not that of the first."""
    if frame.groups is None or frame.command is None or frame.error:
        return False
    scheduled = frame.phase is Phase.STEP and frame.step_rates != frame.learning_rates
    return scheduled or frame.command.kind == "lr"


@dataclass(slots=True)
class History:
    """Loss, gradient norm and metrics by iteration, where a learning rate changed, and sizes of each parameter.

    A free run brings all losses and changes of the learning rate, and the rest at its frames alone.
    """

    loss: Series = field(default_factory=Series)
    grad_norm: Series = field(default_factory=Series)
    learning_rate: Series = field(default_factory=Series)  # its changes alone, the first at frame 0
    metrics: dict[str, Series] = field(default_factory=dict)
    path: Path = field(default_factory=Path)
    grads: SizeTable = field(default_factory=SizeTable)  # after each backward, one a parameter
    params: SizeTable = field(default_factory=SizeTable)  # at first, and after all that moved some
    moves: SizeTable = field(default_factory=SizeTable)  # norms of what each step changed
    starts: SizeTable = field(default_factory=SizeTable)  # the parameters before each of these steps

    def plotted(self, name: str) -> Series:
        """Return the series that a plot calls so: "loss", "grad" or a metric; an empty one where there is none."""
        return {**self.metrics, "loss": self.loss, "grad": self.grad_norm}.get(name) or Series()

    @property
    def last_loss(self) -> float | None:
        """The newest loss."""
        return self.loss.values[-1] if self.loss.values else None

    def is_of(self, params: int) -> bool:
        """Return whether the sizes are those of so many parameters."""
        tables = (self.grads, self.params, self.moves, self.starts)
        return all(len(row) == params for table in tables for row in table.rows[:1])

    def updates(self, params: Sequence[int]) -> Series:
        """Return the norm of what each step changed of some parameters together, over their norm before it."""
        return self.moves.shares(self.starts, params)

    def append(self, frame: Frame) -> None:
        """Add the points of a new frame."""
        name = None if frame.command is None or frame.error else frame.command.name
        if name == "forward" and frame.loss is not None:
            self.loss.append(frame.index, frame.iteration, frame.loss)
        for metric, value in frame.metrics if name == "forward" else ():
            self.metrics.setdefault(metric, Series()).append(frame.index, frame.iteration, value)
        norm = frame.grads.norm() if name == "backward" else None  # None too where it would leave a gradient out
        if norm is not None:
            self.grad_norm.append(frame.index, frame.iteration, norm)
        if not self.learning_rate or self.learning_rate.values[-1] != frame.learning_rate or _changes_group_rate(frame):
            self.learning_rate.append(frame.index, frame.iteration, frame.learning_rate)
        if len(frame.params) <= 2:
            self.path.append(frame)
        self._append_sizes(name, frame)

    def _append_sizes(self, name: str | None, frame: Frame) -> None:
        """Add what is known of each parameter."""
        if name == "backward":
            self.grads.append(frame.index, frame.iteration, _grad_sizes(frame.grads))
        if _moves_parameters(frame):
            self.params.append(frame.index, frame.iteration, _sizes(frame.params))
        if name == "step" and frame.move_norms is not None and frame.before is not None:
            moves = array("d", [MISSING if norm is None else norm for norm in frame.move_norms])
            self.moves.append(frame.index, frame.iteration, moves)
            self.starts.append(frame.index, frame.iteration, _sizes(frame.before))

    def truncate_after(self, index: int) -> None:
        """Drop what frames after `index` brought."""
        for series in (self.loss, self.grad_norm, self.learning_rate, *self.metrics.values()):
            series.truncate_after(index)
        for table in (self.path, self.grads, self.params, self.moves, self.starts):
            table.truncate_after(index)

    def copy(self) -> History:
        """Return a copy, for another thread to read."""
        metrics = {name: series.copy() for name, series in self.metrics.items()}
        sizes = (self.grads.copy(), self.params.copy(), self.moves.copy(), self.starts.copy())
        return History(
            self.loss.copy(), self.grad_norm.copy(), self.learning_rate.copy(), metrics, self.path.copy(), *sizes
        )
