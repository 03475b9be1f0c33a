"""Measures the loss over two parameter values, on a copy of the model: nothing of the run moves."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import TextIOBase
from itertools import product
from math import ceil, floor, hypot, isfinite, log10, nan, prod
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.core.errors import Refused
from autograd_tui.core.history import Path
from autograd_tui.core.loss_surface import COLUMNS, ROWS, LossSurface, Quadratic
from autograd_tui.core.tensor_stats import StatsLayout
from autograd_tui.engine.gradcheck.float64_copy import Float64Copy
from autograd_tui.engine.training.state import TrainingState
from autograd_tui.engine.training.trainer import Trainer

Point = tuple[float, float]
MAX_REACH = 8  # times the way from the first point to the lowest: what is farther away is not shown
MARGIN = 0.2  # on each side of what must be seen, as a share of its extent
MAX_NEWTON_ITERATIONS = 20
DIFFERENCE = 1e-3  # of finite differences in float64, times the value where that is above 1
SAME_HESSIAN = 1e-5  # relative difference up to which two Hessians are taken for the same one


def two_values(layout: StatsLayout) -> tuple[str, str] | None:
    """Return the names of a model's only two parameter values, as a command sets them; None where it has others."""
    if sum(map(prod, layout.shapes)) != 2 or not all(layout.ordinary(index) for index in range(len(layout.names))):
        return None
    named = zip(layout.names, layout.shapes, strict=True)
    names = [
        name if prod(shape) == 1 else f"{name}[{','.join(map(str, index))}]"
        for name, shape in named
        for index in product(*map(range, shape))
    ]
    return names[0], names[1]


class SurfaceSampler:
    """Measures the surface of a model with two parameter values, and keeps it until the data or the range change."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._surface: LossSurface | None = None
        self._batch: Any = None  # that it was measured with
        self._refused = False

    def surface(self, path: Path, stopped: Callable[[], bool]) -> LossSurface | None:
        """Return the surface over a path; the last one, or None, where `stopped` holds before another is measured.

        `stopped` is asked before each row. None too where the model has other parameters, or cannot be copied.
        """
        names = two_values(self._trainer.frame.params.layout)
        if names is None or self._refused or not path:
            return None
        with self._trainer.borrow_state() as state:
            shown = _near(path.points(), self._surface)
            if self._surface is None or not self._fits(shown, state.batch):
                try:
                    measured = _sample(state, names, shown, stopped)
                except Refused:
                    self._refused = True
                    return None
                if measured is not None:
                    self._surface, self._batch = measured, state.batch
        return self._surface

    def _fits(self, shown: Sequence[Point], batch: Any) -> bool:
        """Return whether the surface is of a batch, and all that must be shown is on it."""
        assert self._surface is not None
        on_it = all(self._surface.contains(*point) for point in shown)
        return on_it and (batch is None or self._batch is None or _same(batch, self._batch))


def _near(points: Sequence[Point], surface: LossSurface | None) -> list[Point]:
    """Return the points of a path that are to be shown: a run that diverges leaves the map."""
    x, y = points[0]
    lowest = surface.quadratic if surface else None
    reach = MAX_REACH * max(hypot(x - lowest.x, y - lowest.y) if lowest else hypot(x, y), 1.0)
    return [point for point in points if hypot(point[0] - x, point[1] - y) <= reach]


def _same(one: Any, other: Any) -> bool:
    """Return whether two batches hold the same values."""
    if one is other:
        return True
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and bool(torch.equal(one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(one) == len(other) and all(map(_same, one, other))
    return False


def _sample(
    state: TrainingState, names: tuple[str, str], shown: Sequence[Point], stopped: Callable[[], bool]
) -> LossSurface | None:
    """Measure the loss of the last forward's batch, or the first one's, around points, and where it is lowest.

    Use it inside the state's `global_state`, which is left as it was. Raises Refused where the model cannot be copied.
    """
    snapshot = state.global_state.exact_snapshot()
    silence = _Silence()  # a forward that prints would print some thousand times
    try:
        with redirect_stdout(silence), redirect_stderr(silence):
            quadratic = _lowest(state, names, shown[-1])
            corners = [*shown, (quadratic.x, quadratic.y)] if quadratic else list(shown)
            x, y = (_span([corner[axis] for corner in corners]) for axis in (0, 1))
            losses = _grid(_LossOf(state, names, dtype=None), x, y, stopped)
    finally:
        state.global_state.restore(snapshot)
    return None if losses is None else LossSurface(names, x, y, losses, quadratic)


class _LossOf:
    """The loss of a copy of the model as a function of two parameter values; NaN where there is none."""

    def __init__(self, state: TrainingState, names: tuple[str, str], *, dtype: torch.dtype | None) -> None:
        self._copy = Float64Copy(state, dtype=dtype, before=lambda: None, batch=state.batch)
        self._places = [_place(self._copy.params, name) for name in names]
        self._repeats = False
        if dtype is None:
            self._repeats = self._is_repeatable(self._at())

    def __call__(self, x: float, y: float) -> float:
        with torch.no_grad():
            for (param, index), value in zip(self._places, (x, y), strict=True):
                param[index] = value
            try:
                return self._copy.loss_as_is() if self._repeats else float(self._copy.loss().item())
            except Exception:
                return nan

    def put_back(self) -> None:
        """Put back what the forwards have left in Python objects that the copy shares with the run."""
        self._copy.restore()

    def _at(self) -> Point:
        x, y = (float(param[index].item()) for param, index in self._places)
        return x, y

    def _is_repeatable(self, at: Point) -> bool:
        """Return whether the forward gives the same without anything put back before it: no buffer, no noise."""
        points = [at, (at[0] + 1.0, at[1] - 1.0)]
        expected = [self(*point) for point in points]
        noise = torch.get_rng_state()
        self._repeats = True
        repeated = [self(*point) for point in (*points, *points)]
        return repeated == expected * 2 and bool(torch.equal(noise, torch.get_rng_state()))


def _place(params: dict[str, nn.Parameter], name: str) -> tuple[nn.Parameter, tuple[int, ...]]:
    """Return a parameter and the index of one of its values, of a name such as "w" or "weight[0,1]"."""
    param, bracket, index = name.partition("[")
    found = params[param]
    return found, tuple(map(int, index.rstrip("]").split(","))) if bracket else (0,) * found.dim()


def _grid(
    loss: _LossOf, x: tuple[float, float], y: tuple[float, float], stopped: Callable[[], bool]
) -> array[float] | None:
    losses = array("d")
    xs = [x[0] + (x[1] - x[0]) * column / (COLUMNS - 1) for column in range(COLUMNS)]
    try:
        for row in range(ROWS):
            if stopped():
                return None
            height = y[0] + (y[1] - y[0]) * row / (ROWS - 1)
            losses.extend(loss(each, height) for each in xs)
    finally:
        loss.put_back()
    return losses


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Return a range with round ends that holds the finite ones of some values, with a margin."""
    finite = [value for value in values if isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    margin = (high - low) * MARGIN or max(abs(high), 1.0)
    tick = 10 ** floor(log10(margin)) / 2
    return floor((low - margin) / tick) * tick, ceil((high + margin) / tick) * tick


def _lowest(state: TrainingState, names: tuple[str, str], start: Point) -> Quadratic | None:
    """Find the lowest point by Newton's method on a float64 copy; None where it does not come to one."""
    try:
        loss = _LossOf(state, names, dtype=torch.float64)
    except Refused:
        return None
    try:
        return _newton(loss, start)
    finally:
        loss.put_back()


def _newton(loss: Callable[[float, float], float], start: Point) -> Quadratic | None:
    """Minimize a function of two variables; its derivatives are central differences."""
    x, y = start
    first: tuple[float, float, float] | None = None
    for _ in range(MAX_NEWTON_ITERATIONS):
        here, (gx, gy), (xx, xy, yy) = _derivatives(loss, x, y)
        first = first or (xx, xy, yy)
        determinant = xx * yy - xy * xy
        if not (isfinite(here) and isfinite(determinant) and xx > 0 and determinant > 1e-9 * max(xx, yy) ** 2):
            return None
        dx, dy = (xy * gy - yy * gx) / determinant, (xy * gx - xx * gy) / determinant
        if hypot(dx, dy) <= 1e-6 * max(1.0, hypot(x, y)):
            same = all(
                abs(now - then) <= SAME_HESSIAN * (abs(xx) + abs(yy))
                for now, then in zip((xx, xy, yy), first, strict=True)
            )
            return Quadratic(x + dx, y + dy, loss(x + dx, y + dy), xx, xy, yy, exact=same)
        scale = 1.0
        while not loss(x + scale * dx, y + scale * dy) < here:
            scale /= 2
            if scale < 1e-6:
                return None
        x, y = x + scale * dx, y + scale * dy
    return None


def _derivatives(
    loss: Callable[[float, float], float], x: float, y: float
) -> tuple[float, Point, tuple[float, float, float]]:
    """Return a function's value, gradient and Hessian (xx, xy, yy), by central differences."""
    h, k = (DIFFERENCE * max(1.0, abs(value)) for value in (x, y))
    here, left, right, below, above = loss(x, y), loss(x - h, y), loss(x + h, y), loss(x, y - k), loss(x, y + k)
    diagonal = loss(x + h, y + k) - loss(x + h, y - k) - loss(x - h, y + k) + loss(x - h, y - k)
    gradient = (right - left) / (2 * h), (above - below) / (2 * k)
    return here, gradient, ((right - 2 * here + left) / h**2, diagonal / (4 * h * k), (above - 2 * here + below) / k**2)


class _Silence(TextIOBase):
    """Takes what is printed, and keeps nothing of it."""

    def write(self, text: str) -> int:
        return len(text)
