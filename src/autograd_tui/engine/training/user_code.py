"""What other people's code raises, as text that is safe to show with the line that raised; and what ends its forks."""

from __future__ import annotations

import functools
import linecache
import os
import sysconfig
import traceback
from collections.abc import Callable
from io import TextIOBase
from pathlib import Path
from threading import current_thread, main_thread
from types import CodeType, FrameType
from typing import Any, TypeVar

import torch

from autograd_tui.core.frame import TorchError
from autograd_tui.core.run_config import BUILT_IN

Function = TypeVar("Function", bound=Any)
MAX_MESSAGE_LENGTH = 10_000  # characters of a message that are kept
_PACKAGE = Path(__file__).parents[2]
_OURS = str(_PACKAGE) + os.sep
_SHIPPED = frozenset(str(_PACKAGE / "scenarios" / f"{name}.py") for name in BUILT_IN)
TORCH = str(Path(torch.__file__).parent) + os.sep
_CALLS: dict[CodeType, str] = {}  # by the code of our functions that make them
_LIBRARIES = (str(_PACKAGE), TORCH, *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")))


def in_call(name: str) -> Callable[[Function], Function]:
    """Return a decorator that names what a function of ours calls of other people's: "model", "optimizer".

    `torch_error` looks the name up by the function's code once something was raised, so the call takes no longer.
    """

    def named(function: Function) -> Function:
        _CALLS[function.__code__] = name
        return function

    return named


def is_user_error(error: BaseException) -> bool:
    """Return whether other people's code raised this; on the main thread a KeyboardInterrupt is the user's ctrl+c."""
    return not isinstance(error, KeyboardInterrupt) or current_thread() is not main_thread()


def is_ours(file: str) -> bool:
    """Return whether a file is of this package; the scenarios that come with it count as a library's."""
    return file.startswith(_OURS) and file not in _SHIPPED


@functools.lru_cache(maxsize=1024)
def is_user_file(file: str) -> bool:
    """Return whether a user has written a file: it is not Python's, a library's or this package's."""
    path = Path(file)
    return not file.startswith("<frozen") and not any(path.is_relative_to(library) for library in _LIBRARIES)


def is_nameable(file: str) -> bool:
    """Return whether a file may be shown as a source: it is neither ours, nor PyTorch's, nor frozen into Python."""
    return not (is_ours(file) or file.startswith((TORCH, "<frozen ")))


def torch_error(error: BaseException) -> TorchError:
    """Return the error as plain values, with the line of the user's that raised it, else of a library but PyTorch."""
    user_lines, (file, line) = _source_lines(error)
    code = linecache.getline(*user_lines[0]).strip()[:MAX_MESSAGE_LENGTH] if user_lines else ""
    return TorchError(type(error).__name__, _message(error), file, line, _call(error), code)


def in_words(error: BaseException) -> str:
    """Return the error as one sentence: "ValueError: mine (my_model.py, line 3)"."""
    plain = torch_error(error)
    source = f" ({Path(plain.file).name}, line {plain.line})" if plain.line else ""
    return f"{plain.type}: {plain.message}{source}" if plain.message else f"{plain.type}{source}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that there was no memory left, in whichever of PyTorch's ways."""
    return isinstance(error, torch.OutOfMemoryError) or torch_error(error).is_out_of_memory


def let_go_of_tensors(error: BaseException) -> None:
    """Clear the local variables of all functions that an error has left: what they had computed takes memory."""
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen.add(id(each))
            traceback.clear_frames(each.__traceback__)
            waiting += [other for other in (each.__cause__, each.__context__) if other is not None]


def place_of(error: BaseException) -> str:
    """Return where an error was raised, to stand behind a word: " at my_model.py, line 3", or "" where nobody knows."""
    _, (file, line) = _source_lines(error)
    if not line and error.__cause__ is not None:
        return place_of(error.__cause__)
    return f" at {Path(file).name}, line {line}" if line else ""


def _message(error: BaseException) -> str:
    try:
        message = str.__str__(str((error.msg if isinstance(error, SyntaxError) else None) or error))
    except BaseException as again:
        return f"(its message cannot be shown: {type(again).__name__})"
    return message if len(message) <= MAX_MESSAGE_LENGTH else message[: MAX_MESSAGE_LENGTH - 1] + "…"


def _call(error: BaseException) -> str:
    """Return the call in which it was raised, as `in_call` has named it: "" where it is none of those."""
    codes = (frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__))
    calls = [_CALLS[code] for code in codes if code in _CALLS]
    return calls[-1] if calls else ""


def _source_lines(error: BaseException) -> tuple[list[tuple[str, int]], tuple[str, int]]:
    """Return the (file, line) pairs that the user wrote, outermost first, and the one to show; ("", 0) for none."""
    traceback_lines = traceback.walk_tb(error.__traceback__)
    lines = [(frame.f_code.co_filename, line) for frame, line in traceback_lines if _is_nameable_code(frame)]
    if isinstance(error, SyntaxError) and type(error.filename) is str and error.filename:
        lines.append((error.filename, error.lineno if type(error.lineno) is int else 0))
    user_lines = [each for each in lines if is_user_file(each[0])]
    return user_lines, (user_lines or lines or [("", 0)])[-1]


def _is_nameable_code(frame: FrameType) -> bool:
    """Return whether a frame may be shown as a source, by its file; by its module's where `dataclass` generated it."""
    file = frame.f_code.co_filename
    return is_nameable(file) and (file != "<string>" or is_nameable(str(frame.f_globals.get("__file__", ""))))


_fork_count = 0  # of the forks that lead from where this module was imported to this process


def _count_fork() -> None:
    global _fork_count
    _fork_count += 1


if hasattr(os, "register_at_fork"):  # there are no forks on Windows
    os.register_at_fork(after_in_child=_count_fork)


class ForkGuard:
    """Runs other people's code; a copy of this process that it has made by os.fork ends when it is through with it.

    It would read the same keys, and write to the same terminal and journal. Forks are counted, since asking for the
    process id is a system call, which costs a percent or two of a small model's iteration.
    """

    __slots__ = ("_fork_count",)

    def __enter__(self) -> ForkGuard:
        self._fork_count = _fork_count
        return self

    def check(self) -> None:
        """End here if this is a copy."""
        if _fork_count != self._fork_count:
            os._exit(0)

    def __exit__(self, *raised: object) -> None:
        self.check()


class Silence(TextIOBase):
    """Takes what is printed, and keeps nothing of it but whether there was anything."""

    printed = False

    def write(self, text: str) -> int:
        self.printed |= bool(text.strip())
        return len(text)
