"""What a model prints, by whatever way, kept off the screen."""

from __future__ import annotations

import codecs
import errno
import io
import os
import re
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic

from autograd_tui.text.styled_text import printable

try:
    import fcntl
except ImportError:  # Windows, whose pipes have the size that they have
    fcntl = None  # type: ignore[assignment]

MOST_LINES = 2000
LONGEST = 2000  # bytes of a line that are kept
MOST_SAID = 100_000  # characters of them that are printed again in the end: a line may be slow
_PIPE = 1 << 20  # bytes that may wait in it: who prints does not wait for us, nor C code for Python's lock
_INSIDE = bytes(range(0x80, 0xC0))  # the bytes of UTF-8 that begin no character
_WARNING = re.compile(r"(?:.*[/\\])?(.+?):(\d+): (\w*Warning: .*)")  # the first line that Python writes of one


class _Terminal(io.TextIOWrapper):
    """What the screen is painted on; one that has gone away takes it all, or Textual would wait for it for ever."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


class CapturedOutput:
    """Takes over the file descriptors 1 and 2 while the screen is up; the screen itself goes to the terminal.

    Textual paints on `sys.__stderr__` and asks `sys.__stdout__` for the terminal's size, so both are led to a
    descriptor of the screen's own.
    """

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=MOST_LINES)
        self._writing = threading.Lock()  # one thread takes in what comes, another looks at it
        self._reader: threading.Thread | None = None
        self._ours: tuple[int, ...] = ()  # descriptors of the terminal, and of who started this program
        self.on_lines: Callable[[], None] = lambda: None
        self.count = 0  # of all whole lines that came, also of those that are not kept
        self._part, self._left_out = b"", 0  # the line that has no end yet, and how many characters of it are not kept
        self._returned = False  # whether what follows begins at that line's beginning
        self._part_came = 0.0  # when

    def take_over(self) -> None:
        """Lead both descriptors into a pipe that is read line by line, and let the keys be the screen's alone."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._kept = os.dup(0), os.dup(1), os.dup(2)
        self._kept_files = sys.stdin, sys.stdout, sys.stderr
        self._kept_originals = sys.__stdin__, sys.__stdout__, sys.__stderr__
        self._terminal = _Terminal(os.fdopen(os.dup(2), "wb"), encoding="utf-8", errors="replace")
        self._keyboard = os.fdopen(os.dup(0), encoding="utf-8")
        sys.__stdin__ = self._keyboard  # type: ignore[misc]
        sys.__stdout__ = sys.__stderr__ = self._terminal  # type: ignore[misc]
        self._ours = (*self._kept, self._terminal.fileno(), self._keyboard.fileno())
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._let_go_of_the_terminal)
        self._names = ("/dev/tty", os.ttyname(2) if hasattr(os, "ttyname") and os.isatty(2) else "CON")
        sys.addaudithook(self._refuse_the_terminal)
        nothing = os.open(os.devnull, os.O_RDONLY)  # what their input() and breakpoint() read
        reading, writing = os.pipe()
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with suppress(OSError):
                fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE)
        for source, descriptor in ((nothing, 0), (writing, 1), (writing, 2)):
            os.dup2(source, descriptor)
        os.close(nothing)
        os.close(writing)
        self._kept_format = warnings.formatwarning
        warnings.formatwarning = lambda *warning, **line: _set_in(self._kept_format(*warning, **line))
        self._reader = threading.Thread(target=self._read, args=(reading,), name="output", daemon=True)
        self._reader.start()

    def lead_python_too(self) -> None:
        """Have Python print into the descriptors taken over, if they were, and not into files of Textual's.

        So it comes in order with what C prints, from copies of this process too, and floods no event loop.
        """
        if self._reader is not None:
            sys.stdout, sys.stderr = (
                os.fdopen(each, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False) for each in (1, 2)
            )

    def give_back(self) -> None:
        """Put the descriptors and files back, whatever became of them; what has been printed is in `lines`."""
        self._ours, self.on_lines = (), lambda: None
        warnings.formatwarning = self._kept_format
        for file in (sys.stdout, sys.stderr):
            with suppress(Exception):  # their code may have closed it, or put anything in its place
                file.flush()
        for kept, descriptor in zip(self._kept, (0, 1, 2), strict=True):
            os.dup2(kept, descriptor)
            os.close(kept)
        sys.__stdin__, sys.__stdout__, sys.__stderr__ = self._kept_originals  # type: ignore[misc]
        sys.stdin, sys.stdout, sys.stderr = self._kept_files
        if sys.stdout.closed:
            sys.stdout = os.fdopen(1, "w", closefd=False)
        if sys.stderr.closed:
            sys.stderr = os.fdopen(2, "w", closefd=False)
        with suppress(OSError):  # it has gone away
            self._terminal.close()
        self._keyboard.close()
        if self._reader is not None:
            self._reader.join(timeout=1)  # a process that the model started may still hold the pipe
        with self._writing:
            if self._part:
                self._end_line()

    def take_in(self, data: bytes) -> None:
        """Take in printed text, in whatever pieces it comes; on any thread, in a time that is short for any text."""
        with self._writing:
            before, *rest = data.rsplit(b"\n", MOST_LINES + 1)  # of more lines than are kept only the last ones count
            self.count += before.count(b"\n")
            self._add(before)
            for piece in rest:
                self._end_line()
                self._add(piece)
            if data[-1:] != b"\n":
                self._part_came = monotonic()
        if rest:
            self.on_lines()

    def last(self, count: int) -> tuple[str, ...]:
        """Return the newest whole lines; on any thread."""
        with self._writing:
            return tuple(self.lines)[-count:]

    def unfinished(self, since: float) -> str:
        """Return the line that has no end yet, as of a progress bar, if any of it came after `since`; on any thread."""
        with self._writing:
            return self._shown().strip() if self._part_came >= since else ""

    def said_again(self) -> list[str]:
        """Return the newest lines, as many as are not too much to print in the end, and how many are left out."""
        lines, room = [], MOST_SAID
        for line in reversed(self.last(MOST_LINES)):
            room -= len(line) + 1
            if room < 0:
                break
            lines.append(line)
        if left_out := self.count - len(lines):
            lines.append(f"autograd-tui: of what was printed, {left_out:,} earlier lines are left out")
        return lines[::-1]

    def _refuse_the_terminal(self, event: str, arguments: tuple[object, ...]) -> None:
        """Have nobody else in Python open the terminal, as getpass does: it would take keys from the screen."""
        if event == "open" and self._ours and arguments[0] in self._names:
            raise OSError(errno.EBUSY, "the terminal is the screen's")

    def _let_go_of_the_terminal(self) -> None:
        """Lead nowhere, in a copy of this process, what only the screen may paint on, read, and keep open."""
        nothing = os.open(os.devnull, os.O_RDWR)
        for each in self._ours:
            os.dup2(nothing, each, inheritable=False)
        os.close(nothing)

    def _add(self, piece: bytes) -> None:
        """Write on in the line that has no end yet: a carriage return goes back to its beginning, as bars do."""
        text = piece.rstrip(b"\r")
        if text:
            _, goes_back, text = text.rpartition(b"\r")
            if goes_back or self._returned:
                self._part, self._left_out = b"", 0
            room = LONGEST - len(self._part)
            self._part += text[:room]
            self._left_out += len(text[room:].translate(None, _INSIDE))
        self._returned = piece.endswith(b"\r") or (self._returned and not text)

    def _end_line(self) -> None:
        self.lines.append(self._shown())
        self.count += 1
        self._part, self._left_out, self._returned = b"", 0, False

    def _shown(self) -> str:
        """Write the line that has no end yet as it can be shown."""
        text, _ = codecs.utf_8_decode(self._part, "replace", not self._left_out)  # a character that is cut is none
        more = f" … {self._left_out:,} more characters" if self._left_out else ""
        return printable(text) + more

    def _read(self, reading: int) -> None:
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            while data := pipe.read(_PIPE):
                self.take_in(data)


def _set_in(warning: str) -> str:
    """Indent all lines of a warning behind its first, as Python does with the line of code: so they are known."""
    first, *rest = warning.splitlines()
    return "\n".join([first, *(f"  {line.strip()}" for line in rest)]) + "\n"


def newest_message(lines: Sequence[str]) -> int:
    """Return the index of the line that the newest message begins with: a warning's first line, else the last one."""
    last = next((index for index in reversed(range(len(lines))) if not lines[index].startswith("  ")), 0)
    return last if lines and _warning(lines[last]) else len(lines) - 1


def headline(line: str) -> str:
    """Write a warning's first line with the sentence before the place: "UserWarning: text (my_model.py, line 3)"."""
    found = _warning(line)
    return f"{found[3]} ({found[1]}, line {found[2]})" if found else line


def _warning(line: str) -> re.Match[str] | None:
    return _WARNING.fullmatch(line) if "Warning: " in line else None  # it takes long to match some other lines
