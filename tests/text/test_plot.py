from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.core.history import Point
from autograd_tui.text.plot import GUTTER, MIN_ROWS, Curve, plot_columns, plot_lines
from autograd_tui.text.sparkline import LEVELS
from autograd_tui.text.styled_text import length, plain, to_ascii
from suite_options import examples


def points(*values: float) -> list[Point]:
    return [Point(place, place + 1, value) for place, value in enumerate(values)]


def text(*values: float, width: int = 60, height: int = 12, shown: int | None = None) -> str:
    listed = points(*values)
    marked = None if shown is None else listed[shown]
    return "\n".join(plain(line) for line in plot_lines(listed, width, height, shown=marked))


def test_every_row_fits_the_width_and_all_rows_the_height() -> None:
    lines = plot_lines(points(3.0, 2.0, 2.5, 1.0), 50, 9)
    assert len(lines) == 9
    assert max(map(length, lines)) == 50


def test_the_axes_name_round_values() -> None:
    drawn = text(3.6667, 3.3185, 3.1588).split("\n")
    assert [row.split("┤")[0].strip() for row in drawn if "┤" in row] == ["3.6", "3.5", "3.4", "3.3", "3.2"]
    axis = drawn[-1].lstrip()
    assert axis.startswith("└1─")
    assert "─2─" in axis
    assert axis.endswith("─ iteration")


def test_where_no_two_round_values_are_the_axis_names_the_greatest_and_the_least() -> None:
    drawn = text(3.6667, 3.3185, 3.1588, height=5).split("\n")
    assert [row.split("┤")[0].strip() for row in drawn if "┤" in row] == ["3.6667", "3.1588"]


def test_a_changed_learning_rate_is_marked_on_the_axis_where_its_first_iteration_is() -> None:
    *_, axis = plot_lines(points(*range(11)), GUTTER + 51, 9, changes=[5])
    assert plain(axis)[GUTTER + 25] == "▲"


def test_the_name_of_the_axis_stands_before_marks_that_would_hide_it() -> None:
    for changed in range(34, 41):
        axis = plain(plot_lines(points(*range(41)), GUTTER + 41, 9, changes=[changed - 1])[-1])
        assert " iteration" in axis
        assert axis.index("▲") == GUTTER + changed - 1  # the first point is of iteration 1


def test_few_points_are_dots_where_they_belong() -> None:
    drawn = text(2.0, 1.0).split("\n")
    assert drawn[0][GUTTER] == "•"
    assert drawn[-2][-1] == "•"


def test_the_shown_frame_is_marked() -> None:
    assert text(2.0, 1.5, 1.0, shown=1).count("◆") == 1


def test_a_constant_series_is_a_level_line() -> None:
    assert "•" in text(2.0, 2.0, 2.0)


def test_a_single_point_names_its_own_value_and_no_other() -> None:
    drawn = text(3.6667)
    assert drawn.count("┤") == 1
    assert "3.6667 ┤•" in drawn


def test_nan_and_infinity_are_marked_on_the_top_row() -> None:
    assert text(2.0, math.nan, 1.0, math.inf).split("\n")[0].count("!") == 2


def test_nothing_but_nan_is_said_in_words() -> None:
    assert text(math.nan) == "no finite loss"


def test_no_points_ask_for_the_first() -> None:
    assert "no loss to plot yet" in text()


def test_no_room_draws_nothing() -> None:
    assert text(1.0, 2.0, width=12, height=3) == ""


DOTS = (0b00001001, 0b00010010, 0b00100100, 0b11000000)  # of a braille cell, from the top


def ink(rows: Sequence[str], column: int) -> list[float]:
    """Give how far below the top each mark in a column is, in quarters of a row; a block counts by its height."""
    found = []
    for place, row in enumerate(rows):
        cell = row[GUTTER + column]
        found += [place * 4 + 1.5] if cell == "•" else []
        found += [place * 4 + 4 - LEVELS.index(cell) / 2] if cell in LEVELS[1:] else []
        dots = ord(cell) - 0x2800 if 0x2800 <= ord(cell) < 0x2900 else 0
        found += [place * 4 + dot for dot, mask in enumerate(DOTS) if dots & mask]
    return found


def check_upright(values: Sequence[float], width: int, height: int, *, log_scale: bool) -> None:
    listed = points(*values)
    drawn = [plain(line) for line in plot_lines(listed, width, height, log_scale=log_scale)]
    rows, columns = drawn[: 1 if height <= MIN_ROWS else height - 1], plot_columns(width)
    if not rows or columns < 8:
        return
    first, last = listed[0].iteration, max(listed[-1].iteration, listed[0].iteration + 1)
    greatest, least = (
        ink(rows, min(int((values.index(end(values)) + 1 - first) / (last - first) * (columns - 1) + 0.5), columns - 1))
        for end in (max, min)
    )
    assert greatest, (values, width, height)
    assert least, (values, width, height)
    assert min(greatest) <= max(least), (values, width, height)
    if len(rows) > 1 and len(set(values)) > 1:  # the labels stand beside the rows that they name
        assert min(greatest) < 4
        assert max(least) >= len(rows) * 4 - 4
        scale = math.log10 if log_scale else float
        low, high = scale(min(values)), scale(max(values))
        labels = {index: float(row[: GUTTER - 2]) for index, row in enumerate(rows) if row[: GUTTER - 2].strip()}
        assert len(labels) >= 2
        for index, value in labels.items():
            share = (high - scale(value)) / ((high - low) or 1.0)
            assert abs(share * (len(rows) - 1) - index) < 0.51 or high - low < 1e-6 * abs(high), (values, labels)


@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 6, 11, 24, 45, 60])
@pytest.mark.parametrize("width", [1, 17, 18, 30, 46, 79, 120, 300])
def test_the_greatest_value_never_stands_below_the_least(height: int, width: int) -> None:
    falling, rising = [3.6667 * 0.8**step for step in range(40)], [1.0, 2.0, 3.0]
    for values in ([2.0], [2.0, 2.0], falling, rising, [1.0, 9.0] * 150):
        for log_scale in (False, True):
            check_upright(values, width, height, log_scale=log_scale)


@examples(50)
@given(
    values=st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=400),
    width=st.integers(1, 300),
    height=st.integers(1, 60),
    log_scale=st.booleans(),
)
def test_no_series_is_drawn_upside_down_at_any_size(
    values: list[float], width: int, height: int, log_scale: bool
) -> None:
    check_upright(values, width, height, log_scale=log_scale)


def test_one_row_is_a_sparkline() -> None:
    (drawn,) = (plain(line)[GUTTER:] for line in plot_lines(points(*range(8, 0, -1)), GUTTER + 8, 1))
    assert drawn == "█▇▆▅▄▃▂▁"
    assert to_ascii(drawn, 8) == "#%*+=-:."


def test_one_row_marks_the_shown_frame_and_what_has_no_place_on_the_scale() -> None:
    drawn = text(3.0, math.nan, 1.0, height=1, shown=2)
    assert drawn.endswith("◆")
    assert drawn.count("!") == 1
    (on_log_scale,) = plot_lines(points(1.0, 0.0, 100.0), GUTTER + 9, 1, log_scale=True)
    assert plain(on_log_scale)[GUTTER:] == "•▂▃▄!▅▆▇•"


# plotext ends the process on some numbers, so all floats are tried in a process of their own.
ALL_FLOATS = """
import json, math, sys
from hypothesis import given, settings, strategies as st
from autograd_tui.core.history import Point
from autograd_tui.text.styled_text import length
from autograd_tui.text.plot import Curve, plot_lines

@settings(max_examples=400, deadline=None, database=None)
@given(
    st.lists(st.floats() | st.floats(width=32) | st.sampled_from([1.7976931348623157e308, 5e-324, -0.0, 1e16])),
    st.integers(0, 130), st.integers(0, 40), st.integers(1, 10**12),
)
def draw(values, width, height, stretch):
    points = [Point(i, 1 + i * stretch, value) for i, value in enumerate(values)]
    middle = len(points) // 2
    left = Curve(points[:middle], label="lr 0.1", behind=True)
    others = [left, Curve(points[::2], letter="b", dots=True)][: width % 3]
    lines = plot_lines(points, width, height, shown=points[middle] if points else None, others=others, cursor=stretch)
    assert all(length(line) <= max(width, 40) for line in lines), (width, [length(line) for line in lines])
    assert len(lines) <= max(height, 1)

draw()
plot_lines([Point(1, 0, 1.0), Point(2, 2**63 - 1, 0.5), Point(3, 609, 0.1), *(Point(9, 907, 1e34),) * 9], 120, 39)
print(json.dumps("survived"))
"""


def test_any_floats_at_any_size_are_drawn_without_harm() -> None:
    done = subprocess.run([sys.executable, "-c", ALL_FLOATS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == "survived"


def drawn(*others: Curve, height: int = 12, width: int = GUTTER + 60, **options: object) -> list[str]:
    listed = points(*(3.0 - 0.2 * place for place in range(10)))
    return [plain(line) for line in plot_lines(listed, width, height, others=others, **options)]  # type: ignore[arg-type]


def test_a_run_that_was_left_is_dim_cut_off_where_it_leaves_the_scale_and_labelled() -> None:
    left = Curve(points(3.0, 4.0, 5.0, 900.0, 1e6), "dim", label="lr 0.19", behind=True)
    listed = points(*(3.0 - 0.2 * place for place in range(10)))
    lines = plot_lines(listed, GUTTER + 60, 12, others=[left])
    text = "\n".join(map(plain, lines))
    assert "lr 0.19" in text
    labels = [float(plain(line)[: GUTTER - 2]) for line in lines[:-1] if plain(line)[: GUTTER - 2].strip()]
    assert max(labels) <= 3.0 + (3.0 - 1.2)
    braille = {style for line in lines for piece, style in line if any("\u2801" <= each <= "\u28ff" for each in piece)}
    assert braille == {"", "dim"}


def test_several_curves_have_letters_along_them() -> None:
    second = Curve(points(*(1.0 + 0.1 * place for place in range(10))), "accent", "b")
    text = "\n".join(drawn(second, letter="a"))
    assert "a" in text
    assert "b" in text


def test_a_cursor_is_a_line_with_a_ring_on_each_curve() -> None:
    rows = drawn(cursor=5)
    column = rows[0].index("┊")
    assert all(row[column] in "┊○" or "\u2801" <= row[column] <= "\u28ff" for row in rows[:-1])
    assert "".join(rows).count("○") == 1


def test_a_changed_learning_rate_never_leaves_half_a_number_on_the_axis() -> None:
    for change in range(1, 99):
        *_, axis = plot_lines(points(*range(100)), GUTTER + 60, 9, changes=[change])
        numbers = [int(each) for each in re.findall(r"\d+", plain(axis))]
        assert all(each == 1 or each % 10 == 0 for each in numbers)


def test_a_schedule_that_changes_the_learning_rate_all_the_time_is_not_marked() -> None:
    *_, axis = plot_lines(points(*range(100)), GUTTER + 60, 9, changes=range(100))
    assert "▲" not in plain(axis)


def test_raw_values_behind_an_average_are_dots_without_a_line() -> None:
    raw = Curve(points(*[1.0, 3.0] * 15), "dim", dots=True)
    smooth = plot_lines(points(*[2.0] * 30), GUTTER + 60, 12, others=[raw])
    inked = [sum("\u2801" <= each <= "\u28ff" for each in plain(line)) for line in smooth[:-1]]
    assert 0 < inked[0] <= 15
    assert 0 < inked[-1] <= 15
    assert sum(inked) <= 30 + 60


def test_a_range_is_the_axis_though_the_points_are_few() -> None:
    rows = drawn(span=(1, 101))
    assert "80" in rows[-1]
    assert all(not row[GUTTER + 12 :].strip() for row in rows[:-1])


def test_the_ends_of_the_axis_are_those_of_all_curves() -> None:
    second = Curve(points(9.0, 1.0), "accent", "b")
    rows = [plain(line) for line in plot_lines(points(3.0, 4.0), GUTTER + 40, 5, others=[second], letter="a")]
    labels = [float(row[: GUTTER - 2]) for row in rows[:-1] if row[: GUTTER - 2].strip()]
    assert labels in ([9.0, 1.0], [5.0])
