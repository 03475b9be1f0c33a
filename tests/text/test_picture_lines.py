"""Pictures of what a model has learned, as plain lines."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.core.picture import Picture, Plane
from autograd_tui.text.picture_lines import CHARACTERS, age, legend, picture_lines
from autograd_tui.text.styled_text import Line, length, plain
from picture_frames import line_frames


def made(*, index: int = 4, steps: int = 1, **content: Any) -> Picture:
    frame = line_frames()[0]
    return Picture(index, steps, frame.params, frame.buffers, **content)


def texts(lines: list[Line]) -> list[str]:
    return [plain(line) for line in lines]


HALF = Plane([[0.0, 0.0], [1.0, 1.0]], (-1.0, 1.0), (-1.0, 1.0))


def test_rows_are_shown_as_they_are_without_what_would_steer_a_terminal() -> None:
    assert texts(picture_lines(made(rows=("a  b", "\x1b[2Jc")), 40, 9)) == ["a  b", "c"]


def test_texts_are_broken_at_the_same_column_and_equal_letters_are_bold() -> None:
    lines = picture_lines(made(texts={"given": "ab", "truth": "0123456789abcdef", "written": "0x23456789 yzde"}), 21, 6)
    assert texts(lines) == [
        "given  ab",
        "truth  0123456789abcd",
        "writt  0x23456789 yzd",
        "",
        "truth  ef",
        "writt  e",
    ]
    written = lines[2][1:]
    assert written == [("0", "strong"), ("x", "dim"), ("23456789", "strong"), (" yz", "dim"), ("d", "strong")]


def test_texts_have_no_empty_rows_where_there_is_no_room_for_them() -> None:
    lines = picture_lines(made(texts={"truth": "0123456789abcdef", "written": "0"}), 21, 3)
    assert texts(lines) == ["truth  0123456789abcd", "writt  0", "truth  ef"]


def test_a_text_of_blanks_can_be_seen() -> None:
    lines = picture_lines(made(texts={"truth": "a b", "written": "   "}), 40, 3)
    assert texts(lines) == ["truth    a b", "written  ___"]
    assert lines[1][1:] == [("_", "dim"), ("_", "strong"), ("_", "dim")]


def test_points_stand_at_their_places_between_the_ticks() -> None:
    lines = texts(picture_lines(made(points={"a": [(1, 0), (0, 1), (0.5, 0.5)]}), 28, 6))
    assert lines == [
        "     1 ┤o                   ",
        "       │                    ",
        "   0.5 ┤          o         ",
        "       │                    ",
        "     0 ┤                   o",
        "       └0────────0.5───────1",
    ]


def test_what_rises_in_x_is_joined_by_a_line_and_marked_now_and_then() -> None:
    lines = texts(picture_lines(made(points={"a": [(x, 0.0) for x in range(20)]}), 28, 6))
    assert lines[2] == "     0 ┤o⠤⠤o⠤⠤o⠤⠤o⠤⠤o⠤⠤o⠤⠤o⠤"
    assert lines[-1] == "       └0────────10─────────"


def test_later_names_have_other_glyphs_and_cover_earlier_ones() -> None:
    picture = made(points={"truth": [(0, 0), (1, 1)], "predicted": [(1, 1)]})
    assert legend(picture) == "o truth   x predicted"
    drawn = "\n".join(texts(picture_lines(picture, 30, 8)))
    assert drawn.count("o") == 1
    assert drawn.count("x") == 1


def test_a_plane_is_dark_on_one_side_and_bright_on_the_other_also_in_characters() -> None:
    picture = made(plane=HALF, points={"a": [(0.9, 0.9)], "b": [(-0.9, -0.9)], "c": [(5, 5)]})
    rows = texts(picture_lines(picture, 28, 9, colors=False))
    assert rows[0] == "     1 ┤%%%%%%%%%%%%%%%%%%%o"
    assert rows[3] == "       │++++++++++++++++++++"
    assert rows[4] == "       │--------------------"
    assert rows[7] == "    -1 ┤x                   "
    colored = picture_lines(picture, 28, 9)
    assert colored[0][1:] == [("▀" * 19, "sides:7/7"), ("o", "side:7")]
    assert colored[7][1:] == [("x", "side:0"), ("▀" * 19, "sides:0/0")]


CLASSES = Plane([[0.0, 0.0], [1.0, 1.0]], (-1.0, 1.0), (-1.0, 1.0), classes=True)


def test_points_of_a_class_on_the_wrong_side_are_capitals_that_no_other_point_hides() -> None:
    points = {"a": [(0.9, -0.9), (-0.9, 0.2)], "b": [(0.9, 0.9), (-0.9, -0.2), (0.0, -0.9), (-0.9, 0.2)]}
    rows = texts(picture_lines(made(plane=CLASSES, points=points), 28, 9))
    assert [row[8] for row in rows[3:5]] == ["O", "X"]
    assert (rows[0][27], rows[7][27], rows[7][18]) == ("x", "o", "X")
    styles = {text: style for line in picture_lines(made(plane=CLASSES, points=points), 28, 9) for text, style in line}
    assert styles["O"].startswith("wrong:")
    assert styles["o"].startswith("side:")
    plain_styles = [
        span for line in picture_lines(made(plane=CLASSES, points=points), 28, 9, colors=False) for span in line
    ]
    assert ("O", "error") in plain_styles
    others = "\n".join(texts(picture_lines(made(plane=HALF, points=points), 28, 9)))
    assert "O" not in others
    assert "X" not in others


def test_no_two_levels_look_alike_and_as_many_are_on_either_side() -> None:
    assert len(set(CHARACTERS)) == len(CHARACTERS)
    assert len(CHARACTERS) % 2 == 0


def test_a_problem_is_a_sentence_in_the_panel() -> None:
    lines = picture_lines(made(problem="picture= raised ValueError: mine (mine.py, line 3)."), 30, 9)
    assert " ".join(texts(lines)) == "picture= raised ValueError: mine (mine.py, line 3)."
    assert all(style == "error" for line in lines for _, style in line)


@pytest.mark.parametrize(
    ("steps", "taken", "shown", "shown_steps", "words"),
    [
        (0, 0, 0, 0, "before the first step"),
        (1, 4, 4, 1, "after 1 step"),
        (1_200, 4_800, 4_801, 1_200, "after 1,200 steps"),
        (3, 12, 9, 2, "after 3 steps, not 2"),
        (3, 12, 11, 3, "after 3 steps, of a later frame"),
    ],
)
def test_a_picture_says_which_parameters_it_is_of(
    steps: int, taken: int, shown: int, shown_steps: int, words: str
) -> None:
    assert age(made(index=taken, steps=steps), shown, shown_steps) == words


def test_nothing_is_said_too() -> None:
    assert texts(picture_lines(made(), 30, 9)) == ["the picture is empty"]
    assert texts(picture_lines(made(points={"a": [(math.nan, 1.0)]}), 30, 9)) == ["no finite points to draw"]


numbers = st.floats(width=64)
points = st.dictionaries(st.text(max_size=4), st.lists(st.tuples(numbers, numbers), max_size=9), max_size=8)
ends = st.tuples(numbers, numbers).filter(lambda pair: pair[0] < pair[1] and math.isfinite(pair[0] - pair[1]))
grids = st.integers(2, 5).flatmap(
    lambda size: st.lists(st.lists(numbers, min_size=size, max_size=size), min_size=2, max_size=5)
)


@given(points, st.integers(0, 90), st.integers(0, 30))
def test_any_points_can_be_drawn(points: dict[str, list[tuple[float, float]]], width: int, height: int) -> None:
    lines = picture_lines(made(points={name: tuple(each) for name, each in points.items()}), width, height)
    assert all(length(line) <= max(width, 24) for line in lines)


@given(grids, ends, ends, points, st.integers(0, 90), st.integers(0, 30), st.booleans())
def test_any_plane_can_be_drawn(
    values: list[list[float]],
    x: tuple[float, float],
    y: tuple[float, float],
    points: dict[str, list[tuple[float, float]]],
    width: int,
    height: int,
    colors: bool,
) -> None:
    picture = made(plane=Plane(values, x, y), points={name: tuple(each) for name, each in points.items()})
    lines = picture_lines(picture, width, height, colors=colors)
    assert len(lines) <= height
    assert all(length(line) <= width for line in lines)


@given(st.dictionaries(st.text(max_size=9), st.text(max_size=300), min_size=1), st.integers(1, 90))
def test_any_texts_can_be_drawn(named: dict[str, str], width: int) -> None:
    picture_lines(made(texts=named), width, 9)
