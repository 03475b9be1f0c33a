"""The terminal lent to a script that reads from it, and taken back whole."""

from __future__ import annotations

import os
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest

import lending_screen
from pseudo_terminal import OPEN, PATIENCE, Terminal, terminal, wait_until_lent
from random_input import check_modes

AGENT = """
import os, sys, time
from autograd_tui.engine.script.lending import Lending
open("pid", "w").write(str(os.getpid()))
Lending(lambda why: print(f"<{why}>"), lambda: print("<back>")).install()
"""


@contextmanager
def screen(folder: Path, code: str) -> Iterator[Terminal]:
    """Show a screen whose script runs this code."""
    (folder / "train.py").write_text(f"import os\nos.chdir({str(folder)!r})\n{AGENT}\n{code}")
    program = (sys.executable, lending_screen.__file__)
    with terminal(str(folder), program=program, width=100, height=30) as shown:
        shown.wait(lambda: OPEN in shown.bytes, "the screen")
        yield shown


def wait_for_screen(shown: Terminal) -> None:
    """Wait until the screen is drawn again, behind all that has been written so far."""
    begins = len(shown.bytes)
    shown.wait(lambda: OPEN in shown.bytes[begins:] and "frame 0 of 0" in shown.text, "the screen again")


def script_of(folder: Path) -> int:
    until = monotonic() + PATIENCE
    while not (folder / "pid").exists() or not (folder / "pid").read_text():
        assert monotonic() < until
        sleep(0.01)
    return int((folder / "pid").read_text())


def wait_for_end(pid: int) -> None:
    until = monotonic() + PATIENCE
    while Path(f"/proc/{pid}").exists():
        assert monotonic() < until, "the script lives on"
        sleep(0.01)


ASKING = """
print("reads its data")
for i in range(2):
    print("got", repr(input("name? ")))
time.sleep(0.2)
open("done", "w").close()
time.sleep(60)
"""


def test_input_gets_the_terminal_and_gives_it_back(tmp_path: Path) -> None:
    with screen(tmp_path, ASKING) as shown:
        wait_until_lent(shown, "name?")
        assert "reads its data" in shown.text
        check_modes(shown.bytes)
        lent = len(shown.bytes)
        shown.type("anmn\x7f\x7fn\r")  # the script's own terminal echoes, and takes characters back
        shown.wait(lambda: b"got 'ann'" in shown.bytes[lent:], "what the script got")
        shown.wait(lambda: b"name?" in shown.bytes[lent:].rpartition(b"got")[2], "the second prompt")
        assert OPEN not in shown.bytes[lent:]  # it reads on at once
        shown.type("bob\r")
        wait_for_screen(shown)
        shown.wait_for("got 'bob'")  # in the console
        shown.type("q")
        shown.end()
        assert shown.exit_code == 0
        assert shown.echoed
        check_modes(shown.bytes)
    wait_for_end(script_of(tmp_path))


@pytest.mark.skipif(not Path("/proc/self/syscall").exists(), reason="Linux tells which call a process waits in")
def test_what_reads_from_a_descriptor_gets_the_terminal_too(tmp_path: Path) -> None:
    code = 'print("key?", flush=True)\nprint("got", os.read(0, 9))\ntime.sleep(60)\n'
    with screen(tmp_path, code) as shown:
        wait_until_lent(shown, "key?")
        shown.type("a\r")
        wait_for_screen(shown)
        shown.wait_for(r"got b'a\n'")
        shown.type("q")
        shown.end()


def test_pdb_gets_the_terminal_until_it_goes_on(tmp_path: Path) -> None:
    code = "x = 41\nbreakpoint()\nx += 1\nprint('x is', x)\ntime.sleep(60)"
    with screen(tmp_path, code.replace("breakpoint()", "print('<input>')\nbreakpoint()")) as shown:
        wait_until_lent(shown, "(Pdb)")
        lent = len(shown.bytes)
        shown.type("p x + 1\r")
        shown.wait(lambda: b"42" in shown.bytes[lent:], "what pdb prints")
        assert OPEN not in shown.bytes[lent:]
        shown.type("c\r")
        wait_for_screen(shown)
        shown.wait_for("x is 42")


def test_ctrl_c_is_the_scripts_while_it_has_the_terminal(tmp_path: Path) -> None:
    code = "try: input('asks> ')\nexcept KeyboardInterrupt: print('interrupted there')\ntime.sleep(60)"
    with screen(tmp_path, code) as shown:
        wait_until_lent(shown, "asks>")
        shown.type("\x03")
        wait_for_screen(shown)
        shown.wait_for("interrupted there")


def test_a_new_size_reaches_the_script_while_it_has_the_terminal(tmp_path: Path) -> None:
    code = """
import signal
signal.signal(signal.SIGWINCH, lambda *_: print("size", tuple(os.get_terminal_size()), flush=True))
print("first", tuple(os.get_terminal_size()))
input("asks> ")
"""
    with screen(tmp_path, code) as shown:
        wait_until_lent(shown, "asks>")
        assert "first (100, 30)" in shown.text
        termios.tcsetwinsize(shown.descriptor, (25, 90))
        shown.wait_for("size (90, 25)")


def test_a_script_that_ends_while_it_has_the_terminal_gives_it_back(tmp_path: Path) -> None:
    with screen(tmp_path, "input('asks> ')") as shown:
        wait_until_lent(shown, "asks>")
        os.kill(script_of(tmp_path), signal.SIGKILL)
        wait_for_screen(shown)
        shown.type("q")
        shown.end()
        assert shown.exit_code == 0
        assert shown.echoed
        check_modes(shown.bytes)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)])
def test_a_screen_that_ends_while_its_terminal_is_lent_leaves_it_whole(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with screen(tmp_path, "input('asks> ')") as shown:
        wait_until_lent(shown, "asks>")
        assert not shown.echoes
        shown.process.send_signal(number)
        shown.wait(lambda: shown.echoes, "the modes of before")
        shown.end()
        assert shown.exit_code == code
        check_modes(shown.bytes)
    wait_for_end(script_of(tmp_path))


@pytest.mark.parametrize("lent", [False, True])
def test_a_terminal_that_is_closed_takes_the_script_along(tmp_path: Path, lent: bool) -> None:
    with screen(tmp_path, "input('asks> ')" if lent else "print('is up', flush=True)\ntime.sleep(60)") as shown:
        shown.wait_for("asks>" if lent else "is up")
        shown.hang_up()
        wait_for_end(script_of(tmp_path))
        assert shown.process.wait(PATIENCE) == 129


INTERRUPTED = """
try:
    print("is up", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("stopped by hand", flush=True)
time.sleep(60)
"""


def test_ctrl_c_twice_is_keyboard_interrupt_in_a_script_that_comes_to_no_stop(tmp_path: Path) -> None:
    with screen(tmp_path, INTERRUPTED) as shown:
        shown.wait_for("is up")
        shown.type(" ")
        shown.wait_for("since its last")
        shown.type("\x03")
        shown.wait_for("ctrl+c once more raises KeyboardInterrupt in it")
        assert "stopped by hand" not in shown.text
        shown.type("\x03")
        shown.wait_for("stopped by hand")
        shown.type("\x03")
        shown.end()
        assert shown.exit_code == 130
        assert shown.echoed
    wait_for_end(script_of(tmp_path))
