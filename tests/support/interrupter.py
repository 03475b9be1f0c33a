"""A thread that interrupts other people's code on the thread that made it, at chosen instants."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from time import perf_counter

from autograd_tui.engine.training.interruption import interrupt

SWITCH_SECONDS = 1e-5  # between two threads' turns: an instant within a phase can be met


class Interrupter:
    """Interrupts, once, whatever runs first after an instant inside `at`."""

    def __init__(self) -> None:
        self._thread = get_ident()

    @contextmanager
    def at(self, seconds: float) -> Iterator[None]:
        """Interrupt so many seconds from here, or as soon as something can be, but nothing behind the block."""
        has_ended = threading.Event()
        due = perf_counter() + seconds

        def work() -> None:
            while not has_ended.is_set():
                if perf_counter() >= due and interrupt(self._thread) != "none":
                    return

        worker, interval = threading.Thread(target=work), sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        worker.start()
        try:
            yield
        finally:
            has_ended.set()
            worker.join()
            sys.setswitchinterval(interval)
