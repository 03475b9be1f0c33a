"""A small process beside the screen, which gives the terminal back where the program itself no longer can.

Keys and signals are answered by Python, which needs the interpreter's lock: a regular expression or C code may hold it
for ever, and what ends the process in C, or by SIGKILL, answers nothing at all.
"""

from __future__ import annotations

import array
import faulthandler
import json
import os
import select
import signal
import sys
from contextlib import suppress
from time import monotonic, sleep
from typing import Any, NoReturn

try:
    import fcntl
    import termios
except ImportError:  # Windows, where there is none
    pass

# What the program says: a signal has been answered; the screen begins to close; it is closed.
HEARD, LEAVING, LEFT = b"\x06", b"\x05", b"\x04"
GRACE = 5.0  # seconds in which a signal is answered
UNREAD = 1.5  # seconds for which a key lies in the terminal's queue before nobody is known to read them
LOOK = 0.25  # seconds between two looks at that queue, while there is anything in it
TAKEN = 2.0  # seconds in which a terminal reads what was written last
PRESSES = 2  # of ctrl+c, behind the key that nobody has read
AS_BEFORE = (  # what ends all that Textual asks of a terminal, and what may have been begun
    "\x1b\\\x1b[?2026l\x1b[?2004l\x1b[?7h\x1b[?2048l\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?1016l"
    "\x1b[<u\x1b[0m\x1b[?1049l\x1b[?25h\x1b[?1004l"
)
ENDED = "autograd-tui: it no longer answered, and so it was ended.\r\n"


class TerminalWatchdog:
    """The program's end of the pipe to that process; without one where it cannot be started, as on Windows."""

    def __init__(self) -> None:
        self._pipe: int | None = None
        self._signals: list[int] = []  # that it hears of
        self._between: int | None = None  # the process that has started it, until it is reaped

    def start(self) -> None:
        """Start it, before there are threads or PyTorch; it is a Python of its own, and no child of this one."""
        if not (hasattr(os, "register_at_fork") and sys.executable):
            return
        reading, self._pipe = os.pipe()
        modes = _in_json(termios.tcgetattr(0))
        words = [sys.executable, "-I", "-S", __file__, str(reading), str(os.getpid()), modes, str(GRACE)]
        with suppress(OSError):  # there are too many processes
            if not (between := os.fork()):
                try:
                    if not os.fork():
                        os.set_inheritable(reading, True)
                        for each in ("INT", "TERM", "HUP", "QUIT", "TSTP", "TTIN", "TTOU"):
                            signal.signal(getattr(signal, f"SIG{each}"), signal.SIG_IGN)
                        os.execv(words[0], words)
                finally:
                    os._exit(0)
            self._between = between
        os.close(reading)
        os.set_blocking(self._pipe, False)
        os.register_at_fork(after_in_child=self._forget)

    def reap(self) -> None:
        """Wait for the process between, which ends at once: user code that waits for children is to find its own."""
        if self._between is not None:
            with suppress(ChildProcessError):
                os.waitpid(self._between, 0)
            self._between = None

    def hear(self, number: int) -> None:
        """Have it hear of a signal that Python answers from now on, before and even if Python does not."""
        if self._pipe is not None:
            faulthandler.register(number, self._pipe, all_threads=False, chain=True)
            self._signals.append(number)

    def answered(self) -> None:
        """Send that a signal has been answered."""
        self._say(HEARD)

    def leaving(self) -> None:
        """Send that no more keys will be read."""
        self._say(LEAVING)

    def leave(self) -> None:
        """Send that the terminal is as it was before, and have signals end the program as usual."""
        self.reap()
        self._hear_no_more()
        for number in self._signals:
            signal.signal(number, signal.SIG_DFL)
        self._say(LEFT)

    def _say(self, word: bytes) -> None:
        if self._pipe is not None:
            with suppress(OSError):
                os.write(self._pipe, word)

    def _hear_no_more(self) -> None:
        for number in self._signals:
            faulthandler.unregister(number)

    def _forget(self) -> None:
        """Send nothing in a copy of this process."""
        self._hear_no_more()
        if self._pipe is not None:
            os.close(self._pipe)
        self._pipe, self._signals, self._between = None, [], None


def makes_signals() -> bool:
    """Return whether ctrl+c is a signal, as it is while nobody reads keys."""
    return bool(termios.tcgetattr(sys.__stdin__.fileno())[3] & termios.ISIG) if sys.__stdin__ else False


class _Watch:
    """What that process does: it sleeps until a key is pressed, a signal comes, or the program is gone."""

    def __init__(self, pipe: int, program: int, modes: list[Any], grace: float) -> None:
        self._pipe, self._program, self._grace = pipe, program, grace
        self._modes = modes  # those before the screen's
        self._unanswered: float | None = None  # since when a signal is
        self._queued = 0  # bytes that nobody has read, at the last look
        self._since = 0.0  # when they were first seen
        self._unread = UNREAD  # seconds for which they may lie there
        self._raw: list[Any] | None = None  # the screen's modes, while ctrl+c is a signal
        self._presses: list[float] = []  # of ctrl+c, when it is one
        signal.signal(signal.SIGINT, lambda number, frame: self._presses.append(monotonic()))

    def watch(self) -> None:
        """Return once the program is gone, or has ended its screen."""
        while True:
            sleeps = not self._queued and self._unanswered is None
            ready, _, _ = select.select([self._pipe, 0] if sleeps else [self._pipe], [], [], None if sleeps else LOOK)
            if self._pipe in ready:
                data = os.read(self._pipe, 65536)
                if not data:
                    self._give_back(ended=False)
                if not data or LEFT in data:
                    return
                if LEAVING in data:
                    self._unread = self._grace
                if HEARD in data:
                    self._unanswered = None
                elif data.strip(LEAVING):  # a signal, in faulthandler's words
                    self._unanswered = self._unanswered or monotonic()
            elif self._unanswered is not None and monotonic() - self._unanswered > self._grace:
                self._end()
            self._look(_queued() or (0 in ready))

    def _look(self, queued: int) -> None:
        """See whether anybody reads the keys; if not, have ctrl+c be a signal, and count it."""
        now = monotonic()
        if queued < self._queued or not self._queued:
            self._since = now
        self._queued = queued
        if not queued:
            self._take_signals_back()
        elif self._raw is None and now - self._since > self._unread:
            self._make_signals()
        elif len(self._presses) >= PRESSES and now - self._presses[PRESSES - 1] > LOOK * 2:
            self._end()

    def _make_signals(self) -> None:
        """Have ctrl+c reach this process; what lies in the queue stays there."""
        self._presses.clear()
        with suppress(OSError, termios.error):
            modes = termios.tcgetattr(0)
            if modes[3] & (termios.ISIG | termios.ICANON) or os.tcgetpgrp(0) != os.getpgrp():
                return  # it is suspended, or has just left
            self._raw = termios.tcgetattr(0)
            modes[3] |= termios.ISIG | termios.NOFLSH
            for each in (termios.VQUIT, termios.VSUSP):
                modes[6][each] = os.fpathconf(0, "PC_VDISABLE").to_bytes()
            termios.tcsetattr(0, termios.TCSANOW, modes)
            _write("\x1b[<u")  # a terminal that writes keys as kitty does would write ctrl+c out too

    def _take_signals_back(self) -> None:
        """Have ctrl+c be a key again: somebody reads them."""
        if self._raw is not None:
            with suppress(termios.error):
                if not termios.tcgetattr(0)[3] & termios.ICANON:  # the screen is still up
                    termios.tcsetattr(0, termios.TCSANOW, self._raw)
        self._raw = None
        self._presses.clear()

    def _end(self) -> NoReturn:
        """Give the terminal back and end the program."""
        self._give_back(ended=True)
        sleep(TAKEN)  # a terminal whose session ends with the program, as over ssh, drops what it has not read by then
        with suppress(termios.error):
            modes = termios.tcgetattr(0)
            modes[3] &= ~termios.NOFLSH | self._modes[3]
            termios.tcsetattr(0, termios.TCSANOW, modes)
        if not (select.select([self._pipe], [], [], 0)[0] and not os.read(self._pipe, 65536)):  # it is still there
            os.kill(self._program, signal.SIGKILL)
        os._exit(0)

    def _give_back(self, *, ended: bool) -> None:
        _write(AS_BEFORE + ENDED * ended)
        with suppress(termios.error):
            modes = termios.tcgetattr(0)[3]
            if ended or self._raw is not None or not modes & (termios.ISIG | termios.ICANON):  # no shell has set them
                before = list(self._modes)
                before[3] |= termios.NOFLSH * ended  # one more ctrl+c drops nothing of what has just been written
                termios.tcsetattr(0, termios.TCSANOW, before)


def _queued() -> int:
    """Count the bytes in the terminal's queue."""
    count = array.array("i", [0])
    with suppress(OSError):
        fcntl.ioctl(0, termios.FIONREAD, count)
    return count[0]


def _write(text: str) -> None:
    """Write to the terminal, if it takes anything."""
    if select.select([], [2], [], 1.0)[1]:
        with suppress(OSError):
            os.write(2, text.encode())


def _in_json(modes: list[Any]) -> str:
    return json.dumps([*modes[:6], [each if isinstance(each, int) else ord(each) for each in modes[6]]])


def _main(pipe: str, program: str, modes: str, grace: str) -> None:
    """Watch, with nothing open but the terminal and the pipe."""
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    for each in map(int, os.listdir("/dev/fd")):
        if each > 2 and each != int(pipe):
            with suppress(OSError):
                os.close(each)
    _Watch(int(pipe), int(program), json.loads(modes), float(grace)).watch()


if __name__ == "__main__":
    _main(*sys.argv[1:])
