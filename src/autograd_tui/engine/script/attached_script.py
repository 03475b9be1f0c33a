"""A script that runs already and has opened the screen itself: its pid and the terminal that it prints to meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress

from autograd_tui.engine.script.script_process import ScriptProcess

with suppress(ImportError):  # on Windows, where no script is held
    import termios

INTERRUPT = b"\x03"  # the key that is a signal where a terminal makes signals


class AttachedScript(ScriptProcess):
    """The process that has started this one; it goes on when the screen is left, and is never ended from here."""

    ends_with_screen = False

    def __init__(self, words: Sequence[str], *, terminal: int, on_output: Callable[[bytes], None]) -> None:
        """`terminal`: the screen's end of the pseudo terminal that the script reads from and prints to."""
        self.pid = os.getppid()
        self._prepare(words, terminal, on_output)
        self.resize_to_own()
        self._begin_to_read()

    def write(self, keys: bytes) -> int:
        """Type keys there; ctrl+c is a signal, which that terminal itself does not make: it is nobody's own."""
        if INTERRUPT in keys and self._makes_signals():
            before, _, after = keys.partition(INTERRUPT)
            taken = super().write(before) if before else 0
            if taken < len(before):
                return taken
            self.interrupt()
            return taken + 1 + (self.write(after) if after else 0)
        return super().write(keys)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the script."""
        if self.exit_code is None and os.getppid() == self.pid:
            with suppress(OSError):
                os.kill(self.pid, signal.SIGINT)

    def terminate(self) -> None:
        """Leave it alone."""

    def _makes_signals(self) -> bool:
        with self._state, suppress(OSError, termios.error):
            return self._master >= 0 and bool(termios.tcgetattr(self._master)[3] & termios.ISIG)
        return False

    def _processes(self) -> dict[int, str]:
        return {}  # none is to be killed

    def _poll(self) -> bool:
        """Return whether it has ended, or is left."""
        if self.exit_code is None and (self._closing or os.getppid() != self.pid):
            self.exit_code = 0
        return self.exit_code is not None
