"""Line plots in characters: the only file that knows plotext."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby, pairwise

from autograd_tui.core.history import Point
from autograd_tui.text.numbers import fitted, linear_ticks, log_ticks, tick_label
from autograd_tui.text.sparkline import LEVELS
from autograd_tui.text.styled_text import Line

MIN_ROWS = 4  # of drawing, below which a plot is a sparkline
GUTTER = 10  # columns for the labels of the y axis, and the axis
POINT_SPACING = 4  # columns a point, from which on each is marked
LETTER_SPACING = 24  # columns between two letters along a curve
MAX_MARKS = 8  # columns a mark of a changed learning rate: where there are more of them, none is drawn


@dataclass(frozen=True, slots=True)
class Curve:
    """Values over iterations, and how they are drawn beside others."""

    points: Sequence[Point]
    style: str = ""
    letter: str = ""  # written along it, since colours alone tell nobody which it is
    label: str = ""  # written at its end
    dots: bool = False  # its points alone, with no line between them
    behind: bool = False  # drawn on the scale of the others, and cut off where it leaves that far
    shown: Point | None = None  # marked on it


def plot_lines(
    points: Sequence[Point],
    width: int,
    height: int,
    *,
    shown: Point | None = None,
    changes: Sequence[int] = (),
    log_scale: bool = False,
    what: str = "loss",
    others: Sequence[Curve] = (),
    letter: str = "",
    span: tuple[int, int] | None = None,
    cursor: int | None = None,
) -> list[Line]:
    """Draw values over iterations in `height` rows, few points a column; the point `shown` is marked.

    The axes have round numbers, the one below in its line. Where there is no room for MIN_ROWS of drawing it is a
    sparkline: a block as high as the curve in each column of one row.
    changes: iterations after which the learning rate changed, marked by ▲ on the axis. cursor: an iteration, marked by
    a line. span: the first and the last iteration of the axis, by default those of all curves. NaN, infinities, and on
    a log scale what is not positive, have no place on a scale: they are marked on the top row.
    """
    bare = height <= MIN_ROWS  # no room for the axis below
    columns, rows = plot_columns(width), min(height, 1) if bare else height - 1
    if columns < 8 or rows < 1:
        return []
    given = (Curve(points, letter=letter, shown=shown), *others)
    curves = [replace(each, points=_on_scale(each.points, log_scale)) for each in given]
    placed = [point for curve in curves for point in curve.points]
    if not placed:
        anything = any(curve.points for curve in given)
        return [[(f"no finite {what}", "warn")]] if anything else [[(f"no {what} to plot yet", "dim")]]
    ends = [point.iteration for curve in given for point in (*curve.points[:1], *curve.points[-1:])]
    first, last = span or (min(ends), max(ends))
    scale = _Scale(first, max(last, first + 1), _curve_limits(curves), columns, rows)
    cells = _Cells(scale)
    if rows == 1:  # plotext would draw it upside down
        cells.draw_blocks(curves[0].points)
    else:
        for curve in reversed(curves):
            cells.draw_curve(curve)
        for curve in curves:
            cells.write_letters(curve)
        for curve in curves:
            cells.write_label(curve)
    for before, curve in zip(given, curves, strict=True):
        cells.mark_unplaced(before, {point.index for point in curve.points})
    if cursor is not None and first <= cursor <= last:
        cells.draw_cursor(cursor, curves)
    for each in curves:
        cells.mark_shown(_on_scale([each.shown], log_scale) if each.shown else [])
    chosen = [point.value for curve in curves if not curve.behind for point in curve.points]
    labels = _labels(chosen or [point.value for point in placed], scale, log_scale=log_scale)
    lines: list[Line] = []
    for index, drawn in enumerate(cells.lines()):
        label = letter if bare and letter else labels.get(index, "")
        lines.append([(f"{label:>{GUTTER - 2}}", "dim"), (" ┤" if label else " │", "dim"), *drawn])
    if bare:
        return lines
    return [*lines, [(" " * (GUTTER - 1) + "└", "dim"), *_axis(scale, changes)]]


def plot_columns(width: int) -> int:
    """Return for how many columns of points there is room."""
    return max(width - GUTTER, 1)


def too_many_to_mark(changes: Sequence[int], columns: int) -> bool:
    """Return whether the changes of a learning rate would fill the axis: then none is marked."""
    return len(changes) * MAX_MARKS > max(columns, 2 * MAX_MARKS)


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where iterations and values stand in the drawing."""

    first: int
    last: int
    limits: tuple[float, float]
    columns: int
    rows: int

    def column(self, iteration: float) -> int:
        share = (iteration - self.first) / (self.last - self.first)
        return max(min(int(share * (self.columns - 1) + 0.5), self.columns - 1), 0)

    def row(self, value: float) -> int:
        low, high = self.limits
        share = (high / 2 - value / 2) / (high / 2 - low / 2)
        return max(min(int(share * (self.rows - 1) + 0.5), self.rows - 1), 0)


class _Cells:
    """The characters of the drawing, each with its style."""

    def __init__(self, scale: _Scale) -> None:
        self._scale = scale
        self._cells = [[(" ", "")] * scale.columns for _ in range(scale.rows)]

    def put(self, row: int, column: int, character: str, style: str) -> None:
        self._cells[row][column] = (character, style)

    def lines(self) -> Iterator[Line]:
        """Yield the rows, neighbours of one style together."""
        for row in self._cells:
            yield [
                ("".join(cell[0] for cell in group), style) for style, group in groupby(row, key=lambda cell: cell[1])
            ]

    def draw_blocks(self, points: Sequence[Point]) -> None:
        """Draw a curve in one row of blocks; few points are marked among those that only lie between them."""
        placed = [(self._scale.column(point.iteration), point.value) for point in points]
        for column, character in enumerate(_blocks(placed, self._scale)):
            self.put(0, column, character, "")
        if len(points) * POINT_SPACING <= self._scale.columns:
            for column, _ in placed:
                self.put(0, column, "•", "strong")

    def draw_curve(self, curve: Curve) -> None:
        """Draw a curve over what is there; where two share a cell, both are seen, in the style of the later one."""
        scale = self._scale
        parts = tuple(_parts(curve.points, scale))
        for row, line in enumerate(_canvas(parts, scale, dots=curve.dots)):
            for column, character in enumerate(line):
                if character != " ":
                    before = self._cells[row][column][0]
                    self.put(row, column, _overlaid(before, character), curve.style)
        if not curve.dots and len(curve.points) * POINT_SPACING <= scale.columns:
            for iteration, value in (point for part in parts for point in part):
                if not curve.behind or iteration.is_integer():
                    self.put(scale.row(value), scale.column(iteration), "•", curve.style)

    def write_letters(self, curve: Curve) -> None:
        """Write a curve's letter along it, at other columns than the letters before stand in."""
        if not curve.letter:
            return
        scale = self._scale
        wanted = LETTER_SPACING // 4 * (1 + ord(curve.letter) % 4)
        for point in curve.points:
            column = scale.column(point.iteration)
            is_last_alone = point is curve.points[-1] and wanted - column < LETTER_SPACING * 3 // 4
            if column >= wanted or is_last_alone:
                self.put(scale.row(point.value), column, curve.letter, curve.style or "strong")
                wanted = column + LETTER_SPACING

    def write_label(self, curve: Curve) -> None:
        """Write a curve's label beside its end, where there is nothing else."""
        parts = [part for part in _parts(curve.points, self._scale) if part]
        if not curve.label or not parts:
            return
        end = parts[-1][-1]
        row, text = self._scale.row(end[1]), curve.label
        column = min(self._scale.column(end[0]) + 2, self._scale.columns - len(text))
        for each in (row, row - 1, row + 1, row + 2, row - 2):
            if 0 <= each < self._scale.rows and column >= 0:
                room = self._cells[each][max(column - 1, 0) : column + len(text) + 1]
                if all(character == " " for character, _ in room):
                    for index, character in enumerate(text):
                        self.put(each, column + index, character, "dim")
                    return

    def mark_unplaced(self, curve: Curve, placed: set[int]) -> None:
        """Mark on the top row the points that have no place on the scale: all but those of the frames given."""
        for point in curve.points:
            if point.index not in placed and not curve.behind:
                self.put(0, self._scale.column(point.iteration), "!", "error")

    def mark_shown(self, points: Sequence[Point]) -> None:
        """Mark where the frame that is shown stands, if it is in the drawing."""
        for point in points:
            if self._scale.first <= point.iteration <= self._scale.last:
                self.put(self._scale.row(point.value), self._scale.column(point.iteration), "◆", "now")

    def draw_cursor(self, iteration: int, curves: Sequence[Curve]) -> None:
        """Draw a line where values are read, and a ring on each curve."""
        column = self._scale.column(iteration)
        for row in range(self._scale.rows):
            if self._cells[row][column][0] == " ":
                self.put(row, column, "┊", "accent")
        for curve in curves:
            nearest = nearest_point(curve.points, iteration)
            if nearest is not None and not curve.behind:
                self.put(self._scale.row(nearest.value), column, "○", "accent")


def nearest_point(points: Sequence[Point], iteration: int) -> Point | None:
    """Return the last point up to an iteration, or the first one after it; None where there is none."""
    before = [point for point in points if point.iteration <= iteration]
    return before[-1] if before else next(iter(points), None)


def _overlaid(before: str, character: str) -> str:
    """Put one braille cell over another."""
    if "\u2800" <= before <= "\u28ff" and "\u2800" <= character <= "\u28ff":
        return chr(ord(before) | ord(character))
    return character


def _parts(points: Sequence[Point], scale: _Scale) -> Iterator[tuple[tuple[float, float], ...]]:
    """Yield a curve as pieces that lie within the limits, each an (iteration, value) a point; most have one piece."""
    low, high = scale.limits
    if all(low <= point.value <= high for point in points):
        yield tuple((float(point.iteration), point.value) for point in points)
        return
    part: list[tuple[float, float]] = []
    for before, point in pairwise([None, *points]):
        assert point is not None
        inside = low <= point.value <= high
        was_inside = before is not None and low <= before.value <= high
        if before is not None and inside != was_inside:
            part.append(_crossing(before, point, low, high))
        if inside:
            part.append((float(point.iteration), point.value))
        elif part:
            yield tuple(part)
            part = []
    if part:
        yield tuple(part)


def _crossing(before: Point, after: Point, low: float, high: float) -> tuple[float, float]:
    """Return where the line between two points, one of them within the limits, leaves these."""
    outside = after if low <= before.value <= high else before
    edge = high if outside.value > high else low
    share = (edge / 2 - before.value / 2) / (after.value / 2 - before.value / 2)
    return before.iteration + share * (after.iteration - before.iteration), edge


def _labels(values: Sequence[float], scale: _Scale, *, log_scale: bool) -> dict[int, str]:
    """Return the labels of the y axis, by row: round numbers, or the ends where there are not two of them."""
    low, high = scale.limits
    ticks = (log_ticks if log_scale else linear_ticks)(low, high, max((scale.rows + 1) // 2, 2))
    if len(ticks) >= 2 and min(values) < max(values):
        return {scale.row(math.log10(tick) if log_scale else tick): tick_label(tick, GUTTER - 2) for tick in ticks}
    ends = (max(values), min(values))
    return {scale.row(end): fitted(_power(end) if log_scale else end, GUTTER - 2) for end in ends if low <= end <= high}


def _power(exponent: float) -> float:
    return 10**exponent if exponent < 308 else sys.float_info.max


def _axis(scale: _Scale, changes: Sequence[int]) -> Line:
    """Draw the axis of iterations with round numbers in it, each beginning at its column, and its name at the end.

    The name gives way to marks of changes: it stands before those that are there.
    """
    columns = scale.columns
    line = ["─"] * columns
    name = " iteration"
    within = [change for change in changes if scale.first <= change + 1 and change <= scale.last]
    marks = {scale.column(min(change + 1, scale.last)) for change in within}
    if too_many_to_mark(within, columns):
        marks = set()
    for mark in marks:
        line[mark] = "▲"
    starts = range(columns - len(name), columns // 2, -1) if columns >= 24 else ()
    room = next((start for start in starts if marks.isdisjoint(range(start, start + len(name) + 1))), columns)
    if room < columns:
        line[room : room + len(name)] = name
    ticks = [int(tick) for tick in linear_ticks(scale.first, scale.last, max(columns // 10, 1)) if tick.is_integer()]
    free = 0
    for tick in dict.fromkeys([scale.first, *ticks]):
        text, at = str(tick), scale.column(tick)
        if free <= at and at + len(text) < room and "▲" not in line[at : at + len(text)]:
            line[at : at + len(text)] = text
            free = at + len(text) + 2
    text = "".join(line)
    pieces: Line = []
    for before, mark in zip(text.split("▲"), [*"▲" * text.count("▲"), ""], strict=True):
        pieces += [(before, "dim"), (mark, "accent")]
    return [piece for piece in pieces if piece[0]]


def _curve_limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """Return the range of the y axis: of all curves, but what is behind stretches it to no more than its double."""
    chosen = [point.value for curve in curves if not curve.behind for point in curve.points]
    behind = [point.value for curve in curves if curve.behind for point in curve.points]
    low, high = _limits(chosen or behind)
    if not behind or len(set(chosen)) < 2:
        return _limits([*chosen, *behind])
    room = high / 2 - low / 2
    return max(min(low, *behind), low - room), min(max(high, *behind), high + room)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Return a range that holds the values and is never empty."""
    low, high = min(values), max(values)
    if high / 2 - low / 2 <= abs(high) * 1e-9:
        room = abs(high) * 0.5 or 1.0
        return max(low - room, -sys.float_info.max), min(high + room, sys.float_info.max)
    return low, high


def _on_scale(points: Sequence[Point], log_scale: bool) -> list[Point]:
    """Return the points that have a place on the scale, there."""
    if not log_scale:
        return [point for point in points if math.isfinite(point.value)]
    positive = [point for point in points if math.isfinite(point.value) and point.value > 0]
    return [Point(point.index, point.iteration, math.log10(point.value)) for point in positive]


def _blocks(heights: Sequence[tuple[int, float]], scale: _Scale) -> list[str]:
    """Draw a curve through (column, value) in one row of blocks; of several values in a column the greatest."""
    greatest: dict[int, float] = {}
    for at, value in heights:
        greatest[at] = max(value, greatest.get(at, value))
    low, half = scale.limits[0], scale.limits[1] / 2 - scale.limits[0] / 2
    shares = {at: (value / 2 - low / 2) / half for at, value in greatest.items()}
    row = [" "] * scale.columns
    for at, share in shares.items():
        row[at] = LEVELS[1 + round(share * 7)]
    for (left, start), (right, end) in pairwise(shares.items()):
        for at in range(left + 1, right):
            row[at] = LEVELS[1 + round((start + (end - start) * (at - left) / (right - left)) * 7)]
    return row


@lru_cache(maxsize=16)
def _canvas(parts: tuple[tuple[tuple[float, float], ...], ...], scale: _Scale, *, dots: bool) -> list[str]:
    """Let plotext draw the pieces of a curve; it is fed with finite numbers alone, since others end the process."""
    columns, rows = scale.columns, scale.rows
    drawable = [part for part in parts if len(part) >= 2]
    if not drawable:
        return [" " * columns] * rows
    import plotext

    middle, half = scale.limits[0] / 2 + scale.limits[1] / 2, scale.limits[1] / 2 - scale.limits[0] / 2
    figure = plotext.figure
    figure.clear()
    plotext.terminal.limit(False, False)  # or it would cut the plot to what it takes the terminal's size to be
    figure.theme("colorless")
    figure.plot_size(columns, rows)
    figure.axes(False)
    for axis in "xy":
        for side in (0, 1):
            figure.ruler(axis, side).frequency(0)
    figure.ruler("x").lim(scale.first, scale.last)
    figure.ruler("y").lim(-1, 1)
    for part in drawable:
        # What lies far outside ends the process too.
        iterations = [min(max(iteration, scale.first), scale.last) for iteration, _ in part]
        values = [min(max(value / half - middle / half, -1.0), 1.0) for _, value in part]
        signal = figure.signal(iterations, values, marker="braille")
        figure.draw(signal if dots else signal.lines())
    drawn = plotext.uncolorize(str(figure.build())).split("\n")[:rows]
    return [f"{line:<{columns}}"[:columns] for line in drawn] + [" " * columns] * (rows - len(drawn))
