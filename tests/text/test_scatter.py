from __future__ import annotations

import pytest

from autograd_tui import Frame, open_session
from autograd_tui.text.batch_table import scatter_lines, scatter_title
from autograd_tui.text.styled_text import length, plain


def after(words: str, **options: int | str) -> Frame:
    *_, frame = open_session("linear", **options).run_all(words)  # type: ignore[arg-type]
    return frame


def text(frame: Frame, width: int = 50, height: int = 12) -> str:
    return "\n".join(plain(line) for line in scatter_lines(frame, width, height))


def test_each_point_has_its_truth_and_its_prediction() -> None:
    drawn = text(after("f"))
    assert drawn.count("o") - drawn.count("to") == 3
    assert drawn.count("*") == 3


def test_a_prediction_in_the_row_of_its_truth_stays_over_its_own_input() -> None:
    frame = after("f")
    columns = {
        place for line in scatter_lines(frame, 50, 4) for place, mark in enumerate(plain(line)[9:]) if mark in "o*&"
    }
    assert len(columns) == 3
    assert "&" in text(frame, height=4)
    assert "&" not in text(frame, height=12)


def test_a_fit_that_is_exact_is_drawn_as_equal() -> None:
    assert text(after("w=4 b=1 f")).count("&") == 3


@pytest.mark.parametrize("width", [10, 20, 30, 40, 60])
def test_an_old_prediction_says_so_in_the_title_and_not_among_the_points(width: int) -> None:
    old = after("fbs")
    assert ", old" in scatter_title(old, width)
    assert len(scatter_title(old, width)) <= width
    assert "old" not in text(old, width)
    assert "old" not in scatter_title(after("f"), width)


def test_before_the_first_forward_there_is_the_truth_where_each_iteration_takes_the_same_data() -> None:
    drawn = text(after("lr=1"))
    assert drawn.count("o") - drawn.count("to") == 3
    assert "*" not in drawn
    assert "forward makes one" in scatter_title(after("lr=1"), 60)
    assert "prediction" not in scatter_title(after("lr=1"), 20)


def test_before_the_first_forward_there_is_nothing_to_draw_of_fresh_data() -> None:
    assert "forward makes one" in text(after("lr=1", data="fresh"))


def test_a_prediction_that_is_not_finite_is_left_out() -> None:
    assert "*" not in text(after("w=nan f"))


def test_rows_fit_at_every_size() -> None:
    frame = after("fbs")
    for width in range(0, 70, 3):
        for height in range(16):
            lines = scatter_lines(frame, width, height)
            assert len(lines) <= max(height, 0)
            assert all(length(line) <= width for line in lines)
