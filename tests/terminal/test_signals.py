"""Leaving at any moment: by a signal, by ctrl+c, by a terminal that goes away."""

from __future__ import annotations

import os
import signal
import termios
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from time import monotonic

import pytest

from hostile_scenarios import write
from pseudo_terminal import IN_A_SHELL, OPEN, PATIENCE, Terminal, terminal, with_seconds
from random_input import check_modes
from suite_options import LONG

CODES = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}


@contextmanager
def opening(folder: Path) -> Iterator[Terminal]:
    """Give the program as soon as its screen opens, before it is drawn."""
    with terminal("linear") as shown:
        shown.wait(lambda: OPEN in shown.bytes, "the alternate screen")
        yield shown


def torch_that(folder: Path, does: str) -> str:
    """Write a PyTorch that does something when it is imported, and give the path to find it on."""
    (folder / "torch.py").write_text(does)
    return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])


@contextmanager
def importing(folder: Path) -> Iterator[Terminal]:
    """Give the program while it imports a PyTorch that takes long to come."""
    with terminal("linear", PYTHONPATH=torch_that(folder, "import time; time.sleep(1000)")) as shown:
        shown.wait_for("loading PyTorch and linear: ")
        yield shown


@contextmanager
def building(folder: Path) -> Iterator[Terminal]:
    """Give the program while a scenario is built that takes long."""
    with terminal(write(folder, "print('half', end='', flush=True); time.sleep(1000)", "build")) as shown:
        shown.wait_for("half so far")
        yield shown


@contextmanager
def in_a_phase(folder: Path) -> Iterator[Terminal]:
    """Give the program within a forward that takes long."""
    with terminal(write(folder, "time.sleep(1000)", "forward"), "--do", "f") as shown:
        shown.wait_for("forward runs: ")
        yield shown


@contextmanager
def running(folder: Path) -> Iterator[Terminal]:
    """Give the program in a free run."""
    with terminal("linear") as shown:
        shown.wait_for("frame 0 of 0")
        shown.type("r")
        shown.wait_for("running at")
        yield shown


@contextmanager
def asked(folder: Path) -> Iterator[Terminal]:
    """Give the program with the prompt open and half a word in it."""
    with terminal("linear") as shown:
        shown.wait_for("frame 0 of 0")
        shown.type(":lr=0.")
        shown.wait_for(":lr=0.")
        yield shown


Moment = Callable[[Path], AbstractContextManager[Terminal]]
MOMENTS: list[Moment] = [opening, importing, building, in_a_phase, running, asked]
SIGNALS = [(moment, sent) for moment in MOMENTS for sent in CODES]
SOME_SIGNALS = [*((moment, signal.SIGTERM) for moment in MOMENTS), (asked, signal.SIGHUP), (running, signal.SIGINT)]


def check_left(shown: Terminal, code: int) -> None:
    """Read to the end: the terminal is as it was, and the exit code says why."""
    said = shown.end()
    assert "\x1b[?1049l" in said, "the alternate screen is left"
    assert said.rindex("\x1b[?25h") > said.rfind("\x1b[?25l"), "the cursor is shown"
    assert shown.echoed
    assert "Traceback" not in said
    assert shown.exit_code == code


@pytest.mark.parametrize(("moment", "sent"), SIGNALS if LONG else SOME_SIGNALS)
def test_a_signal_leaves_the_terminal_as_it_was(moment: Moment, sent: signal.Signals, tmp_path: Path) -> None:
    with moment(tmp_path) as shown:
        shown.process.send_signal(sent)
        check_left(shown, CODES[sent])


@pytest.mark.parametrize("moment", MOMENTS if LONG else [importing])
def test_ctrl_c_twice_leaves_at_any_moment(moment: Moment, tmp_path: Path) -> None:
    with moment(tmp_path) as shown:
        shown.type("\x03\x03")
        check_left(shown, 130)


@pytest.mark.parametrize("moment", MOMENTS if LONG else [in_a_phase])
def test_a_terminal_that_goes_away_ends_the_program(moment: Moment, tmp_path: Path) -> None:
    with moment(tmp_path) as shown:
        shown.hang_up()
        assert shown.process.wait(PATIENCE) == 129


def test_a_program_that_was_stopped_goes_on_and_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    with asked(tmp_path) as shown:
        for sent in (signal.SIGSTOP, signal.SIGCONT, signal.SIGCONT):  # the last one comes while nothing is stopped
            opened = shown.bytes.count(OPEN)
            shown.process.send_signal(sent)
            if sent == signal.SIGSTOP:
                shown.read()
                modes = shown.modes
                modes[3] |= termios.ISIG | termios.ICANON | termios.ECHO  # as a shell sets them
                termios.tcsetattr(shown.descriptor, termios.TCSANOW, modes)
            else:
                shown.wait(lambda opened=opened: shown.bytes.count(OPEN) > opened, "the screen again")  # type: ignore[misc]
        shown.type("5\r")
        shown.wait_for("frame 1 of 1")
        shown.type("q")
        check_left(shown, 0)


@contextmanager
def deaf(folder: Path) -> Iterator[Terminal]:
    """Give the program while a PyTorch is imported that holds the interpreter's lock for ever."""
    does = f"""
import ctypes, pathlib
c, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
c.pthread_mutex_init(mutex, None)
c.pthread_mutex_lock(mutex)
pathlib.Path({str(folder / "begun")!r}).touch()
c.pthread_mutex_lock(mutex)
"""
    program = with_seconds("terminal_watchdog.GRACE", 1.0)
    with terminal("linear", program=program, PYTHONPATH=torch_that(folder, does)) as shown:
        shown.wait((folder / "begun").exists, "the lock that nobody releases")
        yield shown


def check_ended(shown: Terminal) -> None:
    """Read to the end: whatever ended the program, the terminal is as it was, and no process is left."""
    until = monotonic() + PATIENCE
    while shown.is_running and monotonic() < until:
        shown.read()
    assert not shown.modes[3] & termios.NOFLSH
    shown.end()
    check_modes(shown.bytes)
    assert shown.echoed
    assert shown.exit_code == -signal.SIGKILL
    with suppress(ProcessLookupError):
        while monotonic() < until:
            os.killpg(shown.process.pid, 0)
        pytest.fail("a process is left")


def makes_signals(shown: Terminal) -> bool:
    return bool(shown.modes[3] & termios.ISIG)


def fill(shown: Terminal) -> None:
    """Write more than the system keeps ready for who reads a terminal: what comes behind it is dropped by a flush."""
    slave = os.open(shown.name, os.O_WRONLY | os.O_NOCTTY)
    os.write(slave, b"\x1b[m" * 2000)
    os.close(slave)


def test_ctrl_c_and_sigterm_end_what_holds_the_interpreters_lock_for_ever(tmp_path: Path) -> None:
    """In two programs at a time: each takes seconds in which nothing happens."""
    by_key, by_signal = tmp_path / "by_key", tmp_path / "by_signal"
    by_key.mkdir()
    by_signal.mkdir()
    with deaf(by_signal) as signalled, deaf(by_key) as shown:
        signalled.process.send_signal(signal.SIGTERM)
        until = monotonic() + PATIENCE
        while not makes_signals(shown) and monotonic() < until:
            shown.type("\x03")
            shown.read(0.25)
            signalled.read(0.25)  # or its terminal would take no more of what the watchdog writes
        fill(shown)
        while not shown.modes[3] & termios.ICANON and monotonic() < until:
            shown.type("\x03")
            signalled.read(0.25)
        shown.type("\x03")  # it drops nothing of what the watchdog has written last, which nobody has read yet
        check_ended(shown)
        assert "no longer answered" in shown.text
        check_ended(signalled)


def test_keys_are_read_again_once_the_interpreters_lock_is_free(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    does = f"""
import ctypes, time
with open({str(gate)!r}, "rb") as gate:
    ctypes.PyDLL(None).read(gate.fileno(), ctypes.create_string_buffer(1), 1)
time.sleep(1000)
"""
    with terminal("linear", PYTHONPATH=torch_that(tmp_path, does)) as shown:
        shown.wait_for("loading PyTorch")
        with gate.open("wb", buffering=0) as opened:
            while not makes_signals(shown):  # the first ones may still be read
                shown.type("v")
                shown.read(0.5)
            opened.write(b"x")
            shown.wait(lambda: not makes_signals(shown), "the screen's own modes")
        shown.type("\x03")
        check_left(shown, 130)


def test_a_program_that_takes_long_to_leave_is_left_to_do_so(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    does = f"""
import pathlib, time
from autograd_tui.tui.terminal_driver import TerminalDriver
close = TerminalDriver.close
TerminalDriver.close = lambda self: (time.sleep(3), pathlib.Path({str(closed)!r}).touch(), close(self))
time.sleep(1000)
"""
    with terminal("linear", PYTHONPATH=torch_that(tmp_path, does)) as shown:
        shown.wait_for("loading PyTorch")
        shown.type("q")
        while shown.is_running and not closed.exists():
            shown.type("\x03")
            shown.read(0.5)
        shown.end()
        check_modes(shown.bytes)
        assert shown.exit_code == 0


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", *["os._exit(7)", "os.abort()"] * LONG])
def test_what_ends_the_program_in_c_leaves_the_terminal_as_it_was(tmp_path: Path, end: str) -> None:
    path = torch_that(tmp_path, f"import os; {end}")
    with terminal("linear", program=IN_A_SHELL, PYTHONPATH=path) as shown:
        shown.wait(lambda: b"ended with" in shown.bytes, "the end")
        shown.wait(lambda: b"\x1b[?1049l" in shown.bytes and shown.echoes, "the terminal as it was")
        check_modes(shown.bytes)


GETPASS = "import getpass; getpass.getpass()"


def test_a_model_that_asks_for_a_password_gets_none_and_no_key(tmp_path: Path) -> None:
    with terminal(write(tmp_path, GETPASS, "forward"), "--do", "F") as shown:
        shown.wait_for("EOFError")
        shown.type("q")
        check_left(shown, 0)
