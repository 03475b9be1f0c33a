"""Measures the loss on a plane through the parameters of any model, point by point, on a copy of its own."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import hypot, isfinite, nan
from time import perf_counter
from typing import Protocol

import torch
from torch import Tensor

from autograd_tui.core.command import Phase
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.frame_store import Branch
from autograd_tui.core.history import Path
from autograd_tui.core.loss_surface import LossSurface
from autograd_tui.core.replay_check import ReplayChecker
from autograd_tui.core.run_observer import Progress
from autograd_tui.engine.gradcheck.float64_copy import Float64Copy
from autograd_tui.engine.replay.replayer import Replayer
from autograd_tui.engine.training.state import TrainingState
from autograd_tui.engine.training.trainer import Trainer

COARSE_COLUMNS, COARSE_ROWS = 11, 9  # of the first grid; the next ones have a point more between any two
MAX_COLUMNS = 81  # of the finest grid
BUDGET_SECONDS = 20.0  # no finer grid is begun that would take the whole measurement longer
MAX_STEPS = 1024  # that the plane reaches in the direction of the last one
MAX_WIDTH = 64.0  # times its usual size that a single value is moved by
RISE = 1.5  # times the present loss: where it is as high, two values have been moved far enough
DIRECTION_SEED = 0  # of the random direction, so that it is always the same one

Point = tuple[float, float]
Move = Callable[[float, float], None]  # sets the parameters of a copy to a point
Params = Mapping[str, Tensor]


class LossAt:
    """The loss of a copy of the model as a function of two numbers; NaN where there is none.

    Every point begins with the same buffers, and draws the random numbers that the run's next forward will draw: it is
    one deterministic function, also of a model with dropout.
    """

    def __init__(
        self, state: TrainingState, mover: Callable[[Params], Move], at: Point, *, dtype: torch.dtype | None
    ) -> None:
        """`mover` makes of the copy's parameters what moves them to a point, such as `at`."""
        self._copy = Float64Copy(state, dtype=dtype, before=lambda: None, batch=state.batch)
        self._move = mover(self._copy.params)
        self._repeats = False
        self._repeats = dtype is None and self._is_repeatable(at)

    def __call__(self, x: float, y: float) -> float:
        try:
            return self.or_raise(x, y)
        except Exception:
            return nan

    def or_raise(self, x: float, y: float) -> float:
        """Return the loss; what other people's code raises is raised, as Refused where the copy puts it into words."""
        with torch.no_grad():
            self._move(x, y)
            if self._repeats:
                return self._copy.loss_as_is()
        loss = self._copy.loss()
        if loss.numel() != 1:
            raise Refused("the loss is not one number, so it has no surface.")
        return float(loss.item())

    def put_back(self) -> None:
        """Put back what the forwards have left in Python objects that the copy shares with the run."""
        self._copy.restore()

    def _is_repeatable(self, at: Point) -> bool:
        """Return whether the forward gives the same without anything put back before it: no buffer, no noise."""
        points = [at, (at[0] + 1.0, at[1] - 1.0)]
        expected = [self(*point) for point in points]
        noise = torch.get_rng_state()
        self._repeats = True
        repeated = [self(*point) for point in (*points, *points)]
        return repeated == expected * 2 and bool(torch.equal(noise, torch.get_rng_state()))


class PointLoss(Protocol):
    """The loss at points of a plane."""

    def __call__(self, x: float, y: float) -> float:
        """Return the loss at a point, NaN where there is none."""

    def or_raise(self, x: float, y: float) -> float:
        """Return the loss at a point; raises where there is none."""

    def put_back(self) -> None:
        """Put back what the forwards have left elsewhere."""


class Parameters(Protocol):
    """The parameters that a plane is laid through."""

    @property
    def params(self) -> Mapping[str, Tensor]:
        """All parameters by name, each once."""

    @property
    def names(self) -> Mapping[str, str]:
        """The first name of each parameter, by each of its names."""

    def param(self, name: str) -> Tensor:
        """Return a parameter; raises Refused where there is none."""


class Axes(Protocol):
    """The plane that is measured."""

    names: tuple[str, str]
    zero: tuple[int, int]  # the column and the row of the coarse grid at which training stands
    origin: Point  # the point there

    def mover(self, params: Params) -> Move:
        """Return what moves the parameters of a copy."""

    def position(self, params: Params) -> Point:
        """Return where parameters are, seen along all other directions."""

    def extent(self, loss: Callable[[float, float], float]) -> Generator[None, None, Point]:
        """Find out what there is to see, yielding before each loss; return the distances between coarse points."""


class ValueAxes:
    """Two values of the parameters, all others held still."""

    zero = (COARSE_COLUMNS // 2, COARSE_ROWS // 2)

    def __init__(self, state: Parameters, names: tuple[str, str]) -> None:
        """Raises Refused where there are no such values."""
        self.names = names
        places = [_place(state, name) for name in names]
        if places[0] == places[1]:
            raise Refused(f"{names[0]} and {names[1]} are the same value: a surface is over two.")
        self._places = places
        self.origin = self.position(state.params)
        self._sizes = [_usual_size(state.params[name], index) for name, index in places]

    def mover(self, params: Params) -> Move:
        """Return what sets the two values."""
        (first, first_index), (second, second_index) = ((params[name], index) for name, index in self._places)

        def move(x: float, y: float) -> None:
            first[first_index] = x
            second[second_index] = y

        return move

    def position(self, params: Params) -> Point:
        """Return the two values."""
        x, y = (float(params[name].detach()[index].item()) for name, index in self._places)
        return x, y

    def extent(self, loss: Callable[[float, float], float]) -> Generator[None, None, Point]:
        """Widen each axis until the loss at one of its ends is high."""
        (x, y), units = self.origin, []
        high = RISE * loss(x, y)
        for axis, (size, intervals) in enumerate(zip(self._sizes, self.zero, strict=True)):
            width = size / 2
            while width < MAX_WIDTH * size:
                yield
                ends = [loss(x + way, y) if axis == 0 else loss(x, y + way) for way in (-width, width)]
                if not max(ends) < high:
                    break
                width *= 2
            units.append(width / intervals)
        return units[0], units[1]


@dataclass(frozen=True, slots=True)
class StepDirection:
    """The way that the last step went."""

    frame: int  # that the step led to
    iteration: int
    before: dict[str, Tensor]  # the parameters
    after: dict[str, Tensor]


class PlaneAxes:
    """The direction of the last step, in steps, and a random one in which each filter is as long as the weights' own.

    Source: Li et al., "Visualizing the Loss Landscape of Neural Nets", 2018. As there, biases and other parameters of
    one dimension stay in the random direction; what is frozen does too. The two are not made orthogonal: among many
    parameters they nearly are.
    """

    names = ("last step", "random")
    origin = (0.0, 0.0)
    zero = (2, COARSE_ROWS // 2)

    def __init__(self, state: Parameters, step: StepDirection) -> None:
        """Raises Refused where the step has no direction."""
        self._base = {name: param.detach().clone() for name, param in state.params.items() if can_move(param)}
        self._along = {name: step.after[name] - step.before[name] for name in self._base}
        length = hypot(*(float(torch.linalg.vector_norm(each).item()) for each in self._along.values()))
        if not isfinite(length):
            raise Refused("the last step has moved a parameter to NaN or infinity, which is no direction.")
        if not length:
            raise Refused("the last step has moved no parameter, so it has no direction.")
        self._across = _random_direction(
            {name: self._base[name] for name in self._base if state.params[name].requires_grad}
        )
        self._gram = [
            [_dot(one, other) for other in (self._along, self._across)] for one in (self._along, self._across)
        ]

    def mover(self, params: Params) -> Move:
        """Return what puts parameters at the plane's point x, y."""

        def move(x: float, y: float) -> None:
            for name, base in self._base.items():
                params[name].copy_(base).add_(self._along[name], alpha=x)
                if name in self._across:
                    params[name].add_(self._across[name], alpha=y)

        return move

    def position(self, params: Params) -> Point:
        """Return the plane's point nearest to the parameters, by least squares."""
        return self.nearest({name: params[name].detach() for name in self._base})

    def nearest(self, params: dict[str, Tensor]) -> Point:
        """Return the plane's point nearest to some values of the parameters."""
        away = {name: params[name] - base for name, base in self._base.items()}
        right = _dot(self._along, away), _dot(self._across, away)
        (a, b), (_, c) = self._gram
        determinant = a * c - b * b
        if not determinant > 0:  # there is nothing to move at random
            return right[0] / a, 0.0
        return (c * right[0] - b * right[1]) / determinant, (a * right[1] - b * right[0]) / determinant

    def path_of(self, step: StepDirection) -> Path:
        """Return where the step began and ended."""
        path = Path()
        path.insert(step.frame - 1, step.iteration - 1, *self.nearest(step.before))
        path.insert(step.frame, step.iteration, *self.nearest(step.after))
        return path

    def extent(self, loss: Callable[[float, float], float]) -> Generator[None, None, Point]:
        """Look along the last step until the loss is above the present one: a valley's other side is in the picture."""
        here, steps = loss(*self.origin), 4.0
        while steps < MAX_STEPS:
            yield
            if not loss(steps, 0.0) <= here:
                yield
                steps = steps if loss(0.75 * steps, 0.0) <= here else 0.75 * steps
                break
            steps *= 2
        return steps / (COARSE_COLUMNS - 1 - self.zero[0]), 1 / self.zero[1]


def last_step(trainer: Trainer, replayer: Replayer, checker: ReplayChecker) -> StepDirection:
    """Return the way of the last step up to where training stands, which runs again; training stays where it is.

    Raises Refused where there was no step, or going back is given up.
    """
    here = trainer.frame.index
    frame = replayer.last(Phase.STEP, here)
    if not frame:
        raise Refused("there is no step yet whose direction the plane would have: fbs runs the first one.")
    replayer.check_repeats("the plane lies along the last step, which has to run again")
    try:
        replayer.travel(frame - 1, checker)
        before = _copies(trainer.state)
        replayer.travel(frame, checker)
        return StepDirection(frame, trainer.frame.iteration, before, _copies(trainer.state))
    finally:
        replayer.return_to(here, checker)


class SurfaceSlice:
    """One plane and what is measured of it: coarse at first, then finer as far as there is time.

    The loss has its own copies of the model, the batch and the random state of the frame that it begins at. So it can
    go on between the commands of a run, whatever those change.
    """

    def __init__(
        self, axes: Axes, loss: PointLoss, frame: int, *, branch: Branch | None = None, path: Path | None = None
    ) -> None:
        """Begin at a frame, given by its index; raises Refused where there is no loss.

        branch: the run that was left last. path: what is known of it already.
        """
        self.axes = axes
        self.surface: LossSurface | None = None
        self.complete = False  # at least coarsely
        self.finished = False
        self._path = path or Path()
        self._frame = frame
        self._left = branch.number if branch else 0  # the last run that was left
        self._seen: tuple[int, int, int] | None = None
        self._loss = loss
        self._loss.or_raise(*axes.origin)
        self._done, self._of = 0, COARSE_COLUMNS * COARSE_ROWS
        self._seconds = 0.0
        self._points = self._measure()

    @property
    def progress(self) -> Progress:
        """How many points of the present grid are measured."""
        return Progress(self._done, self._of, surface=True)

    def advance(self, stopped: Callable[[], bool], watch: Callable[[Progress], None]) -> None:
        """Measure point by point until `stopped`, which is asked before each; `watch` is told behind each."""
        try:
            while not self.finished and not stopped():
                try:
                    next(self._points)
                except StopIteration:
                    self.finished = True
                watch(self.progress)
        finally:
            self._loss.put_back()

    def see(self, state: TrainingState, frame: Frame, *, newest: int, branch: Branch | None) -> None:
        """Add where training stands to the path; `branch` is the run that was left last, whose points go.

        newest: the index of the last frame of the present branch.
        """
        left = branch.number if branch else 0
        if self._seen == (frame.index, newest, left):
            return
        fork = newest if branch is None or left == self._left else branch.fork
        self._seen, self._left = (frame.index, newest, left), left
        path = self._path.copy()
        path.truncate_after(min(newest, fork))
        x, y = self.axes.position(state.params)
        before = path.count(frame.index) - 1
        if before < 0 or (path.xs[before], path.ys[before]) != (x, y):
            begins = frame.iteration == 0 or frame.steps > frame.loss_steps  # the next iteration, from these parameters
            path.insert(frame.index, frame.iteration if begins else frame.iteration - 1, x, y)
        if (path.indices, path.xs, path.ys) != (self._path.indices, self._path.xs, self._path.ys):
            self._path = path
            if self.surface is not None:
                self.surface = replace(self.surface, path=path)

    def _measure(self) -> Iterator[None]:
        units = yield from self.axes.extent(self._loss)
        columns, rows, fineness = COARSE_COLUMNS, COARSE_ROWS, 1
        losses = array("d", [nan] * (columns * rows))
        yield from self._measure_grid(losses, columns, rows, fineness, units)
        self.complete = True
        while columns < MAX_COLUMNS and self._seconds * (len(_doubled(losses, columns)) / len(losses)) < BUDGET_SECONDS:
            losses = _doubled(losses, columns)
            columns, rows, fineness = 2 * columns - 1, 2 * rows - 1, 2 * fineness
            yield from self._measure_grid(losses, columns, rows, fineness, units)

    def _measure_grid(
        self, losses: array[float], columns: int, rows: int, fineness: int, units: Point
    ) -> Iterator[None]:
        """Measure the points of a grid that the one before did not have; a row is shown once it is complete."""
        self._of = columns * rows
        (x, y), (zero_column, zero_row) = self.axes.origin, self.axes.zero

        def place(column: int, row: int) -> Point:
            across = units[0] * (column - zero_column * fineness) / fineness
            up = units[1] * (row - zero_row * fineness) / fineness
            return x + across, y + up

        (left, bottom), (right, top) = place(0, 0), place(columns - 1, rows - 1)
        for row in range(rows):
            for column in range(columns):
                if fineness == 1 or row % 2 or column % 2:
                    yield
                    started = perf_counter()
                    losses[row * columns + column] = self._loss(*place(column, row))
                    self._seconds += perf_counter() - started
                    self._done += 1
            self.surface = LossSurface(
                self.axes.names,
                (left, right),
                (bottom, top),
                losses[:],
                None,
                rows=rows,
                columns=columns,
                measured_rows=row + 1 if fineness == 1 else rows,
                frame=self._frame,
                path=self._path,
            )


def _doubled(losses: array[float], columns: int) -> array[float]:
    """Return a grid with a point more between any two, each of which is the mean of its neighbours for now."""
    rows = [losses[start : start + columns] for start in range(0, len(losses), columns)]
    wide = [_with_means(row) for row in rows]
    between = [array("d", [(a + b) / 2 for a, b in zip(low, high, strict=True)]) for low, high in pairwise(wide)]
    doubled = array("d", wide[0])
    for means, row in zip(between, wide[1:], strict=True):
        doubled.extend(means)
        doubled.extend(row)
    return doubled


def _with_means(row: array[float]) -> array[float]:
    wide = array("d", [row[0]])
    for before, after in pairwise(row):
        wide.extend([(before + after) / 2, after])
    return wide


def _place(state: Parameters, name: str) -> tuple[str, tuple[int, ...]]:
    """Return a parameter's first name and the index of one of its values; raises Refused where there is none."""
    target, bracket, at = name.partition("[")
    param = state.param(target)
    index = tuple(map(int, at.rstrip("]").split(","))) if bracket else (0,) * param.dim()
    if not bracket and param.numel() != 1:
        example = ",".join("0" * param.dim())
        raise Refused(f"{target} has {param.numel():,} values: name one of them, as in {target}[{example}].")
    if len(index) != param.dim() or not all(i < n for i, n in zip(index, param.shape, strict=True)):
        raise Refused(f"{name} does not exist: {target} has shape {tuple(param.shape)}, counted from 0.")
    if not can_move(param):
        raise Refused(f"{target} holds no floating-point numbers in plain memory, so a surface cannot be over it.")
    return state.names[target], index


def can_move(param: Tensor) -> bool:
    """Return whether a parameter's values can be moved to points of a plane."""
    return param.is_floating_point() and param.layout is torch.strided and not param.is_meta


def _usual_size(param: Tensor, index: tuple[int, ...]) -> float:
    """Return how large a value is usually among those of its parameter; 1 where they are all zero."""
    rms = float(param.detach().double().square().mean().sqrt().item())
    size = max(abs(float(param.detach()[index].item())), rms)
    return size if isfinite(size) and size > 0 else 1.0


def _copies(state: TrainingState) -> dict[str, Tensor]:
    return {name: param.detach().clone() for name, param in state.params.items() if can_move(param)}


def _random_direction(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a random direction of which each filter is as long as the same filter of the weights.

    A filter is what belongs to one index of the first dimension: (in, height, width) of a convolution, a row of a
    matrix. Where all parameters have one dimension, each is a filter.
    """
    generator = torch.Generator().manual_seed(DIRECTION_SEED)
    chosen = {name: each for name, each in weights.items() if each.dim() > 1} or weights
    direction = {}
    for name, weight in chosen.items():
        noise = torch.randn(weight.shape, generator=generator, dtype=torch.float32).to(weight)
        filters, lengths = (each.reshape(len(each) if each.dim() > 1 else 1, -1) for each in (noise, weight))
        scale = torch.linalg.vector_norm(lengths, dim=1) / (torch.linalg.vector_norm(filters, dim=1) + 1e-10)
        direction[name] = (filters * scale[:, None]).reshape(weight.shape)
    return direction


def _dot(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    shared = one.keys() & other.keys()
    return sum(float(torch.dot(one[name].flatten(), other[name].flatten()).item()) for name in sorted(shared))
