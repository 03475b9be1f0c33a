"""A picture of what a model has learned: rows of text, texts beside each other, points, or a plane of values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import StatsTable

Point = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """Values from 0 to 1 over two inputs, such as the probability of the second of two classes, with points on it.

    values: a tensor, an array or lists of shape (rows, columns): the first row belongs to the lower end of `y`, the
    first column to the lower end of `x`. points: by name, each a list of (x, y), drawn as `o`, `x`, `*` in turn.
    classes: the first two names are the classes below and above 0.5, and points on the wrong side become `O` and `X`.
    """

    values: Any
    x: tuple[float, float]
    y: tuple[float, float]
    points: Mapping[str, Any] = field(default_factory=dict)
    classes: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """What a scenario's picture function gave for the parameters of one frame, as plain values; one field is filled."""

    index: int  # of the frame
    steps: int  # optimizer steps before it
    params: StatsTable
    buffers: StatsTable
    rows: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    points: Mapping[str, tuple[Point, ...]] = field(default_factory=dict)
    plane: Plane | None = None  # of plain lists
    problem: str = ""  # a sentence, where there is no picture

    def is_of(self, frame: Frame) -> bool:
        """Return whether the model of a frame has the same values, as far as they were measured."""
        return self.steps == frame.steps and self.params == frame.params and self.buffers == frame.buffers
