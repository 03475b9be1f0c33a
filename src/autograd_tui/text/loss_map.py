"""The loss over two values as a map: how high it is, the way that training took, and where it is lowest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence, Set
from functools import lru_cache
from math import hypot

from autograd_tui.core.loss_surface import LossSurface
from autograd_tui.text.picture_lines import LEVEL_CHARACTERS, LEVELS, joined, levels_of, resampled
from autograd_tui.text.styled_text import Line, Span

FLOOR = 1e-4  # of the greatest loss: what is below is all of the lowest level
GUTTER = 7  # columns for the labels of the y axis, and the axis
MIN_COLUMNS, MIN_ROWS = 12, 4  # of a map
ROUNDING = 1e-3  # of a cell: what float32 leaves between a point and the edge that it lies on
CELL_HEIGHT = 2  # of a terminal's cell, in widths of it
MANY_POINTS = 64  # from which on their cells are found together
NONE, TO_COME = -1, -2  # in place of a level: where the loss is none, and where it is not measured yet
NO_LOSS = "!"  # NaN, infinity, or what raised
NOW, LOWEST, PASSED, AHEAD, LEFT = "@", "X", "•", "o", "·"

Point = tuple[float, float]


def map_lines(
    surface: LossSurface,
    width: int,
    height: int,
    *,
    way: Sequence[tuple[int, Point]],
    ahead: Sequence[Point] = (),
    branches: Iterable[tuple[str, Sequence[Point]]] = (),
    colors: bool = True,
) -> list[Line]:
    """Draw the map in `height` rows, the axes below and at the left included.

    way: the points that training went through, each with the iteration that begins there; it stands at the last one.
    ahead: points of the present branch after the shown one. branches: points of the runs that were left, each with a
    label. With colours a cell shows two heights, one over the other, by styles "levels:UPPER/LOWER", and a mark has
    the style "mark:LEVEL"; without, a height is a character.
    """
    columns, rows = _room(width, height)
    if columns < MIN_COLUMNS or rows < MIN_ROWS:
        return []
    marks = _Marks(surface, columns, rows)
    branches = list(branches)
    for _, points in branches:
        marks.add(points, LEFT)
    marks.add(ahead, AHEAD)
    marks.add([point for _, point in way], PASSED)
    first = dict(reversed([(iteration, point) for iteration, point in way if iteration < 10]))
    for iteration in sorted(first):
        marks.number(iteration, first[iteration])
    if lowest := surface.lowest:
        marks.add([lowest], LOWEST)
    marks.add([point for _, point in way[-1:]], NOW)
    for label, points in branches:
        marks.label(label, points)
    lines = []
    for row, (cells, dim) in enumerate(zip(marks.cells, marks.dim, strict=True)):
        spans = _row(surface, columns, rows, row, tuple(cells.items()), frozenset(dim), colors=colors)
        lines.append([(_y_label(surface, row, rows), "dim"), *spans])
    return [*lines, [(_x_labels(surface, columns), "dim")]]


class _Marks:
    """What stands on the map, by row and column; later marks cover earlier ones."""

    def __init__(self, surface: LossSurface, columns: int, rows: int) -> None:
        self._surface, self._columns, self._rows = surface, columns, rows
        self.cells: list[dict[int, str]] = [{} for _ in range(rows)]
        self.dim: list[set[int]] = [set() for _ in range(rows)]  # columns of what belongs to runs that were left

    def add(self, points: Sequence[Point], mark: str) -> None:
        for row, column in _cells(self._surface, points, self._columns, self._rows):
            self._put(row, column, mark)

    def number(self, iteration: int, point: Point) -> None:
        """Write an iteration's number, unless it would stand beside another: 1 and 2 read as 12."""
        if (cell := self._cell(point)) is not None:
            row, column = cell
            if not any(self.cells[row].get(column + by, "").isdigit() for by in (-1, 0, 1)):
                self._put(row, column, str(iteration))

    def _put(self, row: int, column: int, mark: str) -> None:
        self.cells[row][column] = mark

    def label(self, text: str, points: Sequence[Point]) -> None:
        """Write a label beside the last of the points that is seen on the map, at the side where no mark is."""
        cells = [cell for point in points if (cell := self._cell(point)) is not None]
        seen = [(row, column) for row, column in cells if self.cells[row][column] == LEFT]
        if not seen:
            return
        row, column = seen[-1]
        length = len(text) + 1
        for written, start in ((f" {text}", column + 1), (f"{text} ", column - length)):
            if 0 <= start <= self._columns - length and self.cells[row].keys().isdisjoint(range(start, start + length)):
                self.cells[row] |= zip(range(start, start + length), written, strict=True)
                self.dim[row] |= {*range(start, start + length)}
                return

    def _cell(self, point: Point) -> tuple[int, int] | None:
        return _cell(self._surface, point, self._columns, self._rows)


def _room(width: int, height: int) -> tuple[int, int]:
    """Return how many columns and rows of a panel the map itself has."""
    return width - GUTTER, height - 1


def _cell(surface: LossSurface, point: Point, columns: int, rows: int) -> tuple[int, int] | None:
    """Return the row and the column of a point; None where it is not on the map."""
    x, y = point
    if not surface.contains(x, y):
        return None
    across = (x - surface.x[0]) / (surface.x[1] - surface.x[0])
    down = (surface.y[1] - y) / (surface.y[1] - surface.y[0])
    row, column = int(down * rows + ROUNDING), int(across * columns + ROUNDING)
    return min(row, rows - 1), min(column, columns - 1)


def _cells(surface: LossSurface, points: Sequence[Point], columns: int, rows: int) -> list[tuple[int, int]]:
    """Return the rows and columns of the points that are on the map, as `_cell` does, each once.

    A long run has thousands of points, in a few cells.
    """
    if len(points) < MANY_POINTS:
        return [cell for point in points if (cell := _cell(surface, point, columns, rows)) is not None]
    import numpy as np

    x, y = np.array(points).T
    inside = (surface.x[0] <= x) & (x <= surface.x[1]) & (surface.y[0] <= y) & (y <= surface.y[1])
    across = (x[inside] - surface.x[0]) / (surface.x[1] - surface.x[0])
    down = (surface.y[1] - y[inside]) / (surface.y[1] - surface.y[0])
    row = np.minimum((down * rows + ROUNDING).astype(int), rows - 1)
    column = np.minimum((across * columns + ROUNDING).astype(int), columns - 1)
    return [divmod(int(each), columns) for each in np.unique(row * columns + column)]


def nearest_point(
    surface: LossSurface, points: Sequence[Point], width: int, height: int, *, column: int, row: int
) -> int | None:
    """Return the index of the point that is drawn nearest to a cell of a map of this size; of several the last one."""
    columns, rows = _room(width, height)
    best: tuple[float, int] | None = None
    for index, point in enumerate(points):
        cell = _cell(surface, point, columns, rows)
        if cell is not None:
            distance = hypot(CELL_HEIGHT * (cell[0] - row), cell[1] + GUTTER - column)
            if best is None or distance <= best[0]:
                best = distance, index
    return None if best is None else best[1]


@lru_cache(maxsize=8)
def _levels(surface: LossSurface, columns: int, rows: int, count: int) -> list[list[int]]:
    """Return the level of each cell, 0 for the lowest, in rows from the top; NONE or TO_COME where there is none.

    The levels divide the logarithm of the loss, and the loss itself where some of it is not positive.
    """
    import numpy as np

    grid = np.frombuffer(surface.losses).reshape(surface.rows, surface.columns)[::-1]
    finite = grid[np.isfinite(grid)]
    if not finite.size:
        return [[NONE] * columns for _ in range(rows)]
    low, high = float(finite.min()), float(finite.max())
    heights = grid
    if low >= 0 < high:
        low = max(low, high * FLOOR)
        heights, low, high = np.log(np.maximum(grid, low)), float(np.log(low)), float(np.log(high))
    levels = levels_of((resampled(heights, rows, columns) - low) / ((high - low) or 1.0), count)
    to_come = (surface.rows - surface.measured_rows) / (surface.rows - 1)  # a share of the rows, from the top
    return [[TO_COME] * columns if (row + 0.5) / rows < to_come else levels[row] for row in range(rows)]


@lru_cache(maxsize=256)  # each key draws the same map again, with other marks on a few of its rows
def _row(
    surface: LossSurface,
    columns: int,
    rows: int,
    row: int,
    marks: tuple[tuple[int, str], ...],
    dim: frozenset[int],
    *,
    colors: bool,
) -> list[Span]:
    """Return the text of a row of the map, with marks by column, of which some are dim."""
    if not colors:
        return _plain(_levels(surface, columns, rows, len(LEVEL_CHARACTERS))[row], dict(marks), dim)
    levels = _levels(surface, columns, rows * 2, LEVELS)
    return _colored(levels[2 * row], levels[2 * row + 1], dict(marks), dim)


def _colored(upper: Sequence[int], lower: Sequence[int], marks: dict[int, str], dim: Set[int]) -> list[Span]:
    cells = []
    for column, (above, below) in enumerate(zip(upper, lower, strict=True)):
        mark = marks.get(column)
        level = max(above, below)
        if mark is None:
            signs = {NONE: (NO_LOSS, "dim"), TO_COME: (" ", "")}
            cells.append(signs.get(level) or ("▀", f"levels:{above}/{below}"))
        elif mark == NOW or column in dim:
            cells.append((mark, "now" if mark == NOW else "dim"))
        else:
            cells.append((mark, f"mark:{level}" if level >= 0 else "strong"))
    return joined(cells)


def _plain(levels: Sequence[int], marks: dict[int, str], dim: Set[int]) -> list[Span]:
    signs = {NONE: NO_LOSS, TO_COME: " "}
    cells = []
    for column, level in enumerate(levels):
        mark = marks.get(column)
        style = "dim" if mark is None or column in dim else "now" if mark == NOW else "strong"
        cells.append((mark or signs.get(level) or LEVEL_CHARACTERS[level], style))
    return joined(cells)


def _y_label(surface: LossSurface, row: int, rows: int) -> str:
    name, (low, high) = surface.names[1], surface.y
    if row in (0, rows - 1):
        label = _edge(low if row else high, GUTTER - 1)
        return f"{label:>{GUTTER - 2}} ┤" if len(label) < GUTTER - 1 else f"{label}┤"
    label = name if len(name) <= 5 else "↑"
    return f"{label if row == rows // 2 else '':>5} │"


def _x_labels(surface: LossSurface, columns: int) -> str:
    name, (low, high) = surface.names[0], surface.x
    left, right = _edge(low, columns // 2), _edge(high, columns // 2)
    room = columns - len(left) - len(right)
    return " " * (GUTTER - 1) + "└" + left + f"{name if len(name) <= room else '':^{room}}" + right


def _edge(value: float, width: int) -> str:
    """Return where the map ends, with as many digits as fit; nothing where not even one does."""
    for digits in (5, 4, 3, 2, 1):
        label = re.sub(r"e\+?(-?)0*", r"e\1", f"{value:.{digits}g}")
        if len(label) <= width:
            return label
    return ""
