from __future__ import annotations

import json
import math
import subprocess
import sys

from autograd_tui.engine.values.history import Point
from autograd_tui.text.line import length, plain
from autograd_tui.text.plot import GUTTER, plot_lines


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


def test_the_axis_names_the_greatest_and_the_least() -> None:
    drawn = text(3.6667, 3.3185, 3.1588).split("\n")
    assert drawn[0].lstrip().startswith("3.6667 ┤")
    assert drawn[-3].lstrip().startswith("3.1588 ┤")
    assert drawn[-1].endswith("iteration 3")


def test_few_points_are_dots_where_they_belong() -> None:
    drawn = text(2.0, 1.0).split("\n")
    assert drawn[0][GUTTER] == "•"
    assert drawn[-3][-1] == "•"


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


# plotext ends the process on some numbers, so all floats are tried in a process of their own.
ALL_FLOATS = """
import json, math, sys
from hypothesis import given, settings, strategies as st
from autograd_tui.engine.values.history import Point
from autograd_tui.text.line import length
from autograd_tui.text.plot import plot_lines

@settings(max_examples=400, deadline=None, database=None)
@given(
    st.lists(st.floats() | st.floats(width=32) | st.sampled_from([1.7976931348623157e308, 5e-324, -0.0, 1e16])),
    st.integers(0, 130), st.integers(0, 40), st.integers(1, 10**12),
)
def draw(values, width, height, stretch):
    points = [Point(i, 1 + i * stretch, value) for i, value in enumerate(values)]
    lines = plot_lines(points, width, height, shown=points[len(points) // 2] if points else None)
    assert all(length(line) <= max(width, 40) for line in lines), (width, [length(line) for line in lines])
    assert len(lines) <= max(height, 1)

draw()
print(json.dumps("survived"))
"""


def test_any_floats_at_any_size_are_drawn_without_harm() -> None:
    done = subprocess.run([sys.executable, "-c", ALL_FLOATS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == "survived"
