"""What a model prints, by whatever way, kept off the screen."""

from __future__ import annotations

import codecs
import os
import sys
import threading
from collections import deque
from collections.abc import Callable

from autograd_tui.text.line import printable

MOST_LINES = 2000


class Output:
    """Takes over the file descriptors 1 and 2 while the screen is up; the screen itself goes to the terminal.

    Textual paints on `sys.__stderr__` and asks `sys.__stdout__` for the terminal's size, so both are led to a
    descriptor of the screen's own.
    """

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=MOST_LINES)
        self.on_line: Callable[[str], None] = lambda line: None
        self._part = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take_over(self) -> None:
        """Lead both descriptors into a pipe that is read line by line."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._kept = os.dup(1), os.dup(2)
        self._kept_files = sys.__stdout__, sys.__stderr__
        self._terminal = os.fdopen(os.dup(2), "w", encoding="utf-8")
        sys.__stdout__ = sys.__stderr__ = self._terminal  # type: ignore[misc]
        reading, writing = os.pipe()
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.close(writing)
        self._reader = threading.Thread(target=self._read, args=(reading,), name="output", daemon=True)
        self._reader.start()

    def give_back(self) -> None:
        """Put the descriptors back; what has been printed is in `lines`."""
        sys.stdout.flush()
        sys.stderr.flush()
        for kept, descriptor in zip(self._kept, (1, 2), strict=True):
            os.dup2(kept, descriptor)
            os.close(kept)
        sys.__stdout__, sys.__stderr__ = self._kept_files  # type: ignore[misc]
        self._terminal.close()
        self._reader.join(timeout=1)  # a process that the model started may still hold the pipe
        if self._part:
            self.lines.append(self._part)

    def write(self, text: str) -> None:
        """Take in printed text, in whatever pieces it comes."""
        *whole, self._part = (self._part + text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for line in whole:
            self.lines.append(printable(line))
            self.on_line(self.lines[-1])

    def _read(self, reading: int) -> None:
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            while data := pipe.read(65536):
                self.write(self._decoder.decode(data))
