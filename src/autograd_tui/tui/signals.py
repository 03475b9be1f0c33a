"""The signals that end the program: kept waiting while the screen opens, then answered by leaving in order."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from autograd_tui.tui.terminal_watchdog import TerminalWatchdog, makes_signals

CODES = {"SIGTERM": 143, "SIGHUP": 129, "SIGINT": 130}  # the exit code of each
_KNOWN = {signal.Signals[name]: code for name, code in CODES.items() if hasattr(signal, name)}  # on this system
_ANSWERED = {*_KNOWN, *(signal.Signals[name] for name in ("SIGWINCH", "SIGTSTP", "SIGCONT") if hasattr(signal, name))}


def hold() -> None:
    """Keep them waiting: one that comes between the screen's opening and `answer` would leave it open."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, _KNOWN)


def let_go() -> None:
    """Let those that wait come."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _KNOWN)


def answer(leave: Callable[[int], None], interrupt: Callable[[], None], watchdog: TerminalWatchdog) -> None:
    """Have them call `leave` with their exit code, on the running event loop, and let those that wait come.

    A ctrl+c that the watchdog has made a signal, since nobody read it as a key, calls `interrupt`.
    """

    def answered(number: signal.Signals) -> None:
        watchdog.answered()
        if number == signal.SIGINT and makes_signals():
            interrupt()
        else:
            leave(_KNOWN[number])

    loop = asyncio.get_running_loop()
    try:
        for number in _KNOWN:
            loop.add_signal_handler(number, answered, number)
            if number != signal.SIGINT:
                watchdog.hear(number)
        wakeup = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)  # a dragged window may signal faster than we look
    except (NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
        return
    finally:
        let_go()


def keep_from_copies() -> None:
    """Have copies of this process that os.fork makes answer signals as a program without a screen does.

    They share the descriptor that wakes our event loop: a signal sent to one of them would be answered by us.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_answer_as_usual)


def _block() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _ANSWERED)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ANSWERED)


def _answer_as_usual() -> None:
    signal.set_wakeup_fd(-1)
    for number in _ANSWERED:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _unblock()
