"""What other people's code raised: in words that are safe to show, and on which line of theirs."""

from __future__ import annotations

import functools
import linecache
import os
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import current_thread, main_thread
from types import CodeType
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
    """Name what a function of ours calls of other people's: "model", "optimizer". `torch_error` tells it to the user.

    It is looked up by the function's code when something has been raised, so the call itself takes no longer.
    """

    def named(function: Function) -> Function:
        _CALLS[function.__code__] = name
        return function

    return named


def is_user_error(error: BaseException) -> bool:
    """Tell whether other people's code raised this; on the main thread a KeyboardInterrupt is the user's ctrl+c."""
    return not isinstance(error, KeyboardInterrupt) or current_thread() is not main_thread()


def is_ours(file: str) -> bool:
    """Tell whether a file is of this package, wherever it lies; the models that come with it are as a library's."""
    return file.startswith(_OURS) and file not in _SHIPPED


@functools.lru_cache(maxsize=1024)
def is_user_file(file: str) -> bool:
    """Tell whether a user has written a file: it is not Python's, a library's or this package's."""
    path = Path(file)
    return not file.startswith("<frozen") and not any(path.is_relative_to(library) for library in _LIBRARIES)


def is_nameable(file: str) -> bool:
    """Tell whether a file may be named: it is neither ours, nor PyTorch's, nor a part of Python itself."""
    return not (is_ours(file) or file.startswith((TORCH, "<frozen ")))


def torch_error(error: BaseException) -> TorchError:
    """Say what was raised, and on which line of the user's, else of a library other than PyTorch."""
    own, (file, line) = _where(error)
    message = _message(error)
    code = linecache.getline(*own[0]).strip()[:MAX_MESSAGE_LENGTH] if own else ""
    return TorchError(type(error).__name__, message, file, line, _call(error), code)


def in_words(error: BaseException) -> str:
    """Say the same in one sentence: "ValueError: mine (my_model.py, line 3)"."""
    said = torch_error(error)
    where = f" ({Path(said.file).name}, line {said.line})" if said.line else ""
    return f"{said.type}: {said.message}{where}" if said.message else f"{said.type}{where}"


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


def _where(error: BaseException) -> tuple[list[tuple[str, int]], tuple[str, int]]:
    """Give the lines that the user wrote, outermost first, and the one to name: ("", 0) where there is none."""
    steps = list(_outside(error))
    if isinstance(error, SyntaxError) and type(error.filename) is str and error.filename:
        steps.append((error.filename, error.lineno if type(error.lineno) is int else 0))
    own = [step for step in steps if is_user_file(step[0])]
    return own, (own or steps or [("", 0)])[-1]


def _outside(error: BaseException) -> Iterator[tuple[str, int]]:
    """Give the lines on the way to the error that may be named."""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if is_nameable(frame.f_code.co_filename):
            yield frame.f_code.co_filename, line
