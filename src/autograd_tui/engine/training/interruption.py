"""Ends other people's code that would run for ever: another thread has KeyboardInterrupt raised in it."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from threading import get_ident
from typing import Any, TypeVar

import torch

from autograd_tui.core.session_protocol import Interruption
from autograd_tui.engine.training.user_code import let_go_of_tensors

Result = TypeVar("Result")
LOOKS = 10
AUTOCAST_DEVICES = ("cpu", "cuda")


class Interrupt(KeyboardInterrupt):
    """Raised in other people's code that is to end; no `except Exception` of theirs catches it."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        if call := _calls.get(get_ident()):
            call.is_raised = True


@dataclass(eq=False, slots=True)
class _Call:
    """Other people's code that runs on a thread."""

    is_sent: bool = False  # whether it is to end
    is_raised: bool = False  # whether Interrupt has been raised in it
    is_lost: bool = False  # whether that was where no exception leads out, as in a `__del__`
    is_held: bool = False  # whether our own code runs within it

    @property
    def is_to_be_sent(self) -> bool:
        return not self.is_sent or self.is_lost


_calls: dict[int, _Call] = {}  # by thread
_lock = threading.Lock()
_outer_hooks: list[Callable[[Any], object]] = []  # what `sys.unraisablehook` was before an Interrupt was to come


def interruptible(function: Callable[[], Result]) -> Result:
    """Call a function that runs other people's code, and return what it returns; `interrupt` can end it.

    Raises Interrupt where it was to end, even if it returned, or raised something else: what it has done is then to be
    undone. Interrupt may be raised at any place in the function, but at none outside of it. Inside another one it is a
    part of that.
    """
    thread = get_ident()
    if thread in _calls:
        return function()
    call, modes = _Call(), _ThreadModes()
    try:
        try:
            _calls[thread] = call
            result = function()
        finally:
            _end(thread, call)
    except BaseException as error:
        _end(thread, call)  # Interrupt comes once: if it ended the first `_end`, it does not come again
        if not call.is_sent:
            raise
        let_go_of_tensors(error)  # and of `with` blocks half left, which would change the modes once they are collected
        modes.restore()
        if isinstance(error, Interrupt):
            raise
        raise Interrupt from error
    if call.is_sent:
        modes.restore()
        raise Interrupt
    return result


def interrupt(thread: int, *, begin: bool = True) -> Interruption:
    """Have Interrupt raised in the other people's code that runs on a thread; any thread may call this, repeatedly.

    Return "none" where none runs now that is to end, "sent" until Python is reached in it, and then "raised" until it
    has ended. A call that does not return to Python is not ended, nor is what catches KeyboardInterrupt and goes on.
    Not `begin`: what was not to end yet goes on.
    """
    with _lock:
        call = _calls.get(thread)
        if call is None or not (begin or call.is_sent):
            return "none"
        if call.is_to_be_sent and call.is_held:
            return "sent" if call.is_sent else "none"
        if call.is_to_be_sent:
            call.is_sent, call.is_raised, call.is_lost = True, False, False
            if sys.unraisablehook is not _note_lost:
                _outer_hooks.append(sys.unraisablehook)
                sys.unraisablehook = _note_lost
            _raise_in(thread, Interrupt)
        return "raised" if call.is_raised else "sent"


class Uninterrupted:
    """Keeps Interrupt out of what our own code does within other people's; raises it first where it is to come."""

    def __enter__(self) -> None:
        self._call = _calls.get(get_ident())
        self._was_held = self._call is not None and self._call.is_held
        if self._call is None or self._was_held:
            return
        with _lock:
            call = self._call
            is_sent = call.is_sent and (call.is_lost or not call.is_raised)
            if is_sent:
                call.is_lost = False
            else:
                self._call.is_held = True
        if is_sent:
            _take_in()
            raise Interrupt

    def __exit__(self, *_: object) -> None:
        if self._call is not None:
            self._call.is_held = self._was_held


def _end(thread: int, call: _Call) -> None:
    """Let no Interrupt come any more."""
    with _lock:
        if _calls.get(thread) is call:
            del _calls[thread]
        if sys.unraisablehook is _note_lost:
            sys.unraisablehook = _outer_hooks.pop()
    if call.is_sent:
        _take_in()


def _note_lost(unraisable: Any) -> None:
    """Note that Interrupt was raised where no exception leads out: it is to be raised again."""
    call = _calls.get(get_ident())
    if issubclass(unraisable.exc_type, Interrupt):
        if call is not None:
            call.is_lost = True
    else:
        _outer_hooks[-1](unraisable)


def _raise_in(thread: int, error: type[BaseException]) -> None:
    """Have an exception raised when a thread next runs Python."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


def _take_in() -> None:
    """Have the Interrupt that may be on its way to this thread raised here, where it ends nothing.

    Python can take it back, too, but then goes on looking for it: in Python 3.11 no traced function begins any more.
    """
    try:
        for _ in range(LOOKS):  # Python looks for one whenever a loop begins anew
            pass
    except Interrupt:
        pass


class _ThreadModes:
    """The modes of PyTorch and the streams as they are now: `with` blocks that were ended midway may leave others."""

    def __init__(self) -> None:
        self._streams = sys.stdout, sys.stderr
        self._is_grad_enabled, self._dtype = torch.is_grad_enabled(), torch.get_default_dtype()
        self._autocast = [(each, torch.is_autocast_enabled(each)) for each in AUTOCAST_DEVICES]
        self._function_modes = torch._C._len_torch_function_stack()
        self._dispatch_modes = torch._C._len_torch_dispatch_stack()

    def restore(self) -> None:
        """Put them back."""
        sys.stdout, sys.stderr = self._streams
        torch.set_grad_enabled(self._is_grad_enabled)
        torch.set_default_dtype(self._dtype)
        for device, is_enabled in self._autocast:
            torch.set_autocast_enabled(device, is_enabled)
        while torch._C._len_torch_function_stack() > self._function_modes:
            torch._C._pop_torch_function_stack()
        while torch._C._len_torch_dispatch_stack() > self._dispatch_modes:
            torch._C._pop_torch_dispatch_stack(None)
