"""Calls a scenario's picture function on a copy of the model: nothing of the run moves."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from time import monotonic
from types import FrameType
from typing import Any

import torch

from autograd_tui.core.errors import Refused
from autograd_tui.core.picture import Picture, Plane, Point
from autograd_tui.engine.gradcheck.float64_copy import detached_copy
from autograd_tui.engine.training.scenario import type_text
from autograd_tui.engine.training.state import TrainingState
from autograd_tui.engine.training.trainer import Trainer
from autograd_tui.engine.training.user_code import ForkGuard, Silence, in_words, is_user_error, is_user_file

MAX_SECONDS = 5.0  # that a picture may take
MAX_PICTURES = 100  # that are kept, to be looked back at
MAX_ROWS, MAX_CHARACTERS = 1_000, 100_000  # of text
MAX_SERIES, MAX_POINTS = 8, 10_000  # of points: names, and points a name
MAX_SIDE = 500  # rows or columns of a plane
TAKES = "return rows of text, texts by name, points by name, or a Plane"


class PictureTaker:
    """Takes the picture of the model as it is now, and keeps the last ones."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._pictures: tuple[Picture, ...] = ()

    @property
    def is_due(self) -> bool:
        """Whether there is a picture function, and no picture of the present frame."""
        if self._trainer.state.parts.picture is None:
            return False
        return not any(picture.is_of(self._trainer.frame) for picture in reversed(self._pictures))

    def pictures(self, stopped: Callable[[], bool]) -> tuple[Picture, ...]:
        """Return the last pictures, the newest last; one of the present frame among them unless `stopped` held.

        `stopped` is asked at each call, and at each instruction of the user's own code.
        """
        if self.is_due and not stopped():
            frame = self._trainer.frame
            try:
                content = self._take(stopped)
            except _Interrupted:
                return self._pictures
            picture = Picture(frame.index, frame.steps, frame.params, frame.buffers, **content)
            self._pictures = (*self._pictures[1 - MAX_PICTURES :], picture)
        return self._pictures

    def _take(self, stopped: Callable[[], bool]) -> dict[str, Any]:
        """Return the fields of a picture; raises _Interrupted where `stopped` holds."""
        silence = Silence()
        with self._trainer.borrow_state() as state, _protected(state):
            try:
                with ForkGuard(), torch.no_grad(), redirect_stdout(silence), redirect_stderr(silence):
                    return _call(state, stopped)
            except _Interrupted:
                raise
            except _NoPicture as nonsense:
                printed = "printed something and " if silence.printed else ""
                return {"problem": f"picture= {printed}gave {nonsense}"}
            except Refused as error:
                return {"problem": f"There is no picture: {error}"}
            except BaseException as error:
                if not is_user_error(error):
                    raise
                return {"problem": f"picture= raised {in_words(error)}."}


class _NoPicture(Exception):
    """What was returned is no picture: its message says what it is."""


class _Interrupted(BaseException):
    """Something waits for the trainer: no handler of the user's is meant to catch this."""


def _call(state: TrainingState, stopped: Callable[[], bool]) -> dict[str, Any]:
    """Call the picture function and read what it gives; raises what it raises, _NoPicture, Refused, _Interrupted."""
    deadline = monotonic() + MAX_SECONDS
    function = state.parts.picture
    assert function is not None
    model = detached_copy(state.model)
    late = False

    def look(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal late
        late = monotonic() > deadline
        if late or stopped():
            raise _Interrupted
        if not is_user_file(frame.f_code.co_filename):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False  # `while True: pass` has no new line in Python 3.11
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        model.eval()
        return _read(function(model))
    except _Interrupted:
        if late:
            return {"problem": f"picture= was interrupted: it had not ended after {MAX_SECONDS:g} seconds."}
        raise
    finally:
        sys.settrace(before)


@contextmanager
def _protected(state: TrainingState) -> Iterator[None]:
    """Put parameters and gradients of the run back, where a function reaches them past its copy of the model."""
    params = list(state.params.values())
    values = [(param, param._version, param.detach().clone(), param.requires_grad) for param in params]
    grads = [
        (param.grad, param.grad._version, param.grad.detach().clone()) if param.grad is not None else None
        for param in params
    ]
    try:
        yield
    finally:
        for (param, version, value, requires_grad), grad in zip(values, grads, strict=True):
            if param._version != version:
                param.data.copy_(value)
            if grad is None:
                param.grad = None
            else:
                tensor, grad_version, copy = grad
                param.grad = tensor
                if tensor._version != grad_version:
                    tensor.data.copy_(copy)
            if param.requires_grad != requires_grad:
                param.requires_grad_(requires_grad)


# What the function returns, as plain values.


def _read(value: Any) -> dict[str, Any]:
    """Return the fields of a picture; raises _NoPicture."""
    if isinstance(value, str):
        value = value.splitlines()
    if isinstance(value, Plane):
        return {"plane": _plane(value), "points": _series(value.points)}
    if isinstance(value, (list, tuple)) and all(isinstance(row, str) for row in value):
        rows = [str.__str__(row)[:MAX_CHARACTERS] for row in value[:MAX_ROWS]]
        return {"rows": tuple(rows)}
    if isinstance(value, Mapping) and value:
        if all(isinstance(text, str) for text in value.values()):
            return {"texts": {_name(name): str.__str__(text)[:MAX_CHARACTERS] for name, text in value.items()}}
        return {"points": _series(value)}
    what = "None" if value is None else type_text(value)
    raise _NoPicture(f"{what}: {TAKES}.")


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise _NoPicture(f"{type_text(name)} as a name: names are texts.")
    return str.__str__(name)


def _series(named: Any) -> dict[str, tuple[Point, ...]]:
    """Return points by name; raises _NoPicture."""
    if not isinstance(named, Mapping):
        raise _NoPicture(f"{type_text(named)} in place of points by name.")
    if len(named) > MAX_SERIES:
        raise _NoPicture(f"points under {len(named)} names: {MAX_SERIES} is the most.")
    return {_name(name): tuple(_points(_name(name), points)) for name, points in named.items()}


def _points(name: str, points: Any) -> Iterator[Point]:
    listed = _plain(points, MAX_POINTS * 2)
    if not isinstance(listed, (list, tuple)):
        raise _NoPicture(f'{type_text(points)} as "{name}": points are a list of (x, y).')
    if len(listed) > MAX_POINTS:
        raise _NoPicture(f'{len(listed):,} points as "{name}": {MAX_POINTS:,} is the most.')
    for point in listed:
        try:
            x, y = _plain(point, 2)
            yield float(x), float(y)
        except (TypeError, ValueError):
            raise _NoPicture(f'"{name}" with something else than (x, y) in it.') from None


def _plane(plane: Plane) -> Plane:
    """Return a plane with plain lists of floats; raises _NoPicture."""
    rows = _plain(plane.values, MAX_SIDE**2)
    try:
        values = [[float(value) for value in _plain(row, MAX_SIDE)] for row in rows]
        (left, right), (low, high) = plane.x, plane.y
        ends = (float(left), float(right)), (float(low), float(high))
    except (TypeError, ValueError):
        raise _NoPicture(
            "a Plane of something else than numbers: values are (rows, columns), x and y (low, high)."
        ) from None
    sides = {len(values), *map(len, values)}
    if len({len(row) for row in values}) != 1 or min(sides) < 2 or max(sides) > MAX_SIDE:
        raise _NoPicture(f"a Plane whose values are not (rows, columns), each from 2 to {MAX_SIDE}.")
    if not all(low < high and abs(low) + abs(high) < float("inf") for low, high in ends):
        raise _NoPicture("a Plane whose x or y is not (low, high).")
    return Plane(values, *ends, classes=plane.classes is True)


def _plain(value: Any, most: int) -> Any:
    """Return a tensor's or an array's values as lists, as far as there are not too many; all else as it is."""
    if not hasattr(value, "tolist"):
        return value
    size = value.numel() if isinstance(value, torch.Tensor) else value.size
    if size > most:
        raise _NoPicture(f"{type_text(value)} of {size:,} values: {most:,} is the most.")
    return value.tolist()
