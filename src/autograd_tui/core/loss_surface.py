"""The loss over two values of the parameters, all else held still."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from math import hypot

ROWS, COLUMNS = 48, 64  # of the grid on which the loss is measured


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

    def best_x(self, y: float) -> float:
        """Return the x at which the loss is lowest for a fixed y."""
        return self.x - self.xy / self.xx * (y - self.y)

    def best_y(self, x: float) -> float:
        """Return the y at which the loss is lowest for a fixed x."""
        return self.y - self.xy / self.yy * (x - self.x)


@dataclass(frozen=True, slots=True, eq=False)
class LossSurface:
    """Losses on a grid of ROWS x COLUMNS, evaluated by the model's own forward on a copy."""

    names: tuple[str, str]  # of the values along x and y, as a command sets them: "w", "weight[0,1]"
    x: tuple[float, float]  # the value at the first column, and at the last
    y: tuple[float, float]  # at the first row, and at the last
    losses: array[float]  # row by row, float64; NaN where the loss is none
    quadratic: Quadratic | None  # None where no lowest point was found

    def contains(self, x: float, y: float) -> bool:
        """Return whether a point lies within the grid."""
        return self.x[0] <= x <= self.x[1] and self.y[0] <= y <= self.y[1]
