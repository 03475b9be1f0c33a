"""Measures the loss surfaces that a screen shows, on a copy of the model: nothing of the run moves."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from itertools import product
from math import ceil, floor, hypot, isfinite, log10, prod
from typing import Any

import torch
from torch import Tensor

from autograd_tui.core.errors import Refused
from autograd_tui.core.frame_store import Branch
from autograd_tui.core.history import Path
from autograd_tui.core.loss_surface import COLUMNS, ROWS, LossSurface, Quadratic, SurfaceChoice, given_up_sentence
from autograd_tui.core.replay_check import ReplayChecker
from autograd_tui.core.run_observer import Interrupted, Progress
from autograd_tui.core.tensor_stats import StatsLayout
from autograd_tui.engine.replay.replayer import Replayer
from autograd_tui.engine.surface_slice import Axes, LossAt, PlaneAxes, Point, SurfaceSlice, ValueAxes, last_step
from autograd_tui.engine.training.interruption import Interrupt, Uninterrupted, interruptible
from autograd_tui.engine.training.state import TrainingState
from autograd_tui.engine.training.trainer import Trainer
from autograd_tui.engine.training.user_code import Silence, place_of

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
    """Measures the surface of a model with two parameter values, and of any model those that are asked for.

    The first is kept until the data or the range change, one that was asked for until another is.
    """

    def __init__(self, trainer: Trainer, replayer: Replayer, checker: Callable[[], ReplayChecker]) -> None:
        """`checker` makes one for what has to run again."""
        self._trainer, self._replayer, self._checker = trainer, replayer, checker
        self._surface: LossSurface | None = None
        self._batch: Any = None  # that it was measured with
        self._refused = False
        self._off = False
        self._slice: SurfaceSlice | None = None  # that was asked for

    def choose(self, choice: SurfaceChoice, branch: Branch | None) -> None:
        """Begin with the surface that is asked for; raises Refused where there is none.

        branch: the run that was left last.
        """
        only_values = two_values(self._trainer.frame.params.layout)
        if choice == "off" or (only_values and (choice == "usual" or set(choice) == set(only_values))):
            self._off, self._slice = choice == "off", None
            return
        step = last_step(self._trainer, self._replayer, self._checker()) if choice == "usual" else None
        with self._trainer.borrow_state() as state, silenced():
            if step is not None:
                plane = PlaneAxes(state, step)
                axes: Axes = plane
                path = plane.path_of(step)
            else:
                assert isinstance(choice, tuple)
                axes, path = ValueAxes(state, choice), None

            def begin() -> SurfaceSlice:
                loss = LossAt(state, axes.mover, axes.origin, dtype=None)
                return SurfaceSlice(axes, loss, self._trainer.frame.index, branch=branch, path=path)

            try:
                wanted = interruptible(begin)
            except Interrupt as error:
                raise Interrupted(f"the surface was interrupted{place_of(error)}.") from error
        self._off, self._slice = False, wanted

    def give_up(self) -> str | None:
        """Measure no further; return a sentence about what there is, or None where nothing was being measured."""
        wanted = self._slice
        if wanted is None or wanted.finished:
            return None
        if wanted.complete:
            wanted.finished = True
        else:
            self._slice, self._off = None, True
        return given_up_sentence(wanted.progress, is_complete=wanted.complete)

    def so_far(self, *, newest: int, branch: Branch | None) -> LossSurface | None:
        """Return what there is, with where training stands on it.

        newest: the index of the present branch's last frame. branch: the run that was left last.
        """
        if self._off or self._slice is None:
            return None if self._off else self._surface
        wanted = self._slice
        wanted.see(self._trainer.state, self._trainer.frame, newest=newest, branch=branch)
        return wanted.surface

    def surface(
        self,
        path: Path,
        stopped: Callable[[], bool],
        watch: Callable[[Progress], None],
    ) -> LossSurface | None:
        """Return the surface of a model with two values; measure on at the one that was asked for, and return None.

        path: that is to be on the first. `stopped` is asked before each row, or each point of a surface that was asked
        for, behind which `watch` is called. None where there is none, or the model cannot be copied.
        """
        if self._off:
            return None
        if self._slice is not None:
            if not self._slice.finished:
                self._advance(self._slice, stopped, watch)
            return None
        names = two_values(self._trainer.frame.params.layout)
        if names is None or self._refused or not path:
            return None
        with self._trainer.borrow_state() as state:
            if self._surface is None or not self._fits(path, state.batch):
                shown = _near(path.points(), self._surface)
                try:
                    measured = interruptible(lambda: _sample(state, names, shown, stopped))
                except (Refused, Interrupt):
                    self._refused = True
                    return None
                if measured is not None:
                    self._surface, self._batch = measured, state.batch
        return self._surface

    def _advance(self, wanted: SurfaceSlice, stopped: Callable[[], bool], watch: Callable[[Progress], None]) -> None:
        """Measure on; where `interrupt` has ended that, there is no further point."""

        def report(progress: Progress) -> None:
            with Uninterrupted():
                watch(progress)

        with self._trainer.borrow_state(), silenced(), suppress(Interrupt):
            interruptible(lambda: wanted.advance(stopped, report))

    def _fits(self, path: Path, batch: Any) -> bool:
        """Return whether the surface is of a batch, and all that must be shown of a path is on it."""
        surface = self._surface
        assert surface is not None
        on_it = is_whole_on(path, surface) or all(surface.contains(*point) for point in _near(path.points(), surface))
        return on_it and (batch is None or self._batch is None or _same(batch, self._batch))


def is_whole_on(path: Path, surface: LossSurface) -> bool:
    """Return whether a whole path is on a surface, as it is in most runs; its ends in each direction say so."""
    columns = path.xs, path.ys
    finite = all(isfinite(sum(column)) for column in columns)  # else there may be a NaN, which has no order
    return finite and all(surface.contains(*map(end, columns)) for end in (min, max))


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
    axes = ValueAxes(state, names)
    with silenced():
        quadratic = _lowest(state, axes, shown[-1])
        corners = [*shown, (quadratic.x, quadratic.y)] if quadratic else list(shown)
        x, y = (_span([corner[axis] for corner in corners]) for axis in (0, 1))
        losses = _grid(LossAt(state, axes.mover, axes.origin, dtype=None), x, y, stopped)
    return None if losses is None else LossSurface(names, x, y, losses, quadratic)


def _grid(
    loss: LossAt, x: tuple[float, float], y: tuple[float, float], stopped: Callable[[], bool]
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


def _lowest(state: TrainingState, axes: ValueAxes, start: Point) -> Quadratic | None:
    """Find the lowest point by Newton's method on a float64 copy; None where it does not come to one."""
    try:
        loss = LossAt(state, axes.mover, axes.origin, dtype=torch.float64)
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


@contextmanager
def silenced() -> Iterator[None]:
    """Keep nothing of what is printed: a forward that prints would do so some thousand times."""
    silence = Silence()
    with redirect_stdout(silence), redirect_stderr(silence):
        yield
