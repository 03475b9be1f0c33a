"""The loss over two values of the parameters, all else held still."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from math import hypot, isfinite
from typing import Literal

from autograd_tui.core.history import Path
from autograd_tui.core.run_observer import Progress

ROWS, COLUMNS = 48, 64  # of the grid on which the loss of a model with two values is measured

# What a surface is wanted over: two values, as a command sets them ("w", "weight[0,1]"); "usual": a model's only two
# values, or else the plane of the last step and a random direction; "off": none is to be shown.
SurfaceChoice = tuple[str, str] | Literal["usual", "off"]


@dataclass(frozen=True, slots=True)
class Quadratic:
    """The second-order model of a loss at its lowest point, in float64; for a mean squared error it is the loss."""

    x: float  # where the loss is lowest
    y: float
    loss: float  # there
    xx: float  # the Hessian
    xy: float
    yy: float
    exact: bool  # whether the loss has the same Hessian everywhere, as far as was measured

    @property
    def max_curvature(self) -> float:
        """The largest eigenvalue of the Hessian."""
        return (self.xx + self.yy) / 2 + hypot((self.xx - self.yy) / 2, self.xy)

    def critical_lr(self, momentum: float = 0.0) -> float:
        """Return the learning rate from which gradient descent leaves the lowest point: 2 (1 + momentum) / curvature.

        Source: Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
        """
        return 2 * (1 + momentum) / self.max_curvature

    def loss_at(self, x: float, y: float) -> float:
        """Return the loss of this model at a point."""
        across, up = x - self.x, y - self.y
        return self.loss + (self.xx * across * across + 2 * self.xy * across * up + self.yy * up * up) / 2

    def best_x(self, y: float) -> float:
        """Return the x at which the loss is lowest for a fixed y."""
        return self.x - self.xy / self.xx * (y - self.y)


@dataclass(frozen=True, slots=True, eq=False)
class LossSurface:
    """Losses on a grid of `rows` x `columns` points, evaluated by the model's own forward on a copy."""

    names: tuple[str, str]  # of what x and y are: values as a command sets them ("w", "weight[0,1]"), or directions
    x: tuple[float, float]  # the value at the first column, and at the last
    y: tuple[float, float]  # at the first row, and at the last
    losses: array[float]  # row by row, float64; NaN where the loss is none, and in rows that are not measured yet
    quadratic: Quadratic | None  # None where no lowest point was found
    rows: int = ROWS
    columns: int = COLUMNS
    measured_rows: int = ROWS  # those after them are to come
    frame: int | None = None  # at which all other parameters are held still; None where there are no others
    path: Path | None = None  # where training stood on it, as far as that was seen; None: the history has it
    is_followed: bool = True  # whether the path goes on as training does

    def contains(self, x: float, y: float) -> bool:
        """Return whether a point lies within the grid."""
        return self.x[0] <= x <= self.x[1] and self.y[0] <= y <= self.y[1]

    @property
    def lowest(self) -> tuple[float, float] | None:
        """Where the loss is lowest: at the quadratic's lowest point, or else at the lowest point that was measured."""
        if self.quadratic is not None:
            return self.quadratic.x, self.quadratic.y
        finite = [(loss, index) for index, loss in enumerate(self.losses) if isfinite(loss)]
        if not finite:
            return None
        row, column = divmod(min(finite)[1], self.columns)
        x, y = self.x, self.y
        across, up = column / (self.columns - 1), row / (self.rows - 1)
        return x[0] + (x[1] - x[0]) * across, y[0] + (y[1] - y[0]) * up


def given_up_sentence(progress: Progress, *, is_complete: bool) -> str:
    """Return what is said where a surface is measured no further. `progress`: in its present grid."""
    points = f"{progress.done:,} of {progress.of:,} points"
    if is_complete:
        return f"the surface stays as it is: {points} of its next, finer grid are measured."
    return f"the surface was given up after {points}."
