from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.text.styled_text import more_line, plain, scrolled


@given(st.integers(0, 50), st.integers(0, 49), st.integers(0, 20), st.integers(1, 60), st.integers(1, 20))
def test_the_first_row_that_is_wanted_is_always_seen(top: int, first: int, more: int, count: int, room: int) -> None:
    first = min(first, count - 1)
    wanted = range(first, min(first + 1 + more, count))
    new = scrolled(top, wanted, count=count, room=room)
    assert new <= first < new + room
    assert 0 <= new <= max(count - room, 0)
    assert wanted.stop <= new + room or new == first or new == max(count - room, 0)


def test_rows_that_are_seen_do_not_move() -> None:
    assert scrolled(3, range(5, 7), count=20, room=6) == 3


def test_a_list_that_was_shortened_leaves_no_blank_rows() -> None:
    assert scrolled(15, range(0), count=10, room=6) == 4


def test_the_rows_above_and_below_are_counted() -> None:
    assert plain(more_line(3, 8, 20)).split() == ["↑", "3", "more", "↓", "12", "more"]
    assert plain(more_line(0, 8, 20)).split() == ["↓", "12", "more"]
