"""The terminal lent to a script that reads from it: bytes pass both ways between it and the script's own."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

try:
    import termios
    import tty
except ImportError:  # Windows, where no script is held
    pass

if TYPE_CHECKING:
    from autograd_tui.tui.app import AutogradApp

MAX_KEYS = 1 << 16  # bytes typed ahead that the script has not taken; later ones are dropped
MAX_WRITE = 1 << 9  # bytes written at once: a terminal that has room for some may not have it for many
AGAIN_SECONDS = 0.15  # for which it stays lent: a script that reads one line may read the next
PASS_SECONDS = 0.1  # between two looks at whether the terminal is still lent
NOT_HERE = "the script reads from its terminal, which cannot be lent here"


class ScriptTerminal(Protocol):
    """A script's process with a terminal of its own, as `engine.script.script_process` starts it."""

    ends_with_screen: bool  # whether it is ended when the screen is left
    # Called on a thread, with True where the script begins to wait for keys, with False where it no longer does.
    on_reading: Callable[[bool], None] | None

    def write(self, keys: bytes) -> int:
        """Type keys there; return how many bytes were taken."""

    def show(self, viewer: Callable[[bytes], None] | None) -> bytes:
        """Hand on to `viewer` what is printed from now on; return what was printed last."""

    def resize(self, columns: int, rows: int) -> None:
        """Set its size."""

    def wait(self, seconds: float | None = None) -> int | None:
        """Return the exit code, where the script has ended by then."""

    def interrupt(self) -> None:
        """Do what ctrl+c there does."""

    def close(self) -> int | None:
        """End the script."""


class LentTerminal:
    """Lends the screen's terminal to a script and takes it back; `attach`, `lend`, `take_back` are for any thread."""

    def __init__(self) -> None:
        self.app: AutogradApp | None = None  # whose terminal it is
        self._process: ScriptTerminal | None = None
        self._asked_for = False  # whether the script's agent has asked for it, and not given it back
        self._is_read = False  # whether the script waits in a call of the system for what is typed
        self._loan: _Loan | None = None

    @property
    def is_lent(self) -> bool:
        """Whether keys go to the script now."""
        return self._loan is not None

    @property
    def has_script(self) -> bool:
        """Whether there is a script that has not ended."""
        return self._process is not None and self._process.wait(0) is None

    @property
    def ends_with_screen(self) -> bool:
        """Whether leaving the screen ends the script; it does not end one that has opened the screen itself."""
        return self._process is None or self._process.ends_with_screen

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt at the script's line, as ctrl+c on its terminal does."""
        if self._process is not None:
            self._process.interrupt()

    def attach(self, process: ScriptTerminal) -> None:
        """Take the process of the script, which gets the size of the terminal from now on."""
        self._process = process
        process.on_reading = self._note_reading
        self._call(self.resize)

    def lend(self) -> None:
        """Close the screen and have keys go to the script, until they are taken back or it has ended."""
        self._asked_for = True
        self._call(self._begin)

    def take_back(self) -> None:
        """Open the screen again, if it was closed for the script, unless that reads on in a moment."""
        self._asked_for = False
        self._end_soon()

    def _note_reading(self, reads: bool) -> None:
        """Lend it to a script that reads without asking: before it has imported torch, or from a descriptor."""
        self._is_read = reads
        if reads:
            self._call(self._begin)
        else:
            self._end_soon()

    @property
    def _wanted(self) -> bool:
        return self._asked_for or self._is_read

    def _end_soon(self) -> None:
        if self.app is not None:
            self._call(partial(self.app.set_timer, AGAIN_SECONDS, self._end))

    def _call(self, method: Callable[[], object]) -> None:
        """Call a method on the screen's own thread."""
        if self.app is not None and self.app.is_attached:
            self.app.call_later(method)

    # On the screen's thread.

    def resize(self) -> None:
        """Give the script's terminal the size of this one."""
        if self._process is not None and self.app is not None:
            self._process.resize(*self.app.size)

    def _begin(self) -> None:
        app, process = self.app, self._process
        if not self._wanted or self._loan is not None or app is None or process is None:
            return
        if (driver := app.lending_driver) is None:
            app.say_warning(NOT_HERE)
            return
        loan: _Loan | None = None
        keyboard, display = driver.lend(lambda: loan.take_modes() if loan else None)
        self._loan = loan = _Loan(process, keyboard, display, ended=self._loan_ended)
        loan.begin()

    def _loan_ended(self, terminal_is_gone: bool) -> None:
        """Open the screen again, or leave; on the loan's own thread."""
        if terminal_is_gone and self.app is not None:
            self.app.call_later(self.app.leave, 129)
        else:
            self._is_read = False
            self.take_back()

    def _end(self) -> None:
        if self._wanted or self._loan is None:
            return
        self.stop()
        if self.app is not None and (driver := self.app.lending_driver):
            driver.take_back()

    def stop(self) -> None:
        """Put the terminal into the modes in which it was lent, and pass nothing on; the screen stays closed."""
        loan, self._loan = self._loan, None
        if loan is not None:
            loan.end()

    def close(self) -> None:
        """End the script, if there is one."""
        self.stop()
        if self._process is not None:
            self._process.close()


class _Loan:
    """One time that the terminal is lent: a thread passes keys on, the script's reader passes on what it prints."""

    def __init__(self, process: ScriptTerminal, keyboard: int, display: int, *, ended: Callable[[bool], None]) -> None:
        """`ended` is called where the script has ended, or with True where the terminal has gone away."""
        self._process, self._keyboard, self._display, self._ended = process, keyboard, display, ended
        self._modes: list[Any] | None = None
        self._handler: Any = None  # of SIGWINCH before
        self._over = threading.Event()
        self._wakes, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._pass_keys, name="lent terminal", daemon=True)

    def begin(self) -> None:
        """Take the terminal's modes, show what the script has printed last, and pass on keys."""
        with suppress(termios.error):
            self._modes = termios.tcgetattr(self._keyboard)
        self.take_modes()
        self._handler = signal.signal(signal.SIGWINCH, lambda *_: self._resize())
        self._resize()
        rows = self._size()[1]
        self._print(_last_lines(self._process.show(self._print), max(rows - 2, 1)))
        self._thread.start()

    def end(self) -> None:
        """Pass nothing on any more, and put the modes back."""
        self._over.set()
        os.write(self._wake, b"\0")
        self._thread.join()
        self._process.show(None)
        signal.signal(signal.SIGWINCH, self._handler)
        for each in (self._wakes, self._wake):
            os.close(each)
        if self._modes is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._modes)

    def take_modes(self) -> None:
        """Have each key come as it is: it is the script's terminal that echoes it, or makes a signal of it."""
        if not self._over.is_set():
            with suppress(termios.error):
                tty.setraw(self._keyboard, termios.TCSANOW)

    def _resize(self) -> None:
        columns, rows = self._size()
        if columns and rows:
            self._process.resize(columns, rows)

    def _size(self) -> tuple[int, int]:
        try:
            columns, rows = os.get_terminal_size(self._keyboard)
        except OSError:
            return 0, 0
        return columns, rows

    def _print(self, data: bytes) -> None:
        """Write to the terminal, as far as it takes it while it is lent."""
        while data and not self._over.is_set():
            if select.select([], [self._display], [], PASS_SECONDS)[1]:
                try:
                    data = data[os.write(self._display, data[:MAX_WRITE]) :]
                except OSError:
                    return

    def _pass_keys(self) -> None:
        keys = b""
        while not self._over.is_set():
            if self._keyboard in select.select([self._keyboard, self._wakes], [], [], PASS_SECONDS)[0]:
                try:
                    typed = os.read(self._keyboard, 4096)
                except BlockingIOError:
                    continue
                except OSError:
                    typed = b""
                if not typed:
                    self._ended(True)
                    return
                keys = (keys + typed)[:MAX_KEYS]
            if keys:
                keys = keys[self._process.write(keys) :]
            if self._process.wait(0) is not None:
                self._ended(False)
                return


def _last_lines(printed: bytes, count: int) -> bytes:
    """Return the last lines of what was printed, the unfinished one among them."""
    lines = printed.split(b"\n")
    return b"\n".join(lines[-count - 1 :])
