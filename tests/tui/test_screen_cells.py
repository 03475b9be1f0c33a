from __future__ import annotations

import pyte
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.tui.screen_cells import ScreenCells, shorten_styles

WIDTH, HEIGHT = 24, 6
RED, ON_GRAY = "\x1b[38;2;200;0;0m", "\x1b[48;2;30;30;30m"
RESET = "\x1b[0m"

styles = st.sampled_from(["", RED, ON_GRAY, RED + ON_GRAY, "\x1b[1m", "\x1b[7;31m", "\x1b[38;5;200;48;5;17m"])
moves = st.builds("\x1b[{};{}H".format, st.integers(1, HEIGHT), st.integers(1, WIDTH // 2))
narrow = st.builds(
    "{}{}{}\x1b[0m".format, moves, styles, st.text("aab  ▀█", min_size=1, max_size=WIDTH // 2)
)  # as Textual writes: behind a move, and with a reset behind it
wide = st.builds("{}{}x".format, moves, st.sampled_from(["日", "日本", "é", "e\u0301"]))
unknown = st.sampled_from(["\x1b[2J", "\x1b[3;5H\x1b[K", "\x1b[1;1H\x1b[2P", "\x1b[H", "\x1b[4;4H\x1b[22mab\x1b[0m"])
updates = st.one_of(
    st.lists(narrow, min_size=1, max_size=6).map("".join),
    st.lists(st.one_of(narrow, wide), min_size=1, max_size=6).map("".join),
    unknown,
)


class Shown:
    """A terminal that was sent a text after another."""

    def __init__(self) -> None:
        self._screen = pyte.Screen(WIDTH, HEIGHT)
        self._screen.reset_mode(pyte.modes.DECAWM)  # as Textual asks for: no row goes on in the next one
        self._stream = pyte.Stream(self._screen)

    def feed(self, text: str) -> None:
        self._stream.feed(text)

    @property
    def cells(self) -> list[object]:
        return [self._screen.buffer[row][column] for row in range(HEIGHT) for column in range(WIDTH)]

    @property
    def cursor(self) -> tuple[int, int]:
        return self._screen.cursor.y, self._screen.cursor.x

    def resize(self, height: int, width: int) -> None:
        self._screen.resize(height, width)
        self._screen.resize(HEIGHT, WIDTH)


@given(st.lists(updates, max_size=12))
def test_a_terminal_shows_the_same_after_each_update(texts: list[str]) -> None:
    cells, plain, spared = ScreenCells(), Shown(), Shown()
    for text in texts:
        plain.feed(text + "\x1b[2;3H")
        spared.feed(cells.changes(text + "\x1b[2;3H"))
        assert spared.cells == plain.cells
        assert spared.cursor == plain.cursor


@given(st.lists(st.lists(narrow, min_size=1, max_size=6).map("".join), max_size=12))
def test_no_update_takes_more_bytes(texts: list[str]) -> None:
    cells = ScreenCells()
    for text in texts:
        assert len(cells.changes(text).encode()) <= len(shorten_styles(text).encode()) + 2 * text.count("H")


def test_what_is_shown_already_is_not_written_again() -> None:
    cells = ScreenCells()
    row = "\x1b[2;1H" + RED + "loss 0.3333 old" + RESET + "   lr 0.1"
    assert cells.changes(row + "\x1b[1;1H") == row + "\x1b[1;1H"
    assert cells.changes(row + "\x1b[1;1H") == ""
    assert cells.changes(row.replace("33 ", "27 ") + "\x1b[1;1H") == f"\x1b[2;10H{RED}27{RESET}\x1b[1;1H"


def test_newlines_between_rows_never_scroll() -> None:
    cells, shown = ScreenCells(), Shown()
    for letter in "ab":
        shown.feed(cells.changes("\n".join(f"\x1b[{row};1Hsame {letter * (row == 2)}" for row in range(1, HEIGHT + 1))))
    assert [row.rstrip() for row in shown._screen.display] == ["same"] + ["same b"] + ["same"] * (HEIGHT - 2)


def test_all_is_written_again_once_the_terminal_may_show_something_else() -> None:
    cells, shown = ScreenCells(), Shown()
    text = "".join(f"\x1b[{row};1Hrow {row}" for row in range(1, HEIGHT + 1))
    shown.feed(cells.changes(text))
    shown.resize(2, 3)
    cells.forget()
    shown.feed(cells.changes(text))
    assert [row.rstrip() for row in shown._screen.display] == [f"row {row}" for row in range(1, HEIGHT + 1)]
    for change in ("\x1b[?1049h", "\x1b[2J"):
        cells.changes(change)
        assert cells.changes(text) == text


def test_a_last_cell_that_stays_is_written_again_where_that_is_shorter_than_a_move() -> None:
    cells = ScreenCells()
    cells.changes("\x1b[2;13Hb")
    assert cells.changes("\x1b[2;2Haaaaaaaaaaab") == "\x1b[2Gaaaaaaaaaaab"
