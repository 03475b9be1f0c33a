"""A picture of what a model has learned, as lines: rows of text, texts compared, points, or a plane of two hues."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise, zip_longest
from math import isfinite
from typing import Any

from autograd_tui.core.picture import Picture, Plane, Point
from autograd_tui.text.numbers import linear_ticks, tick_label
from autograd_tui.text.styled_text import Line, Span, printable, wrapped

LEVELS = 16  # of the colours
LEVEL_CHARACTERS = " .:-=+*#%"  # of the levels where there are no colours, the lowest first
GLYPHS = "ox*+#%&@"  # of the points, by name in turn
WRONG_GLYPHS = ("O", "X")  # of points of two classes on the wrong side
STYLES = ("dim", "accent", "strong", "up", "down", "warn")  # of the same
SIDE_LEVELS = 8  # of a plane in colours, half of them below 0.5: the more, the more goes to the terminal in a run
CHARACTERS = " .:-+*#%"  # of the levels of a plane without colours: the first half is below 0.5
GUTTER = 8  # columns for the labels of the y axis, and the axis
MIN_COLUMNS, MIN_ROWS = 12, 3  # of a plot or a plane
MARK_SPACING = 3  # columns between two glyphs on a line
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a braille cell, by row and column


def resampled(grid: Any, rows: int, columns: int) -> Any:
    """Return the values of a grid at the centres of rows x columns cells laid over it, bilinear between its points.

    Those near NaN and infinities are none.
    """
    import numpy as np  # where it is needed: the screen shows itself before there is anything to lay out

    row_at, column_at = (
        (np.arange(count) + 0.5) / count * (size - 1) for count, size in zip((rows, columns), grid.shape, strict=True)
    )
    top, left = (np.minimum(at.astype(int), size - 2) for at, size in zip((row_at, column_at), grid.shape, strict=True))
    down, across = (row_at - top)[:, None], (column_at - left)[None, :]
    with np.errstate(all="ignore"):
        above = grid[np.ix_(top, left)] * (1 - across) + grid[np.ix_(top, left + 1)] * across
        below = grid[np.ix_(top + 1, left)] * (1 - across) + grid[np.ix_(top + 1, left + 1)] * across
        return above * (1 - down) + below * down


def levels_of(shares: Any, count: int) -> list[list[int]]:
    """Return the level from 0 to count - 1 of each share from 0 to 1; -1 for NaN and infinities."""
    import numpy as np

    whole = np.clip(np.nan_to_num(shares), 0, 1) * count
    levels = np.where(np.isfinite(shares), np.minimum(whole, count - 1), -1).astype(int)
    return [list(map(int, row)) for row in levels]


def joined(cells: Iterable[Span]) -> list[Span]:
    """Join neighbours of the same style."""
    spans: list[Span] = []
    for text, style in cells:
        if spans and spans[-1][1] == style:
            spans[-1] = spans[-1][0] + text, style
        else:
            spans.append((text, style))
    return spans


@lru_cache(maxsize=8)
def picture_lines(picture: Picture, width: int, height: int, *, colors: bool = True) -> list[Line]:
    """Draw a picture in `height` rows; with colours a plane's cell has a style "sides:UPPER/LOWER" of two levels."""
    if picture.problem:
        return wrapped(picture.problem, width, style="error")
    if picture.plane is not None:
        return _plane_lines(picture, picture.plane, width, height, colors=colors)
    if picture.points:
        return _point_lines(picture.points, width, height)
    if picture.texts:
        return _text_lines(picture.texts, width, height)
    if picture.rows:
        return [[(printable(row), "")] for row in picture.rows]
    return [[("the picture is empty", "dim")]]


def legend(picture: Picture) -> str:
    """Return what the glyphs stand for, "o truth   x predicted", or what is bold in the last of several texts."""
    if len(picture.texts) > 1:
        *_, before, _ = picture.texts
        return f"bold: as {before}"
    return "   ".join(f"{glyph} {name}" for glyph, name in zip(GLYPHS, picture.points, strict=False))


def age(picture: Picture, index: int, steps: int) -> str:
    """Return which parameters a picture is of, where frame `index`, after so many steps, is shown."""
    taken = f"after {picture.steps:,} step{'s' * (picture.steps != 1)}" if picture.steps else "before the first step"
    if picture.index <= index:
        return taken
    return f"{taken}, not {steps:,}" if picture.steps != steps else f"{taken}, of a later frame"


def _text_lines(texts: Mapping[str, str], width: int, height: int) -> list[Line]:
    """Draw texts one below the other, broken at the same columns, with empty rows between where there is room.

    Of the last one what equals the text before it is bold; where it is nothing but blanks they are underlines.
    """
    gutter = min(max(map(len, texts)) + 2, width // 3)
    columns = max(width - gutter, 8)
    clean = ["".join(each if each.isprintable() else " " for each in text) for text in texts.values()]
    *_, (before, last) = pairwise(["", *clean])
    groups: list[list[Line]] = []
    for start in range(0, max(map(len, clean)), columns):
        groups.append([])
        for name, text in zip(texts, clean, strict=True):
            part = text[start : start + columns]
            label: Span = (f"{printable(name)[: max(gutter - 2, 0)]:<{gutter}}", "dim")
            if part and text is last and len(texts) > 1:
                pairs = zip_longest(part, before[start : start + len(part)])
                blank = " " if part.strip() else "_"
                cells = ((own.replace(" ", blank), "strong" if own == other else "dim") for own, other in pairs)
                groups[-1].append([label, *joined(cells)])
            elif part:
                groups[-1].append([label, (part, "")])
    rows = [row for group in groups for row in group]
    if len(rows) + len(groups) - 1 > height:
        return rows
    return [row for group in groups for row in [*group, []]][:-1]


def _point_lines(points: Mapping[str, Sequence[Point]], width: int, height: int) -> list[Line]:
    """Draw points over a common range; those whose x only rise are joined by a line of their style."""
    columns, rows = width - GUTTER, height - 1
    finite = {name: [(x, y) for x, y in each if isfinite(x) and isfinite(y)] for name, each in points.items()}
    everything = [point for each in finite.values() for point in each]
    if columns < MIN_COLUMNS or rows < MIN_ROWS:
        return []
    if not everything:
        return [[("no finite points to draw", "warn")]]
    x, y = (_range([point[axis] for point in everything]) for axis in (0, 1))
    cells: list[dict[int, Span]] = [{} for _ in range(rows)]
    for index, series in enumerate(finite.values()):
        style, glyph = STYLES[index % len(STYLES)], GLYPHS[index % len(GLYPHS)]
        at = [(_place(point[0], x, columns * 2), _place(y[0] + y[1] - point[1], y, rows * 4)) for point in series]
        is_line = len(at) > 1 and all(here[0] < there[0] for here, there in pairwise(series))
        if is_line:
            for row, column, dots in _joined_dots(at):
                cells[row][column] = chr(0x2800 + dots), style
        free = 0
        for dot_column, dot_row in at:
            if not is_line or dot_column // 2 >= free:
                cells[dot_row // 4][dot_column // 2] = glyph, style
                free = dot_column // 2 + MARK_SPACING
    lines: list[Line] = []
    labels = {
        _place(y[0] + y[1] - tick, y, rows): tick_label(tick, GUTTER - 2) for tick in linear_ticks(*y, (rows + 1) // 2)
    }
    for row, spans in enumerate(cells):
        axis = f"{labels.get(row, ''):>{GUTTER - 2}} {'┤' if row in labels else '│'}"
        lines.append([(axis, "dim"), *joined(spans.get(column, (" ", "")) for column in range(columns))])
    return [*lines, [(_x_axis(x, columns), "dim")]]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return a range that holds finite values and is not empty."""
    low, high = min(values), max(values)
    margin = max(abs(low), abs(high)) * 1e-9
    if high / 2 - low / 2 > margin:
        return low, high
    return low - (abs(low) / 2 or 1.0), high + (abs(high) / 2 or 1.0)


def _place(value: float, ends: tuple[float, float], count: int) -> int:
    """Return in which of `count` equal parts of a range a value is."""
    low, high = ends
    return max(0, min(int((value / 2 - low / 2) / (high / 2 - low / 2) * count), count - 1))


def _joined_dots(at: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Yield row, column and dots of the braille cells on the way through points, each (dot column, dot row)."""
    dots: dict[tuple[int, int], int] = {}
    for (column, row), (to_column, to_row) in pairwise(at):
        count = max(abs(to_column - column), abs(to_row - row), 1)
        for step in range(count + 1):
            x = column + round((to_column - column) * step / count)
            y = row + round((to_row - row) * step / count)
            cell = y // 4, x // 2
            dots[cell] = dots.get(cell, 0) | DOTS[y % 4][x % 2]
    return ((row, column, each) for (row, column), each in dots.items())


def _x_axis(x: tuple[float, float], columns: int) -> str:
    """Draw the axis below with round numbers in it, each centred under its place."""
    line = ["─"] * columns
    free = 0
    for tick in linear_ticks(*x, max(columns // 10, 3)):
        text = tick_label(tick, 8)
        start = max(min(_place(tick, x, columns) - len(text) // 2, columns - len(text)), 0)
        if start >= free:
            line[start : start + len(text)] = text
            free = start + len(text) + 2
    return " " * (GUTTER - 1) + "└" + "".join(line)


def _plane_lines(picture: Picture, plane: Plane, width: int, height: int, *, colors: bool) -> list[Line]:
    """Draw a plane, its upper end of y above, with points on it."""
    columns, rows = width - GUTTER, height - 1
    if columns < MIN_COLUMNS or rows < MIN_ROWS:
        return []
    levels = _levels(plane, columns, rows * 2 if colors else rows, SIDE_LEVELS if colors else len(CHARACTERS))
    marks: list[dict[int, str]] = [{} for _ in range(rows)]
    (left, right), (low, high) = plane.x, plane.y
    for index, series in enumerate(picture.points.values()):
        for x, y in series:
            if left <= x <= right and low <= y <= high:
                row, column = _place(low + high - y, plane.y, rows), _place(x, plane.x, columns)
                if is_on_wrong_side(plane, index, x, y):
                    marks[row][column] = GLYPHS[index].upper()
                elif marks[row].get(column) not in WRONG_GLYPHS:  # which a right one must not hide
                    marks[row][column] = GLYPHS[index % len(GLYPHS)]
    labels = {0: high, rows - 1: low}
    lines: list[Line] = []
    for row in range(rows):
        label = f"{tick_label(labels[row], GUTTER - 2):>{GUTTER - 2}} ┤" if row in labels else f"{'│':>{GUTTER}}"
        upper, lower = (levels[2 * row], levels[2 * row + 1]) if colors else (levels[row], None)
        lines.append([(label, "dim"), *joined(_cells(upper, lower, marks[row]))])
    return [*lines, [(_x_axis(plane.x, columns), "dim")]]


def is_on_wrong_side(plane: Plane, index: int, x: float, y: float) -> bool:
    """Return whether a point of class 0 lies where the plane says class 1, or the other way round."""
    if not plane.classes or index > 1:
        return False
    values = plane.values
    at = [(y - plane.y[0]) / (plane.y[1] - plane.y[0]) * (len(values) - 1)]
    at += [(x - plane.x[0]) / (plane.x[1] - plane.x[0]) * (len(values[0]) - 1)]
    (row, column), share = map(int, at), 0.0
    for near_row, row_share in ((row, 1 - at[0] % 1), (row + 1, at[0] % 1)):
        for near_column, column_share in ((column, 1 - at[1] % 1), (column + 1, at[1] % 1)):
            if row_share and column_share:
                share += values[near_row][near_column] * row_share * column_share
    return share > 0.5 if index == 0 else share < 0.5


def _cells(upper: Sequence[int], lower: Sequence[int] | None, marks: Mapping[int, str]) -> Iterator[Span]:
    """Yield the cells of a row: two levels each in two hues, or, with no `lower`, one level as a character."""
    for column, level in enumerate(upper):
        mark = marks.get(column)
        wrong = mark in WRONG_GLYPHS
        if lower is None:
            style = "error" if wrong else "strong"
            yield (mark, style) if mark else ("!" if level < 0 else CHARACTERS[level], "dim")
        elif mark:
            yield mark, f"{'wrong' if wrong else 'side'}:{max(level, lower[column])}"
        else:
            yield "▀", f"sides:{level}/{lower[column]}"


@lru_cache(maxsize=8)
def _levels(plane: Plane, columns: int, rows: int, count: int) -> list[list[int]]:
    """Return the level of each cell, 0 for the least, in rows from the top; -1 where there is no value."""
    import numpy as np

    return levels_of(resampled(np.array(plane.values)[::-1], rows, columns), count)
