"""The program in a real pseudo-terminal, its screen read by an emulator."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pyte

from autograd_tui.tui.trainer_thread import LOAD_SECONDS
from fork_server import READ_AT_THE_START, Process

PROGRAM = (sys.executable, "-m", "autograd_tui")
# The same beside a shell, which keeps the terminal open when the program has ended.
IN_A_SHELL = ("sh", "-c", '"$0" "$@"; echo "ended with $?"; read line', *PROGRAM)
QUICK_LOAD_SECONDS = 0.2  # between two looks at the memory in use, in `QUICK_LOOKS`
READ_LATER = "PYTHONBREAKPOINT"  # at each `breakpoint()`
MAX_IDLE_WORK = 2  # ticks of the processor: to look at the memory in use takes a part of one
MAX_READ = 1 << 16  # bytes, for who looks at the screen while it is written on and on
OPEN, CLOSED = b"\x1b[?1049h", b"\x1b[?1049l"  # the alternate screen
PATIENCE = 90  # seconds; a test that waits so long has failed


def with_seconds(constant: str, seconds: float) -> tuple[str, ...]:
    """Return the program with other seconds for a constant of a module of `tui`, which a test would wait for."""
    module, _, name = constant.partition(".")
    text = f"""
from autograd_tui.cli import main
from autograd_tui.tui import {module}
{module}.{name} = {seconds}
raise SystemExit(main())
"""
    return sys.executable, "-c", text


QUICK_LOOKS = with_seconds("trainer_thread.LOAD_SECONDS", QUICK_LOAD_SECONDS)


class Terminal:
    """Types keys, and keeps the screen as a person would see it.

    The program is forked from one that has all modules at hand. It is started anew where `anew` says so, where the
    environment holds what is read at the start, and where it is another program.
    """

    def __init__(
        self,
        *arguments: str,
        width: int,
        height: int,
        program: tuple[str, ...] = PROGRAM,
        anew: bool = False,
        **environment: str,
    ) -> None:
        outside = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "LC_CTYPE", "LANG")
        kept = {name: value for name, value in os.environ.items() if name not in outside}
        kept |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LC_ALL": "C.UTF-8"}
        kept["XDG_CONFIG_HOME"] = os.devnull  # nothing chosen earlier, nothing remembered
        self.screen = pyte.Screen(width, height)
        self._stream = pyte.ByteStream(self.screen)
        self.descriptor, theirs = pty.openpty()
        self.name = os.ttyname(theirs)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.process = Process(
            [*program, *arguments],
            [theirs] * 3,
            environment={**kept, **environment},
            terminal=True,
            anew=anew
            or any(
                name.startswith(READ_AT_THE_START) and name != READ_LATER and value != kept.get(name)
                for name, value in environment.items()
            ),
        )
        os.close(theirs)
        self.bytes = b""
        self.echoed = True  # whether what is typed was shown by the terminal itself, when the program had ended

    @property
    def text(self) -> str:
        # As pyte's `display`, which measures each character.
        columns = range(self.screen.columns)
        rows = (self.screen.buffer[y] for y in range(self.screen.lines))
        return "\n".join("".join([row[x].data for x in columns]).rstrip() for row in rows)

    def type(self, keys: str) -> None:
        """Type keys, all at once; a byte that is no UTF-8 as Python writes it, such as \\udcff."""
        data = keys.encode(errors="surrogateescape")
        while data:
            data = data[os.write(self.descriptor, data) :]

    def receive(self, seconds: float) -> bytes:
        """Return what the program writes, having waited for it at most so long; do not draw it."""
        if not select.select([self.descriptor], [], [], seconds)[0]:
            return b""
        try:
            return os.read(self.descriptor, 1 << 16)
        except OSError:  # the program has ended, and so has the other end of its terminal
            return b""

    def read(self, seconds: float = 0.2) -> int:
        """Take in all that the program writes, waiting for it at most so long; count the bytes."""
        count = 0
        while data := self.receive(0.0 if count else seconds):
            self.draw(data)
            count += len(data)
            if count >= MAX_READ:
                break
        return count

    def draw(self, data: bytes) -> None:
        """Draw on the screen what the program has written."""
        self.bytes += data
        # pyte does not know the private-mode requests that Textual makes; they draw nothing.
        self._stream.feed(re.sub(rb"\x1b\[[<>=?][\d;]*\$?[a-zA-Z]|\x1b\[\d*\$[a-z]|\x1b_[^\x1b]*\x1b\\", b"", data))

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Read until something is true."""
        until = monotonic() + PATIENCE
        while not condition():
            assert monotonic() < until, f"{what} did not come:\n{self.text}"
            running = self.is_running  # asked first: what it wrote last is still to be read when it has ended
            assert self.read() or running or condition(), f"{what} did not come, the program ended:\n{self.text}"

    def wait_for(self, text: str) -> None:
        """Read until the screen shows a text."""
        self.wait(lambda: text in self.text, repr(text))

    def wait_until_quiet(self, seconds: float = 1.2 * LOAD_SECONDS) -> None:
        """Read until the program has neither written nor worked for so long: on a busy machine it may only wait.

        seconds: by default as long as it takes to look at the memory in use, which is shown where it has changed.
        """

        def is_quiet() -> bool:
            before = self._work()
            written, after = self.read(seconds), self._work()
            return not written and before is not None and after is not None and after - before <= MAX_IDLE_WORK

        self.wait(is_quiet, "a quiet moment")

    def _work(self) -> int | None:
        """Return the time that the program has worked, in ticks; None while a thread of it runs, or could."""
        ticks = 0
        for file in Path("/proc", str(self.process.pid), "task").glob("*/stat"):
            with suppress(OSError):  # a thread that has ended
                state, *fields = file.read_text().rpartition(")")[2].split()
                if state == "R":
                    return None
                ticks += int(fields[10]) + int(fields[11])
        return ticks

    def end(self) -> str:
        """Read to the program's end and give all that it wrote since the call."""
        start = len(self.bytes)
        until = monotonic() + PATIENCE
        while self.is_running:  # asked first: what it wrote last is still to be read when it has ended
            assert monotonic() < until, f"the program did not end:\n{self.text}"
            if not self.read():
                self.process.wait(0.01)  # its terminal may be closed already
        while self.read(0.0):
            pass
        self.echoed = self.echoes
        self.close()
        return self.bytes[start:].decode(errors="replace")

    @property
    def modes(self) -> list[Any]:
        """What termios says of the terminal."""
        return termios.tcgetattr(self.descriptor)

    @property
    def echoes(self) -> bool:
        """Whether the terminal itself shows what is typed."""
        return bool(self.modes[3] & termios.ECHO)

    @property
    def is_running(self) -> bool:
        return self.process.wait(0) is None

    @property
    def exit_code(self) -> int | None:
        """How the program ended: -9 where SIGKILL ended it."""
        return self.process.returncode

    def hang_up(self) -> None:
        """Take the terminal away, as closing its window does."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1

    def close(self) -> None:
        """Take the terminal away, and end a program that does not end by that."""
        self.hang_up()
        if self.process.wait(5.0) is None:  # machines are busy
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


@contextmanager
def terminal(
    *arguments: str,
    width: int = 120,
    height: int = 40,
    program: tuple[str, ...] = PROGRAM,
    anew: bool = False,
    **environment: str,
) -> Iterator[Terminal]:
    """Start the program and end it after the test, whatever happens."""
    opened = Terminal(*arguments, width=width, height=height, program=program, anew=anew, **environment)
    try:
        yield opened
    finally:
        opened.close()


def wait_until_lent(shown: Terminal, prompt: str) -> None:
    """Wait until the screen has closed, and the prompt of a script stands behind it."""

    def is_lent() -> bool:
        _, screen, behind = shown.bytes.rpartition(CLOSED)
        return bool(screen) and OPEN not in behind and prompt.encode() in behind

    shown.wait(is_lent, prompt)
