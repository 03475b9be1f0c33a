"""A script of the user's own on the screen: what it reads, what it raises, and how it is ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest

from pseudo_terminal import OPEN, PATIENCE, PROGRAM, Terminal, terminal, wait_until_lent
from random_input import check_modes

SCRIPTS = Path(__file__).parent.parent / "support" / "scripts"


@contextmanager
def script(name: str, state: Path, *, anew: bool = False) -> Iterator[Terminal]:
    """Show the screen of a script."""
    words = ("script", name if os.sep in name else str(SCRIPTS / name))
    with terminal(*words, program=PROGRAM, anew=anew, XDG_STATE_HOME=str(state)) as shown:
        yield shown


def processes_of(shown: Terminal) -> list[int]:
    """Return the processes whose parent is the screen."""
    found = []
    for each in filter(str.isdecimal, os.listdir("/proc")):
        try:
            stat = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat[1]) == shown.process.pid:
            found.append(int(each))
    return found


def wait_for_end(pids: list[int]) -> None:
    until = monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert monotonic() < until, "a process is left behind"
        sleep(0.05)


def test_a_script_asks_before_it_trains_and_while_it_does(tmp_path: Path) -> None:
    with script("asks.py", tmp_path, anew=True) as shown:
        wait_until_lent(shown, "learning rate?")
        shown.type("0.5\r")
        shown.wait_for("frame 0 of 0")
        shown.type("fb ")
        wait_until_lent(shown, "step?")
        opened = shown.bytes.count(OPEN)
        shown.type("y\r")
        shown.wait(lambda: shown.bytes.count(OPEN) > opened, "the screen again")
        shown.wait_for("frame 3 of 3")
        shown.type("q")
        shown.end()
        assert shown.exit_code == 0
        assert shown.echoed
        check_modes(shown.bytes)


def test_an_exception_is_held_where_it_was_raised(tmp_path: Path) -> None:
    with script("crash.py", tmp_path) as shown:
        shown.wait_for("frame 0 of 0")
        shown.type("r")
        shown.wait_for("The script raised ValueError (crash.py, line 13):")
        shown.wait_for("the loss is nan")
        assert 'raise ValueError(f"the loss is' in shown.text
        shown.type(" ")
        shown.wait_for("by an exception")
        shown.type("q")
        written = shown.end()
        assert "in check" in written
        assert "ValueError: the loss is nan" in written
        assert "autograd_tui" not in written


def test_a_breakpoint_has_the_terminal(tmp_path: Path) -> None:
    with script("breaks.py", tmp_path) as shown:
        shown.wait_for("frame 0 of 0")
        shown.type("r")
        wait_until_lent(shown, "(Pdb)")
        lent = len(shown.bytes)
        shown.type("p i\r")
        shown.wait(lambda: b"\r\n1\r\n" in shown.bytes[lent:], "what pdb prints")
        shown.type("n\r")  # the step is an event, and is not held while somebody types at pdb
        shown.wait(lambda: b"-> optimizer.zero_grad()" in shown.bytes[lent:], "the next line")
        assert OPEN not in shown.bytes[lent:]
        shown.type("c\r")
        shown.wait(lambda: OPEN in shown.bytes[lent:], "the screen again")
        shown.wait_for("breaks.py has ended after")


@pytest.mark.parametrize("killed", ["screen", "script", "both"])
def test_a_kill_leaves_no_process_and_the_terminal_whole(tmp_path: Path, killed: str) -> None:
    with script("workers.py", tmp_path) as shown:
        shown.wait_for("frame 0 of 0")
        own = processes_of(shown)
        assert own
        if killed != "screen":
            for pid in own:
                os.kill(pid, signal.SIGKILL)
        if killed == "script":
            shown.wait_for("exit code 137")
            shown.type("q")
        else:
            shown.process.send_signal(signal.SIGKILL)
        shown.wait(lambda: shown.echoes, "the modes of before")
        shown.end()
        check_modes(shown.bytes)
    wait_for_end(own)


FOREVER = """
import time, torch
w = torch.ones(1, requires_grad=True)
(w * 2).sum().backward()
print("gets data")
try:
    while True: time.sleep(0.1)
except KeyboardInterrupt:
    print("keeps what it has")
(w * 2).sum().backward()
"""


def test_ctrl_c_twice_interrupts_a_script_that_comes_to_no_stop(tmp_path: Path) -> None:
    (tmp_path / "forever.py").write_text(FOREVER)
    with script(str(tmp_path / "forever.py"), tmp_path) as shown:
        shown.wait_for("frame 0 of 0")
        shown.type("fb ")
        shown.wait_for("since its last")
        shown.type("\x03")
        shown.wait_for("ctrl+c once more raises KeyboardInterrupt in it")
        shown.type("\x03")
        shown.wait_for("keeps what it has")
        shown.type("\x03")
        shown.end()
        assert shown.exit_code == 130
