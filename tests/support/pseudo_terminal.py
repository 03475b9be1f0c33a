"""The installed program in a real pseudo-terminal, its screen read by an emulator."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

import pexpect
import pyte

PROGRAM = (sys.executable, "-m", "autograd_tui")
# The same beside a shell, which keeps the terminal open when the program has ended.
IN_A_SHELL = ("sh", "-c", '"$0" "$@"; echo "ended with $?"; read line', *PROGRAM)
PATIENCE = 90  # seconds; a test that waits so long has failed


class Terminal:
    """Types keys, and keeps the screen as a person would see it."""

    def __init__(
        self, *arguments: str, width: int, height: int, program: tuple[str, ...] = PROGRAM, **environment: str
    ) -> None:
        outside = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "LC_CTYPE", "LANG")
        kept = {name: value for name, value in os.environ.items() if name not in outside}
        kept |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LC_ALL": "C.UTF-8"}
        kept["XDG_CONFIG_HOME"] = os.devnull  # nothing chosen earlier, nothing remembered
        self.screen = pyte.Screen(width, height)
        self._stream = pyte.ByteStream(self.screen)
        self.child = pexpect.spawn(
            program[0],
            [*program[1:], *arguments],
            dimensions=(height, width),
            env={**kept, **environment},
            timeout=PATIENCE,
        )
        self.child.delaybeforesend = None
        self.child.ptyproc.delayafterterminate = 5.0  # seconds for the system to end it: machines are busy
        self.bytes = b""
        self.echoed = True  # whether what is typed was shown by the terminal itself, when the program had ended

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    def type(self, keys: str) -> None:
        """Type keys, all at once; a byte that is no UTF-8 as Python writes it, such as \\udcff."""
        self.child.send(keys.encode(errors="surrogateescape"))

    def read(self, seconds: float = 0.2) -> int:
        """Take in what the program writes, waiting for it at most so long; count the bytes."""
        try:
            data = self.child.read_nonblocking(65536, seconds)
        except pexpect.TIMEOUT:
            return 0
        except pexpect.EOF:
            data = b""
        self.draw(data)
        return len(data)

    def draw(self, data: bytes) -> None:
        """Draw on the screen what the program has written."""
        self.bytes += data
        # pyte does not know the private-mode requests that Textual makes; they draw nothing.
        self._stream.feed(re.sub(rb"\x1b\[[<>=?][\d;]*[a-zA-Z$]+|\x1b\[\d*\$[a-z]|\x1b_[^\x1b]*\x1b\\", b"", data))

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Read until something is true."""
        until = monotonic() + PATIENCE
        while not condition():
            assert monotonic() < until, f"{what} did not come:\n{self.text}"
            assert self.child.isalive(), f"{what} did not come, the program ended:\n{self.text}"
            self.read()

    def wait_for(self, text: str) -> None:
        """Read until the screen shows a text."""
        self.wait(lambda: text in self.text, repr(text))

    def end(self) -> str:
        """Read to the program's end and give all that it wrote since the call."""
        start = len(self.bytes)
        until = monotonic() + PATIENCE
        while monotonic() < until:
            before = len(self.bytes)
            self.read()
            if not self.child.isalive() and len(self.bytes) == before:
                break
        self.echoed = self.child.getecho()
        self.child.close()
        return self.bytes[start:].decode(errors="replace")

    @property
    def exit_code(self) -> int | None:
        code: int | None = self.child.exitstatus
        return code


@contextmanager
def terminal(
    *arguments: str, width: int = 120, height: int = 40, program: tuple[str, ...] = PROGRAM, **environment: str
) -> Iterator[Terminal]:
    """Start the program and end it after the test, whatever happens."""
    opened = Terminal(*arguments, width=width, height=height, program=program, **environment)
    try:
        yield opened
    finally:
        opened.child.close(force=True)
