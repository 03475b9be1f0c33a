"""What a model prints, by whatever way, kept off the screen."""

from __future__ import annotations

import codecs
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

from autograd_tui.text.line import printable

MOST_LINES = 2000
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


class Output:
    """Takes over the file descriptors 1 and 2 while the screen is up; the screen itself goes to the terminal.

    Textual paints on `sys.__stderr__` and asks `sys.__stdout__` for the terminal's size, so both are led to a
    descriptor of the screen's own.
    """

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=MOST_LINES)
        self._writing = threading.RLock()  # what Python prints comes on one thread, all the rest on another
        self.on_line: Callable[[str], None] = lambda line: None
        self._part = ""
        self._part_came = 0.0  # when
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take_over(self) -> None:
        """Lead both descriptors into a pipe that is read line by line, and let the keys be the screen's alone."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._kept = os.dup(0), os.dup(1), os.dup(2)
        self._kept_files = sys.stdin, sys.stdout, sys.stderr
        self._kept_originals = sys.__stdin__, sys.__stdout__, sys.__stderr__
        self._terminal = _Terminal(os.fdopen(os.dup(2), "wb"), encoding="utf-8")
        self._keyboard = os.fdopen(os.dup(0), encoding="utf-8")
        sys.__stdin__ = self._keyboard  # type: ignore[misc]
        sys.__stdout__ = sys.__stderr__ = self._terminal  # type: ignore[misc]
        nothing = os.open(os.devnull, os.O_RDONLY)  # what their input() and breakpoint() read
        reading, writing = os.pipe()
        for source, descriptor in ((nothing, 0), (writing, 1), (writing, 2)):
            os.dup2(source, descriptor)
        os.close(nothing)
        os.close(writing)
        self._kept_format = warnings.formatwarning
        warnings.formatwarning = lambda *warning, **line: _set_in(self._kept_format(*warning, **line))
        self._reader = threading.Thread(target=self._read, args=(reading,), name="output", daemon=True)
        self._reader.start()

    def give_back(self) -> None:
        """Put the descriptors and files back, whatever became of them; what has been printed is in `lines`."""
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
        self._reader.join(timeout=1)  # a process that the model started may still hold the pipe
        with self._writing:
            if self._part:
                self.lines.append(printable(self._part.rstrip("\r")))

    def write(self, text: str) -> None:
        """Take in printed text, in whatever pieces it comes; on any thread."""
        with self._writing:
            *whole, part = map(_written_over, (self._part + text).replace("\r\n", "\n").split("\n"))
            if part and (whole or part != self._part):
                self._part_came = monotonic()
            self._part = part
            for line in whole:
                self.lines.append(printable(line.rstrip("\r")))
                self.on_line(self.lines[-1])

    def last(self, count: int) -> tuple[str, ...]:
        """Give the newest whole lines; on any thread."""
        with self._writing:
            return tuple(self.lines)[-count:]

    def unfinished(self, since: float) -> str:
        """Give the line that has no end yet, as of a progress bar, if any of it came after `since`; on any thread."""
        with self._writing:
            return printable(self._part.strip()) if self._part_came >= since else ""

    def _read(self, reading: int) -> None:
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            while data := pipe.read(65536):
                self.write(self._decoder.decode(data))


def _written_over(line: str) -> str:
    """Give what a line shows in the end: a carriage return goes back to its beginning, as progress bars do."""
    ended = line.endswith("\r")
    return line.rstrip("\r").rpartition("\r")[2] + "\r" * ended


def _set_in(warning: str) -> str:
    """Indent all lines of a warning behind its first, as Python does with the line of code: so they are known."""
    first, *rest = warning.splitlines()
    return "\n".join([first, *(f"  {line.strip()}" for line in rest)]) + "\n"


def newest_message(lines: Sequence[str]) -> int:
    """Return the index of the line that the newest message begins with: a warning's first line, else the last one."""
    last = next((index for index in reversed(range(len(lines))) if not lines[index].startswith("  ")), 0)
    return last if lines and _WARNING.fullmatch(lines[last]) else len(lines) - 1


def headline(line: str) -> str:
    """Write a warning's first line with the sentence before the place: "UserWarning: text (my_model.py, line 3)"."""
    found = _WARNING.fullmatch(line)
    return f"{found[3]} ({found[1]}, line {found[2]})" if found else line
