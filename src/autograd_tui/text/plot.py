"""Line plots in characters: the only file that knows plotext."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise

from autograd_tui.core.history import Point
from autograd_tui.text.numbers import fitted
from autograd_tui.text.sparkline import LEVELS
from autograd_tui.text.styled_text import Line
from autograd_tui.text.ticks import linear_ticks, log_ticks, tick_label

MIN_ROWS = 4  # of drawing, below which a plot is a sparkline
GUTTER = 10  # columns for the labels of the y axis, and the axis


def plot_lines(
    points: Sequence[Point],
    width: int,
    height: int,
    *,
    shown: Point | None = None,
    changes: Sequence[int] = (),
    log_scale: bool = False,
) -> list[Line]:
    """Draw values over iterations in `height` rows, few points a column; the point `shown` is marked.

    The axes have round numbers, the one below in its line. Where there is no room for MIN_ROWS of drawing it is a
    sparkline: a block as high as the curve in each column of one row.
    `changes` are the iterations after which the learning rate changed, marked by ▲ on the axis. NaN, infinities, and on
    a log scale what is not positive, have no place on a scale: they are marked on the top row.
    """
    bare = height <= MIN_ROWS  # no room for the axis below
    columns, rows = plot_columns(width), min(height, 1) if bare else height - 1
    if columns < 8 or rows < 1:
        return []
    placed = _on_scale(points, log_scale)
    if not placed:
        return [[("no loss to plot yet", "dim")]] if not points else [[("no finite loss", "warn")]]
    span = (points[0].iteration, max(points[-1].iteration, points[0].iteration + 1))
    limits = _limits([point.value for point in placed])

    def column(iteration: int) -> int:
        return min(int((iteration - span[0]) / (span[1] - span[0]) * (columns - 1) + 0.5), columns - 1)

    if rows == 1:  # plotext would draw it upside down
        canvas = [_blocks([(column(point.iteration), point.value) for point in placed], columns, limits)]
    else:
        canvas = [list(row) for row in _canvas(tuple(placed), columns, rows, span, limits)]

    def row(point: Point) -> int:
        low, high = limits
        return min(int((high / 2 - point.value / 2) / (high / 2 - low / 2) * (rows - 1) + 0.5), rows - 1)

    labels = _labels(placed, limits, rows, log_scale)
    if len(placed) * 4 <= columns and rows > 1:
        for point in placed:
            canvas[row(point)][column(point.iteration)] = "•"
    seen = {point.index for point in placed}
    for point in points:
        if point.index not in seen:
            canvas[0][column(point.iteration)] = "!"
    marked = next(iter(_on_scale([shown], log_scale)), None) if shown else None
    lines: list[Line] = []
    for index, characters in enumerate(canvas):
        label = labels.get(index, "")
        axis: Line = [(f"{label:>{GUTTER - 2}}", "dim"), (" ┤" if label else " │", "dim")]
        text = "".join(characters)
        if marked and row(marked) == index:
            at = column(marked.iteration)
            lines.append([*axis, *_curve(text[:at]), ("◆", "now"), *_curve(text[at + 1 :])])
        else:
            lines.append([*axis, *_curve(text)])
    if bare:
        return lines
    return [*lines, [(" " * (GUTTER - 1) + "└" + _axis(span, columns, column, changes), "dim")]]


def plot_columns(width: int) -> int:
    """Say for how many columns of points there is room."""
    return max(width - GUTTER, 1)


def _curve(text: str) -> Line:
    """Give a part of a row its looks: what has no place on the scale is an error."""
    return [(part, "error" if part.startswith("!") else "accent") for part in re.split("(!+)", text) if part]


def _labels(placed: Sequence[Point], limits: tuple[float, float], rows: int, log_scale: bool) -> dict[int, str]:
    """Name round values beside their rows; where there are fewer than two, the greatest and the least one."""
    if rows == 1:
        return {}
    low, high = limits
    values = [point.value for point in placed]
    ticks = (log_ticks if log_scale else linear_ticks)(low, high, max((rows + 1) // 2, 2))

    def row(value: float) -> int:
        return min(int((high / 2 - value / 2) / (high / 2 - low / 2) * (rows - 1) + 0.5), rows - 1)

    if len(ticks) >= 2 and min(values) < max(values):
        return {row(math.log10(tick) if log_scale else tick): tick_label(tick, GUTTER - 2) for tick in ticks}
    return {row(end): fitted(_power(end) if log_scale else end, GUTTER - 2) for end in (max(values), min(values))}


def _power(exponent: float) -> float:
    return 10**exponent if exponent < 308 else sys.float_info.max


def _axis(span: tuple[int, int], columns: int, column: Callable[[int], int], changes: Sequence[int]) -> str:
    """Draw the axis of iterations with round numbers in it, each beginning at its column, and its name at the end."""
    line = ["─"] * columns
    name = " iteration"
    room = columns - len(name) if columns >= 24 else columns
    if room < columns:
        line[room:] = name
    ticks = [int(tick) for tick in linear_ticks(*span, max(columns // 10, 1)) if tick.is_integer()]
    free = 0
    for tick in dict.fromkeys([span[0], *ticks]):
        text, at = str(tick), column(tick)
        if free <= at and at + len(text) < room:
            line[at : at + len(text)] = text
            free = at + len(text) + 2
    for change in changes:
        line[max(column(min(change + 1, span[1])), 0)] = "▲"
    return "".join(line)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Give a range that holds the values and is never empty."""
    low, high = min(values), max(values)
    if high / 2 - low / 2 <= abs(high) * 1e-9:
        room = abs(high) * 0.5 or 1.0
        return max(low - room, -sys.float_info.max), min(high + room, sys.float_info.max)
    return low, high


def _on_scale(points: Sequence[Point], log_scale: bool) -> list[Point]:
    """Give the points that have a place on the scale, there."""
    if not log_scale:
        return [point for point in points if math.isfinite(point.value)]
    positive = [point for point in points if math.isfinite(point.value) and point.value > 0]
    return [Point(point.index, point.iteration, math.log10(point.value)) for point in positive]


def _blocks(heights: Sequence[tuple[int, float]], columns: int, limits: tuple[float, float]) -> list[str]:
    """Draw a curve through (column, value) in one row of blocks; of several values in a column the greatest."""
    greatest: dict[int, float] = {}
    for at, value in heights:
        greatest[at] = max(value, greatest.get(at, value))
    low, half = limits[0], limits[1] / 2 - limits[0] / 2
    shares = {at: (value / 2 - low / 2) / half for at, value in greatest.items()}
    row = [" "] * columns
    for at, share in shares.items():
        row[at] = LEVELS[1 + round(share * 7)]
    for (left, start), (right, end) in pairwise(shares.items()):
        for at in range(left + 1, right):
            row[at] = LEVELS[1 + round((start + (end - start) * (at - left) / (right - left)) * 7)]
    return row


@lru_cache(maxsize=4)
def _canvas(
    points: tuple[Point, ...], columns: int, rows: int, x: tuple[float, float], y: tuple[float, float]
) -> list[str]:
    """Let plotext draw the curve; it is fed with finite numbers alone, since others end the process."""
    if len(points) < 2:
        return [" " * columns] * rows
    import plotext

    middle, half = y[0] / 2 + y[1] / 2, y[1] / 2 - y[0] / 2
    figure = plotext.figure
    figure.clear()
    plotext.terminal.limit(False, False)  # or it would cut the plot to what it takes the terminal's size to be
    figure.theme("colorless")
    figure.plot_size(columns, rows)
    figure.axes(False)
    for axis in "xy":
        for side in (0, 1):
            figure.ruler(axis, side).frequency(0)
    figure.ruler("x").lim(*x)
    figure.ruler("y").lim(-1, 1)
    values = [point.value / half - middle / half for point in points]
    within = [min(max(point.iteration, x[0]), x[1]) for point in points]  # a line to far outside ends the process too
    figure.draw(figure.signal(within, values, marker="braille").lines())
    drawn = plotext.uncolorize(str(figure.build())).split("\n")[:rows]
    return [f"{line:<{columns}}"[:columns] for line in drawn] + [" " * columns] * (rows - len(drawn))
