"""The line of somebody's code that is running: the innermost outside of PyTorch."""

from __future__ import annotations

import linecache
from types import FrameType

from autograd_tui.engine.training.raised import is_ours, is_theirs
from autograd_tui.engine.values.trace import Source


class Sources:
    """Finds lines, and reads each but once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], Source] = {}

    def line_of(self, frame: FrameType | None) -> Source | None:
        """Go outwards to the first line of a scenario, a model or another library; None where ours comes first.

        `frame`: where to begin, within other people's code.
        """
        while frame is not None:
            file = frame.f_code.co_filename
            if is_ours(file):
                return None
            if is_theirs(file):
                return self._read(file, frame.f_lineno)
            frame = frame.f_back
        return None

    def _read(self, file: str, line: int) -> Source:
        if (file, line) not in self._known:
            self._known[file, line] = Source(file, line, linecache.getline(file, line).strip())
        return self._known[file, line]
