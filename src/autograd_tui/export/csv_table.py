"""Frames as one long table: a row for each number, where it is new."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import TensorStats

COLUMNS = ("frame", "command", "iteration", "loss", "lr", "tensor", "kind", "stat", "value")
FORMULA_PREFIXES = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # how those of spreadsheets begin
STATS = ("norm", "min", "max", "nonfinite", "mean", "std")
FLAGS = ("sampled", "range_sampled")  # written where they are true: what is of a sample, as in TensorStats
Cell = float | int | str | bool
Row = tuple[str, str, str, Cell]  # tensor, kind, stat, value


def write_csv(file: BinaryIO, frames: Iterable[Frame]) -> None:
    """Write the table; floats have as many digits as read back as the same ones.

    A text that a spreadsheet would take for a formula has an apostrophe before it.
    """
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    before: Frame | None = None
    for frame in frames:
        loss = "" if frame.loss is None else frame.loss
        head = (frame.index, _escape_formula(str(frame.command or "")), frame.iteration, loss, frame.learning_rate)
        writer.writerows((*head, *map(_escape_formula, row)) for row in frame_rows(frame, before))
        before = frame
    text.detach()


def _escape_formula(cell: Cell) -> Cell:
    """Return a cell that no spreadsheet computes; numbers stay numbers, also negative ones."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_PREFIXES) else cell


def frame_rows(frame: Frame, before: Frame | None) -> Iterator[Row]:
    """Yield what is new since the frame `before`, and always how many steps have been run."""
    yield "", "run", "steps", frame.steps
    if frame.error:
        yield "", "run", "raised", f"{frame.error.type}: {frame.error.message}"
    if before is None or frame.loss_steps != before.loss_steps or frame.metrics != before.metrics:
        yield from (("", "metric", name, value) for name, value in frame.metrics)
    tables: dict[str, tuple[Sequence[TensorStats], object]] = {
        "parameter": (frame.params, before and before.params),
        "state": (frame.optimizer_state, before and before.optimizer_state),
        "buffer": (frame.buffers, before and before.buffers),
    }
    for kind, (table, old) in tables.items():
        if old is None or table != old:
            yield from (row for stats in table for row in _stats_rows(kind, stats))
    if before is None or frame.grads != before.grads:
        yield from _gradient_rows(frame)


def _gradient_rows(frame: Frame) -> Iterator[Row]:
    """Yield every gradient, also that there is none: a sum of 0 backwards."""
    for name, grad in zip(frame.params.layout.names, frame.grads, strict=True):
        yield name, "gradient", "backwards", 0 if grad is None else grad.backwards
        if grad is not None:
            yield name, "gradient", "used", int(grad.used)
            yield from _stats_rows("gradient", grad)


def _stats_rows(kind: str, stats: TensorStats) -> Iterator[Row]:
    for stat in STATS:
        value = getattr(stats, stat)
        if value is not None:
            yield stats.name, kind, stat, value
    yield from ((stats.name, kind, flag, 1) for flag in FLAGS if getattr(stats, flag))
    for name, values in (("value", stats.values), ("bin", stats.histogram)):
        yield from ((stats.name, kind, f"{name} {index}", value) for index, value in enumerate(values or ()))
