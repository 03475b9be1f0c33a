"""The columns that plots need, thinned as they grow."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from math import isnan

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a plot."""

    index: int  # of the frame that brought it
    iteration: int
    value: float


@dataclass(slots=True)
class Series:
    """One column: every point is a real one, and thinning keeps each stretch's least and greatest."""

    capacity: int = 4096
    stretch: int = 1  # iterations that share one pair of extremes, once thinned
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

    def extend(self, values: array[float], *, index: int, iteration: int, spacing: int) -> None:
        """Add a point for each iteration from `iteration` on; their frames, from `index` on, are `spacing` apart."""
        place = 0
        while place < len(values):
            # Of those that share a stretch, what thinning would keep.
            end = min(place + self.stretch - (iteration + place) % self.stretch, len(values))
            kept = {place + each for each in _extremes(values[place:end])} | (
                {end - 1} if end == len(values) else set()
            )
            for each in sorted(kept):
                self.indices.append(index + each * spacing)
                self.iterations.append(iteration + each)
                self.values.append(values[each])
            place = end
            if len(self) > self.capacity:
                self._thin()

    def truncate_after(self, index: int) -> None:
        """Drop what frames after `index` brought."""
        while self.indices and self.indices[-1] > index:
            for column in (self.indices, self.iterations, self.values):
                column.pop()

    def points(self) -> list[Point]:
        """Give the points in order, oldest first."""
        columns = zip(self.indices, self.iterations, self.values, strict=True)
        return [Point(*point) for point in columns]

    def at(self, index: int) -> Point | None:
        """Give the newest point that frame `index` or one before it brought."""
        place = bisect_right(self.indices, index) - 1
        return self._point(place) if place >= 0 else None

    def thinned(self, columns: int) -> list[Point]:
        """Give points for a plot: the least and the greatest of each column, the newest, and all where they are few."""
        if len(self) <= columns * 2:
            return self.points()
        first, width = self.iterations[0], (self.iterations[-1] - self.iterations[0]) / columns
        bounds = [bisect_left(self.iterations, first + column * width) for column in range(columns)]
        kept = {len(self) - 1}
        for start, end in pairwise([*bounds, len(self)]):
            kept.update(start + each for each in (_extremes(self.values[start:end]) if start < end else ()))
        return [self._point(place) for place in sorted(kept)]

    def share_since(self, other: Series) -> float:
        """Give the share of all iterations by which this column and an earlier copy of it differ in length."""
        if not self or not other:
            return float(len(self) != len(other))
        first, last = self.iterations[0], self.iterations[-1]
        return abs(last - other.iterations[-1]) / max(last - first, 1)

    def after(self, index: int, *, columns: int = 64) -> Series:
        """Give a column of what frames after `index` brought, the extremes alone where there is much."""
        place = bisect_right(self.indices, index)
        rest = Series(self.capacity, self.stretch, self.indices[place:], self.iterations[place:], self.values[place:])
        found = Series(self.capacity, self.stretch)
        for point in rest.thinned(columns):
            found.append(point.index, point.iteration, point.value)
        return found

    def _point(self, place: int) -> Point:
        return Point(self.indices[place], self.iterations[place], self.values[place])

    def copy(self) -> Series:
        """Give a column of its own, for another thread to read."""
        return Series(self.capacity, self.stretch, self.indices[:], self.iterations[:], self.values[:])

    def _thin(self) -> None:
        """Keep the first, the last, and of each stretch of iterations the least and the greatest.

        Stretches are as short as fit in half of the capacity.
        """
        kept = self._kept()
        while len(kept) > self.capacity // 2:
            self.stretch *= 2
            kept = self._kept()
        self.indices = array("q", [self.indices[each] for each in kept])
        self.iterations = array("q", [self.iterations[each] for each in kept])
        self.values = array("d", [self.values[each] for each in kept])

    def _kept(self) -> list[int]:
        kept: list[int] = []
        for _, group in groupby(range(len(self)), key=lambda each: self.iterations[each] // self.stretch):
            places = list(group)
            kept += [places[each] for each in _extremes(self.values[places[0] : places[-1] + 1])]
        return sorted({0, *kept, len(self) - 1})


def _extremes(values: array[float]) -> list[int]:
    """Give the places of the least and the greatest value."""
    if isnan(sum(values)):  # a NaN ranks above all: it is as worth seeing as any extreme
        ranks = [(isnan(value), 0.0 if isnan(value) else value) for value in values]
        return sorted({ranks.index(min(ranks)), ranks.index(max(ranks))})
    return sorted({values.index(min(values)), values.index(max(values))})


def _other_group(frame: Frame) -> bool:
    """Tell whether the command has changed the learning rate of some group, be it not that of the first."""
    if frame.groups is None or frame.command is None or frame.error:
        return False
    scheduled = frame.phase is Phase.STEP and frame.step_rates != frame.learning_rates
    return scheduled or frame.command.kind == "lr"


@dataclass(slots=True)
class History:
    """Loss, gradient norm and metrics by iteration, and where a learning rate changed."""

    loss: Series = field(default_factory=Series)
    grad_norm: Series = field(default_factory=Series)
    learning_rate: Series = field(default_factory=Series)  # its changes alone, the first at frame 0
    metrics: dict[str, Series] = field(default_factory=dict)  # a free run fills them in at its frames alone

    def plotted(self, name: str) -> Series:
        """Give the column that a plot calls so: "loss", "grad" or a metric; an empty one where there is none."""
        return {**self.metrics, "loss": self.loss, "grad": self.grad_norm}.get(name) or Series()

    @property
    def last_loss(self) -> float | None:
        """Give the newest loss."""
        return self.loss.values[-1] if self.loss.values else None

    def append(self, frame: Frame) -> None:
        """Take in what a new frame brought."""
        name = None if frame.command is None or frame.error else frame.command.name
        if name == "forward" and frame.loss is not None:
            self.loss.append(frame.index, frame.iteration, frame.loss)
        for metric, value in frame.metrics if name == "forward" else ():
            self.metrics.setdefault(metric, Series()).append(frame.index, frame.iteration, value)
        norm = frame.grads.norm() if name == "backward" else None  # None too where it would leave a gradient out
        if norm is not None:
            self.grad_norm.append(frame.index, frame.iteration, norm)
        if not self.learning_rate or self.learning_rate.values[-1] != frame.learning_rate or _other_group(frame):
            self.learning_rate.append(frame.index, frame.iteration, frame.learning_rate)

    def truncate_after(self, index: int) -> None:
        """Drop what frames after `index` brought."""
        for series in (self.loss, self.grad_norm, self.learning_rate, *self.metrics.values()):
            series.truncate_after(index)

    def copy(self) -> History:
        """Give a history of its own, for another thread to read."""
        metrics = {name: series.copy() for name, series in self.metrics.items()}
        return History(self.loss.copy(), self.grad_norm.copy(), self.learning_rate.copy(), metrics)
