from __future__ import annotations

import math
import re
from array import array
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.core.loss_surface import COLUMNS, ROWS, LossSurface, Quadratic
from autograd_tui.text import loss_map
from autograd_tui.text.loss_map import GUTTER, map_lines, nearest_point
from autograd_tui.text.picture_lines import LEVEL_CHARACTERS
from autograd_tui.text.styled_text import length, plain

WIDTH, HEIGHT = 50, 15


Edges = tuple[float, float]
values = st.one_of(st.floats(-1e12, 1e12), st.sampled_from([-10000.0, 0.12345, -1.5e-7, 1e-300, -1e300]))
edges = st.lists(values, min_size=2, max_size=2, unique=True).map(sorted).map(tuple)


def bowl(x: float, y: float) -> float:
    return (x - 3) ** 2 + 2 * (y - 1) ** 2 + 0.01


def surface() -> LossSurface:
    """Return a bowl over 0 to 4 and -1 to 3, lowest at (3, 1)."""
    losses = array(
        "d",
        (
            bowl(4 * column / (COLUMNS - 1), 4 * row / (ROWS - 1) - 1)
            for row in range(ROWS)
            for column in range(COLUMNS)
        ),
    )
    lowest = Quadratic(3.0, 1.0, 0.01, 2.0, 0.0, 4.0, exact=True)
    return LossSurface(("w", "b"), (0.0, 4.0), (-1.0, 3.0), losses, lowest)


def cell_of(x: float, y: float) -> tuple[int, int]:
    """Return the row and the column of a point."""
    rows, columns = HEIGHT - 1, WIDTH - GUTTER
    return min(int((3 - y) / 4 * rows), rows - 1), GUTTER + min(int(x / 4 * columns), columns - 1)


def test_marks_stand_where_their_points_are() -> None:
    way = [(1, (0.5, 2.5)), (2, (1.5, 2.0)), (30, (2.0, 1.5)), (31, (2.6, 1.2))]
    rows = [plain(line) for line in map_lines(surface(), WIDTH, HEIGHT, way=way, ahead=[(2.8, 0.2)])]
    marks = {"1": (0.5, 2.5), "2": (1.5, 2.0), "•": (2.0, 1.5), "@": (2.6, 1.2), "o": (2.8, 0.2), "X": (3.0, 1.0)}
    for mark, point in marks.items():
        row, column = cell_of(*point)
        assert rows[row][column] == mark


@pytest.mark.parametrize("rounding", [-1e-6, 1e-6])
def test_what_has_reached_the_lowest_point_stands_on_it(rounding: float) -> None:
    lines = map_lines(surface(), WIDTH, 17, way=[(1, (3 + rounding, 1 + rounding))])  # 1 is an edge between rows
    assert not any("X" in plain(line)[GUTTER:] for line in lines)


@pytest.mark.parametrize("width", [19, 30, WIDTH])
@pytest.mark.parametrize("name", ["w", "a.very.long.name.of.a.parameter"])
@given(edges, edges)
def test_no_row_is_wider_than_the_map_whatever_the_axes_say(width: int, name: str, x: Edges, y: Edges) -> None:
    shown = replace(surface(), names=(name, name), x=x, y=y)
    assert {length(line) for line in map_lines(shown, width, HEIGHT, way=[])} == {width}


def test_an_edge_of_six_characters_is_said_in_full() -> None:
    rows = [plain(line) for line in map_lines(replace(surface(), y=(-10000.0, 10000.0)), WIDTH, HEIGHT, way=[])]
    assert rows[0].startswith("10000 ┤")
    assert rows[-2].startswith("-10000┤")


def test_a_height_is_a_character_where_there_are_no_colours() -> None:
    rows = [plain(line)[GUTTER:] for line in map_lines(surface(), WIDTH, HEIGHT, way=[], colors=False)[:-1]]
    drawn = [
        (bowl(4 * (column + 0.5) / len(row), 3 - 4 * (index + 0.5) / len(rows)), LEVEL_CHARACTERS.index(character))
        for index, row in enumerate(rows)
        for column, character in enumerate(row)
        if character != "X"
    ]
    for (loss, level), (higher, other) in zip(sorted(drawn), sorted(drawn)[40:], strict=False):
        assert level <= other + 1, (loss, higher)
    assert {level for _, level in drawn} >= set(range(1, len(LEVEL_CHARACTERS)))


@given(st.lists(st.tuples(st.floats(-1, 5), st.floats(-2, 4)), min_size=1, max_size=12), st.booleans())
def test_every_row_is_as_wide_as_the_panel_and_no_two_numbers_touch(
    points: list[tuple[float, float]], colors: bool
) -> None:
    lines = map_lines(surface(), WIDTH, HEIGHT, way=list(enumerate(points, 1)), colors=colors)
    assert [length(line) for line in lines] == [WIDTH] * HEIGHT
    assert not any(re.search(r"\d\d", plain(line)[GUTTER:]) for line in lines[:-1])


@given(st.lists(st.tuples(st.floats(-1, 5), st.floats(-2, 4)), min_size=1, max_size=12))
def test_many_points_are_drawn_where_few_are(points: list[tuple[float, float]]) -> None:
    few = {cell for point in points if (cell := loss_map._cell(surface(), point, 40, 12)) is not None}
    assert set(loss_map._cells(surface(), points * loss_map.MANY_POINTS, 40, 12)) == few


@pytest.mark.parametrize("size", [(18, 10), (50, 4), (0, 0)])
def test_nothing_is_drawn_where_there_is_no_room(size: tuple[int, int]) -> None:
    assert map_lines(surface(), *size, way=[]) == []


def test_what_is_no_loss_has_a_sign_of_its_own() -> None:
    measured = surface()
    measured.losses[:] = array("d", [math.nan] * len(measured.losses))
    lines = map_lines(measured, WIDTH, HEIGHT, way=[(1, (0.5, 2.5))], colors=False)
    assert "!!!!" in plain(lines[5])


@pytest.mark.parametrize("colors", [True, False])
def test_rows_that_are_not_measured_yet_are_blank(colors: bool) -> None:
    half = replace(surface(), measured_rows=ROWS // 2, quadratic=None)
    half.losses[ROWS // 2 * COLUMNS :] = array("d", [math.nan] * (ROWS // 2 * COLUMNS))
    rows = [plain(line)[GUTTER:] for line in map_lines(half, WIDTH, HEIGHT, way=[(1, (1.5, -0.6))], colors=colors)]
    blank = [not row.strip() for row in rows[:-1]]
    assert blank.index(False) in (6, 7)
    assert not any(blank[blank.index(False) + 3 :])
    assert "@" in "".join(rows)


@pytest.mark.parametrize("colors", [True, False])
def test_a_run_that_was_left_has_its_label_beside_its_last_point_on_the_map(colors: bool) -> None:
    branches = [("lr 0.19", [(0.5, 2.5), (1.0, 2.0), (9.0, 9.0)]), ("branch 1", [(3.9, -0.9)]), ("gone", [(9.0, 9.0)])]
    lines = map_lines(surface(), WIDTH, HEIGHT, way=[(1, (0.5, 2.5))], branches=branches, colors=colors)
    rows = [plain(line) for line in lines]
    (row, column), (other_row, other_column) = cell_of(1.0, 2.0), cell_of(3.9, -0.9)
    assert rows[row][column : column + 9] == "· lr 0.19"
    assert rows[other_row][other_column - 9 : other_column + 1] == "branch 1 ·"
    assert not any("gone" in each for each in rows)
    assert ("lr 0.19", "dim") in lines[row] or any("lr 0.19" in text and style == "dim" for text, style in lines[row])


@pytest.mark.parametrize("colors", [True, False])
def test_a_label_covers_no_point_and_no_point_covers_a_label(colors: bool) -> None:
    left = [("lr 0.19", [(1.0, 2.0)])]
    left_of_it, right_of_it = [[(1.0 + side * 0.1 * step, 2.0) for step in range(1, 9)] for side in (-1, 1)]
    row, column = cell_of(1.0, 2.0)
    seen = {"lr 0.19 ·": right_of_it, "·": [*left_of_it, *right_of_it], "": [(1.0, 2.0)]}
    for label, way in seen.items():
        steps = list(enumerate(way))
        drawn, bare = (
            plain(map_lines(surface(), WIDTH, HEIGHT, way=steps, branches=branches, colors=colors)[row])
            for branches in (left, [])
        )
        assert drawn == bare[: column + 1 - len(label)] + label + bare[column + 1 :]


def test_the_point_nearest_to_a_cell_is_found() -> None:
    points = [(0.5, 2.5), (1.5, 2.0), (9.0, 9.0), (1.5, 2.0)]
    for point, index in ((points[0], 0), (points[1], 3)):
        row, column = cell_of(*point)
        assert nearest_point(surface(), points, WIDTH, HEIGHT, column=column + 1, row=row) == index
    assert nearest_point(surface(), [(9.0, 9.0)], WIDTH, HEIGHT, column=20, row=5) is None


def test_the_lowest_point_is_the_lowest_that_was_measured_where_no_other_is_known() -> None:
    x, y = replace(surface(), quadratic=None).lowest or (0.0, 0.0)
    assert abs(x - 3) <= 2 / (COLUMNS - 1)
    assert abs(y - 1) <= 2 / (ROWS - 1)
