from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from threading import Thread
from time import monotonic

import pytest

from autograd_tui.tui.output import Output, headline, newest_message


def output(*texts: str) -> Output:
    made = Output()
    for text in texts:
        made.write(text)
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
    made, switches = Output(), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [Thread(target=lambda: [made.write("x") for _ in range(2000)]) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switches)
    made.write("\n")
    assert made.last(9) == ("x" * 4000,)


def taken_over(act: Callable[[], object]) -> list[str]:
    made = Output()
    made.take_over()
    try:
        act()
    finally:
        made.give_back()
    return list(made.lines)


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
