"""What other people's code raised: in words that are safe to show, and on which line of theirs."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from autograd_tui.engine.values.frame import TorchError

LONGEST = 10_000  # characters of a message that are kept
_OURS = Path(__file__).parent.parent
_LIBRARIES = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]


def torch_error(error: BaseException) -> TorchError:
    """Say what was raised, and on which line of the user's, else of a library other than PyTorch."""
    file, line = _where(error)
    message = (error.msg if isinstance(error, SyntaxError) else None) or _message(error)
    return TorchError(type(error).__name__, message, file, line)


def in_words(error: BaseException) -> str:
    """Say the same in one sentence: "ValueError: mine (my_model.py, line 3)"."""
    said = torch_error(error)
    where = f" ({Path(said.file).name}, line {said.line})" if said.line else ""
    return f"{said.type}: {said.message}{where}" if said.message else f"{said.type}{where}"


def _message(error: BaseException) -> str:
    try:
        message = str(error)
    except BaseException as again:
        return f"(its message cannot be shown: {type(again).__name__})"
    return message if len(message) <= LONGEST else message[: LONGEST - 1] + "…"


def _where(error: BaseException) -> tuple[str, int]:
    """Give the innermost line that the user wrote, as far as one is known: ("", 0) where there is none."""
    steps = list(_outside(error))
    if isinstance(error, SyntaxError) and error.filename:
        steps.append((error.filename, error.lineno or 0))
    own = [step for step in steps if not any(Path(step[0]).is_relative_to(library) for library in _LIBRARIES)]
    return (own or steps or [("", 0)])[-1]


def _outside(error: BaseException) -> Iterator[tuple[str, int]]:
    """Give the lines on the way to the error that are neither PyTorch's, ours, nor part of Python itself."""
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        parents = Path(file).parents
        ours = _OURS in parents and _OURS / "scenarios" not in parents
        if not (ours or Path(torch.__file__).parent in parents or file.startswith("<frozen ")):
            yield file, line
