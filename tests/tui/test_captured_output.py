from __future__ import annotations

import ctypes
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from autograd_tui.text.styled_text import plain, printable
from autograd_tui.tui.captured_output import LONGEST, MOST_LINES, MOST_SAID, CapturedOutput, headline, newest_message
from autograd_tui.tui.panels.text_panels import ConsolePanel
from autograd_tui.tui.screen_state import View


def output(*texts: str) -> CapturedOutput:
    made = CapturedOutput()
    for text in texts:
        made.take_in(text.encode())
    return made


@pytest.mark.parametrize(
    "texts", [("\r10%\r20%\r30%\n",), ("\r10%", "\r20%", "\r3", "0%", "\n"), ("10%\r", "30%\r", "\n")]
)
def test_a_progress_bar_is_one_line(texts: tuple[str, ...]) -> None:
    assert list(output(*texts).lines) == ["30%"]


def test_lines_end_as_they_do_elsewhere() -> None:
    assert list(output("one\r\ntwo\r", "\nthree\n").lines) == ["one", "two", "three"]


@pytest.mark.parametrize("texts", [("\r10%", "\r20%"), ("10%\r", "20%\r"), ("before\n\r20%",)])
def test_what_a_bar_shows_is_known_before_its_line_ends(texts: tuple[str, ...]) -> None:
    since = monotonic()
    assert output(*texts).unfinished(since) == "20%"


def test_what_was_left_unfinished_before_is_no_progress() -> None:
    made = output("> ")
    assert made.unfinished(monotonic() + 1) == ""


def test_nothing_is_lost_where_two_threads_print_at_once() -> None:
    made, switches = CapturedOutput(), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [Thread(target=lambda: [made.take_in(b"x") for _ in range(2000)]) for _ in range(2)]  # type: ignore[func-returns-value]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switches)
    made.take_in(b"\n")
    assert made.last(9) == ("x" * 2000 + " … 2,000 more characters",)


PIECES = st.lists(
    st.sampled_from([b"a", b"bc" * 700, b"\r", b"\n", b"\r\n", "é€".encode(), b"\xff", b"\x1b[1mx", b"\t"])
)


@given(pieces=PIECES, sizes=st.lists(st.integers(1, 2000), min_size=1))
def test_a_line_is_the_same_in_whatever_pieces_it_comes(pieces: list[bytes], sizes: list[int]) -> None:
    data, made, at = b"".join(pieces), CapturedOutput(), 0
    while at < len(data):
        made.take_in(data[at : at + sizes[0]])
        at += sizes[0]
        sizes = [*sizes[1:], sizes[0]]
    whole = [line.rstrip(b"\r").rpartition(b"\r")[2] for line in data.split(b"\n")[:-1]]
    assert made.count == len(whole)
    for line, came in zip(made.lines, whole, strict=True):
        if len(came) <= LONGEST:
            assert line == printable(came.decode(errors="replace"))
        else:
            assert line.startswith(printable(came[:LONGEST].decode(errors="replace").rstrip("\ufffd")))
            assert line.endswith("more characters")


@pytest.mark.parametrize(
    "text",
    [b"x" * 10_000_000, b"\r10%" * 1_000_000, b"y\n" * 1_000_000, os.urandom(5_000_000), "e\u0301".encode() * 999_999],
)
def test_of_a_flood_no_more_is_kept_than_can_be_read(text: bytes) -> None:
    made = CapturedOutput()
    made.take_in(text)
    made.take_in(text)
    assert len(made.unfinished(0)) < LONGEST + 50
    made.take_in(b"\n")
    assert made.count == text.count(b"\n") * 2 + 1
    assert len(made.lines) <= MOST_LINES
    assert all(len(line) < LONGEST + 50 for line in made.lines)


def test_of_many_lines_the_last_ones_are_kept() -> None:
    made = output("begun", "".join(f"{place}\n" for place in range(9999)))
    assert (made.count, list(made.lines)) == (9999, [str(place) for place in range(9999 - MOST_LINES, 9999)])


def test_a_long_line_says_how_much_of_it_is_left_out() -> None:
    (line,) = output("é" * 1_000_000 + "\n").lines
    assert line == "é" * 1000 + " … 999,000 more characters"


def test_what_is_printed_again_in_the_end_is_not_too_much_and_says_so() -> None:
    made = output("x" * 500 + "\n", ("y" * 999 + "\n") * 1000)
    said = made.said_again()
    assert said == [f"autograd-tui: of what was printed, {1001 - 100} earlier lines are left out", *["y" * 999] * 100]
    assert sum(map(len, said[1:])) <= MOST_SAID
    assert output("one\n", "two\n").said_again() == ["one", "two"]


@pytest.mark.parametrize("line", ["x" * 5000, "漢字" * 2000, "👩‍🔬 " * 900, "e\u0301" * 900])
def test_every_character_of_the_console_is_within_its_panel(line: str) -> None:
    panel = ConsolePanel()
    panel.set_reactive(ConsolePanel.view, View(printed=("before", line)))
    rows = [plain(row) for row in panel.lines(40, 10)]
    assert len(rows) == 10
    assert all(0 < cell_len(row) <= 40 for row in rows)
    assert line.startswith(rows[0].rstrip())


def taken_over(act: Callable[[], object]) -> list[str]:
    made, files = CapturedOutput(), (sys.stdout, sys.stderr)
    made.take_over()
    try:
        made.lead_python_too()
        act()
    finally:
        made.give_back()
    assert (sys.stdout, sys.stderr) == files
    return list(made.lines)


def test_what_python_and_c_print_comes_in_one_order_and_blocks_nobody() -> None:
    def act() -> None:
        print("one")
        os.write(1, b"two\n" + b"x" * 3_000_000 + b"\n")
        ctypes.CDLL(None).write(2, b"three\n", 6)
        print("four", file=sys.stderr)
        print("\ud800")

    lines = taken_over(act)
    assert [line[:6] for line in lines] == ["one", "two", "xxxxxx", "three", "four", "\\ud800"]


def test_nobody_else_in_python_opens_the_terminal_while_the_screen_is_up() -> None:
    def act() -> None:
        for way in (lambda: os.open("/dev/tty", os.O_RDWR), lambda: open("/dev/tty"), Path("/dev/tty").open):  # noqa: SIM115
            with pytest.raises(OSError, match="the terminal is the screen's"):
                way()

    assert taken_over(act) == []


def warn_in_three_lines() -> None:
    message = "sizes differ\nand so\n    do shapes"
    os.write(2, warnings.formatwarning(UserWarning(message), UserWarning, "/a/b.py", 3, "f()").encode())


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (["one", "two"], "two"),
        (["one", "  two"], "  two"),
        (["/a/b.py:3: UserWarning: sizes differ"], "UserWarning: sizes differ (b.py, line 3)"),
        (["C:\\a\\b.py:3: UserWarning: sizes differ", "  f()"], "UserWarning: sizes differ (b.py, line 3)"),
        (["b.py:3: FutureWarning: old: new", "  and so", "  f()"], "FutureWarning: old: new (b.py, line 3)"),
        (["b.py:3: UserWarning: sizes differ", "  f()", "epoch 2"], "epoch 2"),
        (["b.py:3: UserWarning: sizes differ", "  f()", "epoch 2", "  acc 3"], "  acc 3"),
    ],
)
def test_of_what_was_printed_last_a_warning_shows_its_first_line(lines: list[str], shown: str) -> None:
    assert headline(lines[newest_message(lines)]) == shown


def test_a_warning_of_several_lines_is_one_message_while_the_screen_is_up() -> None:
    lines = taken_over(warn_in_three_lines)
    assert newest_message(lines) == 0
    assert lines == ["/a/b.py:3: UserWarning: sizes differ", "  and so", "  do shapes", "  f()"]


def test_warnings_are_written_as_before_when_the_screen_has_gone() -> None:
    before = warnings.formatwarning
    taken_over(lambda: None)
    assert warnings.formatwarning is before
