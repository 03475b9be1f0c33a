"""`autograd_tui.step_into`: a script opens the screen itself, where it has come to, as `breakpoint()` does.

The screen is a child of the script's on the same terminal. While it is there, the script reads from and prints to a
pseudo terminal that the screen has the other end of; when it has ended, in whatever way, the script has its own back.
"""

from __future__ import annotations

import atexit
import builtins
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from time import sleep
from types import FrameType
from typing import Any

from autograd_tui.core.terminal_text import say
from autograd_tui.engine.script.agent_messages import SOCKET_NAME

with suppress(ImportError):  # on Windows, where no script is held
    import termios

POLL_SECONDS = 0.02  # between two looks at whether the screen listens
MODES_SECONDS = 0.5  # in which what watches over the terminal puts it back, behind a screen that was killed
_screen: _Screen | None = None  # that is open, or was last


def step_into(loss: Any = None) -> None:
    """Open the screen here, hold the script, and go on from it phase by phase; leaving the screen lets it run on.

    loss: a tensor, whose models are shown at once; without it those of the optimizers in the variables here are. Where
    there are none yet, the script is held at its first phase. Where there is no terminal for a screen, the script goes
    on, and one line on stderr says why.
    """
    global _screen
    reason = _reason_against()
    if reason is not None:
        say(f"step_into opens no screen: {reason}.")
        return
    from autograd_tui.engine.script import agent

    if agent.entered is not None and not agent.entered.is_over:  # the screen is there
        agent.entered.hold_next()
        return
    _screen = _Screen()
    _screen.open(loss, sys._getframe(1))


def _reason_against() -> str | None:
    if not (hasattr(os, "openpty") and hasattr(os, "fork")):
        return "a script can be held on Linux and macOS alone"
    if "ipykernel" in sys.modules:
        return "this is a notebook"
    if threading.current_thread() is not threading.main_thread():
        return "this is not the main thread"
    if multiprocessing.parent_process() is not None or (_screen is not None and _screen.process != os.getpid()):
        return "this is a forked or spawned process"
    if os.environ.get("RANK", "0") != "0":
        return "only rank 0 of several is shown"
    try:
        is_terminal = os.isatty(0) and os.isatty(2) and sys.stdin.isatty()
    except (AttributeError, OSError, ValueError):
        is_terminal = False
    return None if is_terminal else "stdin and stderr are no terminal"


class _Screen:
    """One time that the screen is open."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._child: subprocess.Popen[bytes] | None = None
        self._kept: dict[int, int] = {}  # copies of the descriptors that were led elsewhere
        self._seams: Any = None

    def open(self, loss: Any, frame: FrameType) -> None:
        """Start the screen and hold the script; returns when it may go on."""
        self._folder = Path(tempfile.mkdtemp(prefix="autograd-tui-", dir="/tmp"))  # a socket's path must be short
        self._modes = termios.tcgetattr(0)
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # it may be anything
                stream.flush()
        self._start()
        try:
            while not (self._folder / SOCKET_NAME).exists() and self._child_runs():
                sleep(POLL_SECONDS)
            if self._child_runs():
                self._enter(loss, frame)
        except BaseException:  # also ctrl+c, before the screen has the keys
            if self._agent_is_new():
                self._end_child()
            raise
        if not self._child_runs():
            self.close()

    def close(self) -> None:
        """Wait for the screen's end, and have the script's own terminal and functions back."""
        if self._child is None or os.getpid() != self.process:
            return
        if self._seams is not None:
            self._agent.detach()  # by which the screen learns of the script's end
        while True:
            try:
                self._child.wait()
                break
            except KeyboardInterrupt:
                continue
        self._give_back()

    # The screen's process.

    def _start(self) -> None:
        """Start the screen, and lead what is on the terminal of this process to the pseudo terminal."""
        self._master, slave = os.openpty()
        words = sys.argv if sys.argv and os.path.isfile(sys.argv[0]) else ["--", "python"]
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "autograd_tui", "script", f"--attach={self._master}:{self._folder}", *words],
                stdout=2,  # what the script prints may go to a file
                pass_fds=[self._master],
                env={**os.environ, "PYTHONSAFEPATH": "1"},  # a file of the script's is none of the screen's
            )
        except BaseException:
            os.close(self._master)
            os.close(slave)
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        for each in (0, 1, 2):
            if os.isatty(each):
                self._kept[each] = os.dup(each)
                os.dup2(slave, each)
        os.close(slave)
        self._handler = signal.getsignal(signal.SIGCHLD)
        signal.signal(signal.SIGCHLD, self._hear)
        atexit.register(self.close)  # the screen shows the script's end until it is left

    def _child_runs(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.terminate()
            self.close()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        """Have the terminal back where the screen has ended: what is being printed would wait for ever."""
        if os.getpid() == self.process and not self._child_runs():
            self._give_back()
        if callable(self._handler):
            self._handler(number, frame)

    def _give_back(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        atexit.unregister(self.close)
        if signal.getsignal(signal.SIGCHLD) == self._hear:
            signal.signal(signal.SIGCHLD, self._handler if self._handler is not None else signal.SIG_DFL)
        if child.returncode < 0:
            sleep(MODES_SECONDS)
        terminal = os.dup(self._kept[2])
        for each, kept in self._kept.items():
            os.dup2(kept, each)
            os.close(kept)
        with suppress(OSError):
            os.set_blocking(self._master, False)
            while data := os.read(self._master, 1 << 16):  # printed, and not taken by the screen
                os.write(terminal, data)
        os.close(self._master)
        with suppress(termios.error):
            if termios.tcgetattr(terminal) != self._modes:
                termios.tcsetattr(terminal, termios.TCSADRAIN, self._modes)
        os.close(terminal)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._leave()

    # The seams.

    def _agent_is_new(self) -> bool:
        return self._seams is None

    def _enter(self, loss: Any, frame: FrameType) -> None:
        """Install the seams, and hold the script here, if anything is known that it trains."""
        import torch

        from autograd_tui.engine.script import agent
        from autograd_tui.engine.script.registry import variables

        before = builtins.input, sys.excepthook
        self._agent, self._seams = agent.enter(self._folder)
        self._agent.on_over = self.close
        self._own = before, (builtins.input, sys.excepthook)
        phases = self._agent.phases
        for _, value in variables(frame):
            if isinstance(value, torch.optim.Optimizer):
                phases.add_optimizer(value)
        is_loss = isinstance(loss, torch.Tensor) and loss.requires_grad
        if is_loss or phases.registry.has_optimizer:
            self._seams.tell(phases.begin, loss if is_loss else None)

    def _leave(self) -> None:
        """Take the seams and the functions of ours away, as far as nobody has put others in their place."""
        if self._seams is None:
            return
        self._agent.detach()
        self._seams.uninstall()
        (own_input, own_hook), (our_input, our_hook) = self._own
        if builtins.input is our_input:
            builtins.input = own_input
        if sys.excepthook is our_hook:
            sys.excepthook = own_hook
