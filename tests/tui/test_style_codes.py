from __future__ import annotations

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.tui.screen_cells import RESET, shorten_styles

RED, ON_GRAY = "38;2;200;0;0", "48;2;30;30;30"

codes = st.sampled_from(
    ["0", "", "1", "3", "4", "7", "31", "92", "39", "42", "105", "49", RED, ON_GRAY, "38;5;200", "48;5;17", "1;31;44"]
)
pieces = st.one_of(
    st.builds("\x1b[{}m".format, codes),
    st.builds("\x1b[{};{}H".format, st.integers(1, 6), st.integers(1, 20)),
    st.text("ab ▀█", min_size=1, max_size=5),
    st.just("\x1b[0m"),
)


def screen(text: str) -> list[object]:
    """Return the cells of a terminal that was sent a text."""
    shown = pyte.Screen(20, 6)
    pyte.Stream(shown).feed(text)
    return [shown.buffer[row][column] for row in range(6) for column in range(20)]


@given(st.lists(pieces, max_size=30).map("".join))
def test_a_terminal_shows_the_same_with_no_more_bytes(text: str) -> None:
    text += RESET
    short = shorten_styles(text)
    assert screen(short) == screen(text)
    assert len(short) <= len(text)


def test_what_stays_the_same_is_not_said_again() -> None:
    styles = [f"{RED};{ON_GRAY}", ON_GRAY, f"1;{ON_GRAY}", ON_GRAY]
    first, *others = (f"\x1b[{style}m{word}{RESET}" for style, word in zip(styles, "abcd", strict=True))
    text = "".join([first, "\x1b[2;1H", *others])
    assert shorten_styles(text) == f"\x1b[{RED};{ON_GRAY}ma\x1b[2;1H\x1b[39mb\x1b[1mc\x1b[0;{ON_GRAY}md{RESET}"


@pytest.mark.parametrize("text", ["\x1b[58;5;1mx\x1b[0m", "\x1b[38;2;1mx\x1b[0m", "\x1b[22mx"])
def test_text_with_an_unknown_code_stays_as_it_is(text: str) -> None:
    assert shorten_styles(text) == text
