"""A script that opens the screen itself, holds there, and goes on when it is left."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import fork_server
from pseudo_terminal import Terminal, terminal

SCRIPT = Path(__file__).parents[2] / "support" / "scripts" / "steps_into.py"
LAST = "stdin, stdout: True True"


@contextmanager
def script(*arguments: str, debugger: str = "", anew: bool = False) -> Iterator[Terminal]:
    """Run the script in a terminal."""
    program = (sys.executable, str(SCRIPT))
    with terminal(*arguments, program=program, anew=anew, PYTHONBREAKPOINT=debugger) as opened:
        yield opened


def screens_pid(opened: Terminal) -> int:
    """Return the process of the screen that the script has started."""
    script = opened.process.pid
    children = Path(f"/proc/{script}/task/{script}/children").read_text(encoding="utf-8").split()
    return next(int(pid) for pid in children if "--attach" in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8"))


@pytest.mark.parametrize("form", ["call", "breakpoint"])
def test_the_screen_opens_in_the_loop_and_the_script_goes_on_when_it_is_left(form: str) -> None:
    with script(form, "asks", debugger="autograd_tui.step_into", anew=form == "breakpoint") as opened:
        opened.wait_for("iteration 0")
        opened.wait_for("frame 0")
        assert "model" in opened.text or "weight" in opened.text
        opened.type(" ")
        opened.wait_for("frame 1")
        opened.type("q")
        opened.wait_for("iteration 4")
        opened.type("ann\n")
        text = opened.end()
        assert "hello ann" in text
        assert LAST in text
        assert opened.exit_code == 0
        assert opened.echoed
        assert re.findall(r"iteration (\d)", opened.bytes.decode(errors="replace"))[-3:] == ["2", "3", "4"]


def test_it_opens_again_and_what_is_printed_meanwhile_comes_behind_it() -> None:
    with script("twice") as opened:
        opened.wait_for("frame 0")
        opened.type("q")
        opened.wait_for("iteration 2")
        opened.wait_for("frame 0")
        opened.type("n")
        opened.wait_for("frame 6")
        opened.type("r")
        opened.wait_for("steps_into.py has ended after")
        opened.type("q")
        text = opened.end()
        assert "iteration 4" in text
        assert LAST in text
        assert "Error" not in text
        assert (opened.exit_code, opened.echoed) == (0, True)


def test_the_script_goes_on_where_the_screen_is_killed() -> None:
    with script() as opened:
        opened.wait_for("frame 0")
        os.kill(screens_pid(opened), signal.SIGKILL)
        text = opened.end()
        assert re.search(f"iteration 4: .*{re.escape(LAST)}", text, re.DOTALL)
        assert (opened.exit_code, opened.echoed) == (0, True)


def test_ctrl_c_twice_is_a_keyboard_interrupt_in_the_script() -> None:
    with script() as opened:
        opened.wait_for("frame 0")
        opened.type("\x03")
        opened.wait_for("raises KeyboardInterrupt in it")
        opened.type("\x03")
        text = opened.end()
        assert "KeyboardInterrupt" in text
        assert "iteration 1:" not in text
        assert opened.exit_code in (-signal.SIGINT, 130)
        assert opened.echoed


def test_without_a_terminal_one_line_is_said_and_the_script_runs_as_before() -> None:
    done = fork_server.run([sys.executable, str(SCRIPT)])
    assert done.stderr == "autograd-tui: step_into opens no screen: stdin and stderr are no terminal.\n"
    assert done.stdout.count("iteration") == 5
    assert done.returncode == 0
