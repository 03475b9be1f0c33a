from __future__ import annotations

import sys
from threading import Thread
from time import monotonic

import pytest

from autograd_tui.tui.output import Output


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
