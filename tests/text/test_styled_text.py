from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.text.styled_text import more_line, plain, scrolled, to_ascii


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


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("w  2.0000 - 0.1 × 1.3333", "w  2.0000 - 0.1 x 1.3333"),
        ("2.0000 → 1.8667  ▼ -0.1333", "2.0000 ->1.8667  v -0.1333"),
        ("─▶ ▌STEP▐ ──▶ ", "-> |STEP| --> "),
        (" ← → look", " <-> look"),
        ("←, page up         look", "<-,page up         look"),
        ("→                  look", "->                 look"),
        ("↑ ↓ scroll", "^ v scroll"),
        ("██▌ █▏", "##| #|"),
        ("-0.1 ~▕ ▁█▏ 0.2", "-0.1 ~| .#| 0.2"),
        ("▁▂▃▄▅▆▇█", ".:-=+*%#"),
        ("│ ┤ └── ╭╮ ┊ ◆ • ▲", "| | +-- ++ | # * ^"),
        ("⠉⠃⣀⠇⣿⠀", "''.:: "),
        ("3 × 0.3333 ≈ 1 ≈", "3 x 0.3333 ~=1 ~"),
        ("▒▒▒▒", "????"),
        ("w moved …", "w moved.."),
        ("the largest is …c.weight", "the largest is ...weight"),
        ("netD.0…ght, # requires… ok", "netD...ght, # require.. ok"),
        ("…", "."),
        ("größe", "gr??e"),
    ],
)
def test_each_glyph_has_a_form(text: str, written: str) -> None:
    assert to_ascii(text, len(text)) == written


@given(st.text(), st.integers(0, 40))
def test_any_text_is_ascii_in_the_cells_it_takes(text: str, cells: int) -> None:
    written = to_ascii(text, len(text) if text.isascii() else cells)
    assert written.isascii()
    assert len(written) == (len(text) if text.isascii() else cells)


def test_a_wide_character_takes_two() -> None:
    assert to_ascii("重", 2) == "??"
