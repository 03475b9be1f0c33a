from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.text.styled_text import to_ascii


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
