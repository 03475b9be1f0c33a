"""The terminal's input, taken in whatever it is: what cannot be read is dropped, and what comes too fast.

Textual's own driver ends at the first byte that is no UTF-8, and its parser at sequences that it does not know.
"""

from __future__ import annotations

import os
import re
import select
import termios
from codecs import getincrementaldecoder
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from textual import constants, events
from textual._xterm_parser import XTermParser  # private, but there is no other that knows the names of keys
from textual.drivers.linux_driver import LinuxDriver
from textual.message import Message
from textual.messages import InBandWindowResize

from autograd_tui.core.command import MAX_LINE_LENGTH
from autograd_tui.tui.screen_cells import ScreenCells

if TYPE_CHECKING:
    from autograd_tui.tui.app import AutogradApp

MOST_WAITING = 500  # keys and clicks that the app has not got to yet: it runs so many in less than a second
MOST_MOVES = 50  # that may wait before the next move of the mouse is left out
MOST_PASTED = MAX_LINE_LENGTH  # characters: of more one is kept, so that it is seen that they are too many
LONGEST_SEQUENCE = 32  # characters: of a longer one Textual would make keys
LONGEST_STRING = 1_000  # characters of what may begin a terminal's answer in words, and is dropped
MOST_COLUMNS, MOST_ROWS = 1000, 400  # that are drawn on: Textual takes minutes for millions of cells
USUAL_SIZE = 80, 24  # of a terminal that does not know its own

PASTE, PASTED = "\x1b[200~", "\x1b[201~"
_BY_HAND = re.compile(r"(\x03|\x1b|\x1b\[(?:99;5|27)u)\Z")  # ctrl+c and escape, also as kitty writes them
_PART = re.compile(
    r"""(?P<text>[^\x1b]+)
    |(?P<whole>\x1b(?:\[M[^\x1b]{3}|\[\[[A-E]|\[(?![M[])[ -?]*[@-~]|O[^\x1b]|[^\x1b[O\]P_^X]))
    |(?P<string>\x1b[]P_^X][^\x1b\x07]*(?:\x07|\x1b\\))
    |(?P<begun>\x1b(?:\[(?:M[^\x1b]{0,2}|\[|[ -?]*)|O|[]P_^X][^\x1b\x07]*\x1b?)?\Z)
    |(?P<broken>\x1b(?:\[[ -?]*|O|[]P_^X][^\x1b\x07]*)?)""",
    re.VERBOSE | re.DOTALL,
)


class CountedFile:
    """The terminal's file as the thread that writes uses it; counts the writes that the terminal has taken."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._written = self.arrived = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        """Write, which may wait for the terminal."""
        count = self._file.write(text)
        self._written += 1
        return count

    def flush(self) -> None:
        """Write what is left, and take note that all has arrived."""
        self._file.flush()
        self.arrived = self._written


class TerminalInput:
    """Text from a terminal into events, whatever it is and wherever it is cut in two."""

    def __init__(self) -> None:
        self._parser = XTermParser()
        self._begun = ""  # a sequence that may go on
        self._pasted: str | None = None  # so far, while a paste goes on

    def feed(self, text: str) -> list[Message]:
        """Return the events of all that has come whole."""
        found: list[Message] = []
        text, self._begun = self._begun + text, ""
        while text:
            if self._pasted is not None:
                text = self._paste(text, found)
                continue
            part = _PART.match(text)
            assert part is not None  # any text begins with a part
            text = text[part.end() :]
            match part.lastgroup, part[0]:
                case "text", characters:
                    found += [event for each in characters for event in self._parsed(each)]
                case "whole", sequence if sequence == PASTE:
                    self._pasted = ""
                case ("whole", sequence) | ("broken", "\x1b" as sequence):
                    found += self._parsed(sequence)
                case "begun", sequence:
                    self._begun = sequence[:LONGEST_STRING]  # what is too long is dropped, but with its end
        return found

    def quiet(self) -> list[Message]:
        """Return the events of what was begun, since nothing follows: escape, alt and a key, a paste left by hand."""
        if self._pasted is not None:
            if not (key := _BY_HAND.search(self._pasted)):
                return []
            pasted, self._pasted = self._pasted[: key.start()], None
            return [*_paste(pasted), *self._parsed(key[0])]
        begun, self._begun = self._begun, ""
        return self._parsed(begun) if begun else []

    def _paste(self, text: str, found: list[Message]) -> str:
        """Take in what is pasted; give the rest, behind its end."""
        assert self._pasted is not None
        pasted, end, rest = (self._pasted + text).partition(PASTED)
        kept = MOST_PASTED + 1
        self._pasted = None if end else pasted[:kept] + pasted[kept:][-len(PASTED) :]
        if end:
            found += _paste(pasted)
        return rest

    def _parsed(self, sequence: str) -> list[Message]:
        """Have Textual read one key or report; nothing where it cannot."""
        if len(sequence) > LONGEST_SEQUENCE:
            return []
        try:
            found = list(self._parser.feed(sequence))
            if not found and len(sequence) <= 2:
                found = list(self._parser.feed(""))  # nothing follows an escape, or alt and a key
        except Exception:  # of any kind, for numbers that are none
            found = []
        if not found or self._parser.is_eof:
            self._parser = XTermParser()  # the other may still wait for the end of the sequence
        return [each for each in found if not isinstance(each, events.Key) or _is_text(each.key)]


def _paste(text: str) -> list[Message]:
    return [events.Paste(text[: MOST_PASTED + 1].replace("\0", ""))] if text else []


def _is_text(key: str) -> bool:
    """Return whether a key is made of characters that there are, and can be written."""
    return not any("\ud800" <= character <= "\udfff" for character in key)


class TerminalDriver(LinuxDriver):
    """Takes keys up to a bound: the rest of what comes at once is dropped, and counted."""

    _app: AutogradApp

    def __init__(
        self, app: AutogradApp, *, debug: bool = False, mouse: bool = True, size: tuple[int, int] | None = None
    ) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        self._cells = ScreenCells()
        self.bytes_sent = 0  # on their way to the terminal, or there
        self._writes = 0  # that were handed to the thread that writes
        assert self._file is not None
        self._counted = CountedFile(self._file)
        self._file = self._counted  # type: ignore[assignment]  # Textual names the class of sys.__stderr__
        self._size = size or self._get_terminal_size()
        self._modes: list[Any] = []  # the terminal's own, while the screen is open
        self._posted = 0  # keys and clicks, of which the app counts those that it has taken
        self._dropped: int | None = None  # of them, since the last quiet moment; None where all were taken
        self._on_continued: Callable[[], None] | None = None  # of whom the terminal is lent to

    def lend(self, on_continued: Callable[[], None]) -> tuple[int, int]:
        """Leave the screen, and read and write nothing until it is taken back; return where to read and to write.

        on_continued: called where the program goes on after a stop, as by a shell that has changed the modes.
        """
        self._auto_restart = False
        self.suspend_application_mode()
        self._on_continued = on_continued
        assert self._file is not None
        return self.fileno, self._file.fileno()

    def take_back(self) -> None:
        """Open the screen again on the terminal that was lent."""
        self._on_continued, self._auto_restart = None, True
        self.resume_application_mode()
        self.forget_cells()
        self._app.refresh(layout=True)

    def write(self, data: str) -> None:
        """Write to the terminal, in few bytes; nothing while it is lent."""
        if self._on_continued is None:
            changes = self._cells.changes(data)
            self._writes += 1
            self.bytes_sent += len(changes.encode(errors="replace"))
            super().write(changes)

    @property
    def is_behind(self) -> bool:
        """Whether the terminal has not taken all that was written."""
        return self._counted.arrived < self._writes

    def forget_cells(self) -> None:
        """Write whole what is written next: the terminal may show something else than was written."""
        self._cells.forget()

    def _get_terminal_size(self) -> tuple[int, int]:
        """Ask the terminal itself: what COLUMNS and LINES say may be of another one."""
        self.forget_cells()  # of another size it shows other cells
        try:
            width, height = os.get_terminal_size(self.fileno)
        except OSError:
            width, height = 0, 0
        return min(width or USUAL_SIZE[0], MOST_COLUMNS), min(height or USUAL_SIZE[1], MOST_ROWS)

    def start_application_mode(self) -> None:
        """Take the terminal, and remember in which modes."""
        if self.attrs_before is not None:  # a signal to go on came first
            return
        super().start_application_mode()  # type: ignore[no-untyped-call]
        with suppress(termios.error):
            self._modes = termios.tcgetattr(self.fileno)

    def _sigcont_application(self, *_: object) -> None:
        """Go on: where SIGSTOP had stopped us, or nothing, the screen is still open, and is not to be opened again."""
        if self._on_continued is not None:
            self._on_continued()
        elif self.attrs_before is None:  # suspended, or begun in the background
            super()._sigcont_application()
        else:
            self._loop.call_soon_threadsafe(self._take_terminal_again)

    def _take_terminal_again(self) -> None:
        """Set the modes that a shell has changed meanwhile; in the background this stops us, until it is our turn."""
        if self.attrs_before is None:
            return
        with suppress(termios.error):
            termios.tcsetattr(self.fileno, termios.TCSANOW, self._modes)
        self.forget_cells()
        self.write("\x1b[?1049h\x1b[?25l")
        self._enable_mouse_support()
        self._enable_bracketed_paste()
        self._disable_line_wrap()
        self._app.refresh(layout=True)

    def stop_application_mode(self) -> None:
        """Give the terminal back, its own modes last: until then no key of its own ends us on a screen half left."""
        before, self.attrs_before = self.attrs_before, None
        super().stop_application_mode()
        self.close()  # which waits until all is written
        if before is not None:
            with suppress(termios.error):
                termios.tcflush(self.fileno, termios.TCIFLUSH)
                termios.tcsetattr(self.fileno, termios.TCSANOW, before)

    def run_input_thread(self) -> None:
        """Hand on what comes, until the app leaves or the terminal has gone away."""
        decode = getincrementaldecoder("utf-8")("replace").decode
        terminal_input = TerminalInput()
        while not self.exit_event.is_set():
            if not select.select([self.fileno], [], [], constants.ESCAPE_DELAY)[0]:
                found = terminal_input.quiet()
                self._tell()
            elif (data := self._read()) is None:
                self._app.call_later(self._app.leave, 129)
                return
            else:
                found = terminal_input.feed(decode(data))
            for message in found:
                self.process_message(message)

    def _read(self) -> bytes | None:
        """Read what there is; None where the terminal has gone away."""
        try:
            return os.read(self.fileno, 4096) or None
        except BlockingIOError:  # another process has read it, or set the terminal so
            return b""
        except OSError:
            return None

    def process_message(self, message: Message) -> None:
        """Hand on what the app can take; its size the terminal tells by a signal, and else may be anything."""
        if isinstance(message, (events.Resize, InBandWindowResize)):
            return
        if isinstance(message, events.InputEvent):
            if not self._takes(message):
                return
            self._posted += 1
        super().process_message(message)

    def _takes(self, event: events.InputEvent) -> bool:
        """Return whether one more may wait; behind one that was dropped only ctrl+c, until a quiet moment."""
        waiting = self._posted - self._app.taken + len(self._app.keys)
        if isinstance(event, events.MouseMove):
            return waiting < MOST_MOVES
        if self._dropped is None and waiting >= MOST_WAITING:
            self._dropped = 0
        if self._dropped is None or (isinstance(event, events.Key) and event.key == "ctrl+c"):
            return True
        self._dropped += 1
        return False

    def _tell(self) -> None:
        """Show how many were dropped, now that no more come."""
        if self._dropped:
            self._app.call_later(self._app.say_dropped, self._dropped)
        self._dropped = None
