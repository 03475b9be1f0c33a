"""In a script's process: what reads from its terminal asks for the screen's, and what ends it is held before.

Everything goes on as under plain Python where the screen is gone, in forked processes, and on other threads.
"""

from __future__ import annotations

import builtins
import importlib.util
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal

Reason = Literal["input", "breakpoint"]
OURS = str(Path(__file__).parent) + os.sep  # what lies there is left out of tracebacks
NO_DEBUGGER = ("", "0", "pdb.set_trace")  # of PYTHONBREAKPOINT: none, or pdb, which reads through `input`


class Lending:
    """Asks for the terminal while `input`, standard input, `getpass` or a debugger reads from it.

    A debugger keeps it from its first prompt until it lets the script go on, also while it steps.
    """

    def __init__(self, ask: Callable[[Reason], None], give_back: Callable[[], None]) -> None:
        """`ask` has the screen give way, `give_back` ends that; neither is called twice in a row."""
        self._ask, self._give_back = ask, give_back
        self.process = os.getpid()  # the script's, which may go on in a copy
        self._input = builtins.input
        self._debugged: set[type] = set()  # classes of debuggers that say when they let the script go on
        self.is_lent = False  # whether the script reads now: it must not be held

    def install(self) -> None:
        """Put `input` and others in the place of Python's own, and hear of debuggers other than pdb if asked for."""

        def input(prompt: object = "", /) -> str:
            try:
                return self._read(sys._getframe(1), prompt)
            except BaseException as error:
                leave_our_frames_out(error)
                raise  # as it is now: this adds no frame

        input.__doc__ = builtins.input.__doc__
        builtins.input = input
        self._lend_to_standard_input()
        found = importlib.util.find_spec("getpass")
        if found is not None and os.path.dirname(found.origin or "") == os.path.dirname(os.__file__):
            import getpass  # Python's own, which the script may never import; one that lies beside it is not run here

            getpass.getpass = self._lent_while(getpass.getpass)
        debugger = os.environ.get("PYTHONBREAKPOINT", "")
        if debugger not in NO_DEBUGGER and not debugger.startswith("autograd_tui."):
            sys.addaudithook(self._hear)  # a hook of its own would be the frame in which the debugger stops

    def _lend_to_standard_input(self) -> None:
        """Put one in the place of `sys.stdin` that asks for the terminal while it waits for what is typed."""
        before = sys.stdin
        try:
            if type(before) is not io.TextIOWrapper or before.fileno() != 0 or not before.isatty():
                return
            raw = _TerminalInput(self._lent_while)
            sys.stdin = io.TextIOWrapper(
                io.BufferedReader(raw), before.encoding, before.errors, line_buffering=before.line_buffering
            )
            sys.stdin.mode = "r"  # type: ignore[misc]  # as Python does itself
        except (OSError, ValueError):  # it may be closed
            return

    def _lent_while(self, read: Callable[..., Any]) -> Callable[..., Any]:
        """Return what calls `read` with the terminal lent to the script, and adds no frame to what it raises."""

        @wraps(read)
        def reads(*arguments: Any, **named: Any) -> Any:
            lends = self._is_ours() and not self.is_lent  # it is where a debugger runs what reads
            try:
                if lends:
                    self._lend("input")
                return read(*arguments, **named)
            except BaseException as error:
                leave_our_frames_out(error)
                raise
            finally:
                if lends:
                    self.end()

        return reads

    def end(self) -> None:
        """Give the terminal back, if it is lent."""
        if self.is_lent:
            self.is_lent = False
            self._give_back()

    def _read(self, caller: FrameType, prompt: object) -> str:
        if not self._is_ours():
            return self._input(prompt)
        debugger = _debugger_that_reads(caller)
        if debugger is not None and self._hears_end_of(type(debugger)):
            self._lend("breakpoint")
            return self._input(prompt)
        answer: str = self._lent_while(self._input)(prompt)
        return answer

    def _lend(self, why: Reason) -> None:
        if not self.is_lent:
            self.is_lent = True
            self._ask(why)

    def _is_ours(self) -> bool:
        """Return whether the terminal can be had: on the main thread of the process that has the screen."""
        if os.getpid() != self.process or threading.current_thread() is not threading.main_thread():
            return False
        try:
            return sys.stdin.isatty()
        except Exception:  # it may be anything
            return False

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        """Hear of `breakpoint()`, before its debugger takes the terminal."""
        if event == "builtins.breakpoint" and self._is_ours() and not self.is_lent:
            import bdb

            if self._hears_end_of(bdb.Bdb):
                self._lend("breakpoint")

    def _hears_end_of(self, debugger: type) -> bool:
        """Have a class of debuggers say when it lets the script go on; return whether it does."""
        if any(each in self._debugged for each in debugger.__mro__):
            return True
        try:
            for name in ("set_continue", "set_quit"):
                setattr(debugger, name, self._and_give_back(getattr(debugger, name)))
        except (AttributeError, TypeError):
            return False
        self._debugged.add(debugger)
        return True

    def _and_give_back(self, method: Callable[..., object]) -> Callable[..., object]:
        def goes_on(debugger: object, *arguments: Any, **named: Any) -> object:
            try:
                return method(debugger, *arguments, **named)
            finally:
                if os.getpid() == self.process:
                    self.end()

        return goes_on


class _TerminalInput(io.FileIO):
    """The terminal that is standard input, as bytes."""

    def __init__(self, lent_while: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        super().__init__(0, closefd=False)
        self.name = "<stdin>"
        for name in ("read", "readall", "readinto"):  # each reads by itself: none calls another
            setattr(self, name, lent_while(getattr(self, name)))


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Have ctrl+c wait for the end of the block: a message that is half sent would make the next ones unreadable."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[FrameType | None] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            handler(signal.SIGINT, came[0])


def hold_exceptions(hold: Callable[[BaseException], None]) -> None:
    """Have `hold` take the exception that ends a process, and return when it may end, as under plain Python.

    What the user ends the script by (ctrl+c, exit, a debugger's `q`) is not held. The traceback that the script
    prints leaves the frames of this package out.
    """
    before = sys.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        try:
            trace = leave_our_frames_out(error)
            if issubclass(kind, Exception) and kind.__name__ != "BdbQuit":
                hold(error)
        except BaseException:  # also ctrl+c: what is printed is what has ended the script
            pass
        before(kind, error, trace)

    sys.excepthook = excepthook


def leave_our_frames_out(error: BaseException) -> TracebackType | None:
    """Leave the frames of this package out of the tracebacks of an exception and of those that led to it."""
    waiting, seen = [error], set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        each.__traceback__ = _without_our_frames(each.__traceback__)
        waiting += [other for other in (each.__cause__, each.__context__) if other is not None]
        waiting += getattr(each, "exceptions", ())  # of a group
    return error.__traceback__


def _without_our_frames(whole: TracebackType | None) -> TracebackType | None:
    kept, trace, has_ours = [], whole, False
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith(OURS):
            has_ours = True
        else:
            kept.append(trace)
        trace = trace.tb_next
    if not has_ours:
        return whole
    result = None
    for each in reversed(kept):
        result = TracebackType(result, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return result


def _debugger_that_reads(caller: FrameType) -> object | None:
    """Return the debugger whose command loop calls `input`; None where something else does."""
    bdb = sys.modules.get("bdb")
    if bdb is None or caller.f_globals.get("__name__") not in ("cmd", "pdb"):
        return None
    reader = caller.f_locals.get("self")
    return reader if isinstance(reader, bdb.Bdb) else None
