"""The columns that plots need, thinned as they grow."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from itertools import groupby

from autograd_tui.engine.frame import Frame


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

    def append(self, frame: Frame, value: float) -> None:
        """Add a point that `frame` brought."""
        self.indices.append(frame.index)
        self.iterations.append(frame.iteration)
        self.values.append(value)
        if len(self) > self.capacity:
            self._thin()

    def forget_after(self, index: int) -> None:
        """Drop what frames after `index` brought."""
        while self.indices and self.indices[-1] > index:
            for column in (self.indices, self.iterations, self.values):
                column.pop()

    def points(self) -> list[Point]:
        """Give the points in order, oldest first."""
        columns = zip(self.indices, self.iterations, self.values, strict=True)
        return [Point(*point) for point in columns]

    def copy(self) -> Series:
        """Give a column of its own, for another thread to read."""
        return Series(self.capacity, self.stretch, self.indices[:], self.iterations[:], self.values[:])

    def _thin(self) -> None:
        """Keep the first, the last, and of each stretch of iterations the least and the greatest.

        Stretches are as short as fit in half of the capacity.
        """
        kept = self._extremes()
        while len(kept) > self.capacity // 2:
            self.stretch *= 2
            kept = self._extremes()
        self.indices = array("q", [self.indices[each] for each in kept])
        self.iterations = array("q", [self.iterations[each] for each in kept])
        self.values = array("d", [self.values[each] for each in kept])

    def _extremes(self) -> list[int]:
        kept: list[int] = []
        for _, group in groupby(range(len(self)), key=lambda each: self.iterations[each] // self.stretch):
            positions = list(group)
            kept += sorted({min(positions, key=self._rank), max(positions, key=self._rank)})
        return sorted({0, *kept, len(self) - 1})

    def _rank(self, position: int) -> tuple[bool, float]:
        value = self.values[position]  # a NaN ranks above all: it is as worth seeing as any extreme
        return (value != value, 0.0 if value != value else value)


@dataclass(slots=True)
class History:
    """Loss and gradient norm by iteration, and where the learning rate changed."""

    loss: Series = field(default_factory=Series)
    grad_norm: Series = field(default_factory=Series)
    learning_rate: Series = field(default_factory=Series)  # its changes alone, the first at frame 0

    def append(self, frame: Frame) -> None:
        """Take in what a new frame brought."""
        name = None if frame.command is None or frame.error else frame.command.name
        if name == "forward" and frame.loss is not None:
            self.loss.append(frame, frame.loss)
        norm = frame.grads.norm() if name == "backward" else None
        if norm is not None:
            self.grad_norm.append(frame, norm)
        if not self.learning_rate or self.learning_rate.values[-1] != frame.learning_rate:
            self.learning_rate.append(frame, frame.learning_rate)

    def forget_after(self, index: int) -> None:
        """Drop what frames after `index` brought."""
        for series in (self.loss, self.grad_norm, self.learning_rate):
            series.forget_after(index)

    def copy(self) -> History:
        """Give a history of its own, for another thread to read."""
        return History(self.loss.copy(), self.grad_norm.copy(), self.learning_rate.copy())
