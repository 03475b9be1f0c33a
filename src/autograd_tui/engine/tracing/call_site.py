"""The line of somebody's code that is running: the innermost outside of PyTorch."""

from __future__ import annotations

import linecache
import os
from collections.abc import Collection
from pathlib import Path
from types import FrameType

import torch

from autograd_tui.core.trace import Source
from autograd_tui.engine.training.user_code import is_nameable, is_ours

_HERE = tuple(str(Path(__file__).parents[1] / name) + os.sep for name in ("tracing", "gradcheck"))
_TORCH = str(Path(torch.__file__).parent) + os.sep
_AROUND = ("_contextlib.py", "grad_mode.py", "overrides.py")  # what PyTorch has around a call, not where it is made


def line_label(frame: FrameType | None, home_files: Collection[str]) -> str:
    """Give the line of a call, and its file where that is not one of `home_files`: "line 18", "net.py, line 3".

    `frame`: where to begin, in the code that traces or checks gradients. Where the engine called PyTorch, a line of
    PyTorch's; "" where none is known.
    """
    torch_line = ""
    while frame is not None:
        file, line = frame.f_code.co_filename, frame.f_lineno
        if is_nameable(file):
            return f"line {line}" if file in home_files else f"{Path(file).name}, line {line}"
        if is_ours(file) and not file.startswith(_HERE):
            return torch_line
        if file.startswith(_TORCH) and not file.endswith(_AROUND):
            torch_line = torch_line or f"{Path(file).name}, line {line}"
        frame = frame.f_back
    return torch_line


class CallSites:
    """Finds lines, and reads each but once."""

    def __init__(self) -> None:
        self._sources: dict[tuple[str, int], Source] = {}

    def source_of(self, frame: FrameType | None) -> Source | None:
        """Go outwards to the first line of a scenario, a model or another library; None where ours comes first.

        `frame`: where to begin, within other people's code.
        """
        while frame is not None:
            file = frame.f_code.co_filename
            if is_ours(file):
                return None
            if is_nameable(file):
                return self._read(file, frame.f_lineno)
            frame = frame.f_back
        return None

    def _read(self, file: str, line: int) -> Source:
        if (file, line) not in self._sources:
            self._sources[file, line] = Source(file, line, linecache.getline(file, line).strip())
        return self._sources[file, line]
