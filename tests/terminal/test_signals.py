"""Leaving at any moment: by a signal, by ctrl+c, by a terminal that goes away."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from pseudo_terminal import PATIENCE, Terminal, terminal

from cases import LONG
from hostile import write

CODES = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}
OPEN = b"\x1b[?1049h"  # the alternate screen


@contextmanager
def opening(folder: Path) -> Iterator[Terminal]:
    """Give the program as soon as its screen opens, before it is drawn."""
    with terminal("linear") as shown:
        shown.wait(lambda: OPEN in shown.bytes, "the alternate screen")
        yield shown


@contextmanager
def importing(folder: Path) -> Iterator[Terminal]:
    """Give the program while it imports a PyTorch that takes long to come."""
    (folder / "torch.py").write_text("import time; time.sleep(1000)")
    with terminal("linear", PYTHONPATH=str(folder)) as shown:
        shown.wait_for("loading PyTorch and linear: 0.")
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
SOME_SIGNALS = [*((moment, signal.SIGTERM) for moment in MOMENTS), (importing, signal.SIGHUP), (running, signal.SIGINT)]


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
        shown.child.kill(sent)
        check_left(shown, CODES[sent])


@pytest.mark.parametrize("moment", MOMENTS if LONG else [importing])
def test_ctrl_c_twice_leaves_at_any_moment(moment: Moment, tmp_path: Path) -> None:
    with moment(tmp_path) as shown:
        shown.type("\x03\x03")
        check_left(shown, 130)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="there is no other way to wait for so long at most")
@pytest.mark.parametrize("moment", MOMENTS if LONG else [in_a_phase])
def test_a_terminal_that_goes_away_ends_the_program(moment: Moment, tmp_path: Path) -> None:
    with moment(tmp_path) as shown:
        shown.child.ptyproc.fileobj.close()
        ended, _, _ = select.select([os.pidfd_open(shown.child.pid)], [], [], PATIENCE)
        assert ended
        assert shown.child.wait() == 129
