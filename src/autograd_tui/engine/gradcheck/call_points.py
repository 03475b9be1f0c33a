"""Points between the calls of PyTorch that somebody's code makes, at which it can be interrupted.

It stands in this folder, whose files `tracing/call_description.py` takes for none of the user's code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from torch.overrides import TorchFunctionMode


class CallPoints(TorchFunctionMode):
    """Calls `reached` behind each call of PyTorch inside `with`; the calls run inside `modes`."""

    def __init__(self, reached: Callable[[], None]) -> None:
        super().__init__()
        self.modes: tuple[TorchFunctionMode, ...] = ()  # outermost first
        self._reached = reached

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        with ExitStack() as stack:
            for mode in self.modes:
                stack.enter_context(mode)
            result = func(*args, **(kwargs or {}))
        self._reached()
        return result
