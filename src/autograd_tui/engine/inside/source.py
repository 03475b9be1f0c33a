"""The line of somebody's code that is running: the innermost outside of PyTorch."""

from __future__ import annotations

import linecache
import os
from pathlib import Path
from types import FrameType

import torch

from autograd_tui.engine.values.trace import Source

_OURS = str(Path(__file__).parent.parent) + os.sep
_SCENARIOS = _OURS + "scenarios" + os.sep
_TORCH = str(Path(torch.__file__).parent) + os.sep


class Sources:
    """Finds lines, and reads each but once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], Source] = {}

    def line_of(self, frame: FrameType | None) -> Source | None:
        """Go outwards to the first line of a scenario, a model or another library; None where the engine comes first.

        `frame`: where to begin, within other people's code.
        """
        while frame is not None:
            file = frame.f_code.co_filename
            if file.startswith(_OURS) and not file.startswith(_SCENARIOS):
                return None
            if not file.startswith((_TORCH, "<frozen ")):
                return self._read(file, frame.f_lineno)
            frame = frame.f_back
        return None

    def _read(self, file: str, line: int) -> Source:
        if (file, line) not in self._known:
            self._known[file, line] = Source(file, line, linecache.getline(file, line).strip())
        return self._known[file, line]
