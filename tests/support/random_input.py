"""Random input in a pseudo-terminal: python tests/support/random_input.py --programs 200 --bytes 100000

Keys, words, mouse reports, pastes, kitty's keys, terminal replies, broken UTF-8 and any bytes, while the terminal is
resized every few milliseconds. Whatever comes, the program answers, and when it leaves it gives the terminal back.
Programs are numbered: `--first 17 --programs 1` runs number 17 again. Each is forked from one that has PyTorch already.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import random
import re
import select
import signal
import struct
import sys
import tempfile
import termios
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pyte

PATIENCE = 90.0  # seconds, behind which a program is said to hang: machines are busy
QUIET = 0.12  # seconds without input that end a burst for the program
RAW = b"\x1b[>"  # what asks for kitty's keyboard, once keys are not the terminal's own any more
LEFT = b"\x1b[?1049l"
MODE = re.compile(rb"\x1b\[\?(\d+)([hl])")
ON_BY_ITSELF = {b"7": b"h", b"25": b"h"}  # how a terminal begins, where that is not off
NO_SCREEN = re.compile(rb"\x1b\[[<>=?][\d;]*[a-zA-Z$]+|\x1b\[\d*\$[a-z]|\x1b_[^\x1b]*\x1b\\")  # what pyte does not know
CODES = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}

LETTERS = "fbsznFBSZ" * 3 + " " * 8 + "0123456789r+=-uylogevai:/?,.<>p" * 2 + "abcdwxq"
NAMED = [b"\r", b"\t", b"\x1b", b"\x7f", b"\x10", b"\x1b[Z", b"\x1b[3~", b"\x1b[1;5C", b"\x1b[15~", b"\x1bOP", b"\x1bf"]
NAMED += [
    b"\x1b[" + code for code in (b"A", b"B", b"C", b"D", b"H", b"F", b"5~", b"6~", b"1;2A", b"1;2B", b"1;2C", b"1;2D")
]
WORDS = (
    """
fbsz*20;lr=0.05;w=3;optimizer=adam;@0;@3;undo;sort grad;run 30;nonsense;b[0]=nan;ü€;f!;watch loss>1;watch off;inside
help;veil;console;theme nord;ascii;unicode;plot grad;log;speed 50;speed max;branch=1;export;/w;model linear;quiet
plot w.grad lr update;plot smooth 0.9;plot 2-9;plot all loss
""".strip()
    .replace("\n", ";")
    .split(";")
)
WORDS += ["F" * 300, "1" * 300]
REPLIES = (
    r"""
[I [O [?2026;2$y [?2048;1$y [?2048;2$y [24;80R [?62;22c [>41;354;0c [48;40;120;0;0t [48;9999;9999;1;1t [48;0;0;0;0t
]11;rgb:0000/0000/0000\E\ ]52;c;aGk=\G P1$r0q\E\ _Gi=1;OK\E\ ]unterminated P [ O [12 [<0;3 [M [200~ [201~
[99999999999999999999R [?1;2
""".replace(r"\E", "\x1b")
    .replace(r"\G", "\x07")
    .split()
)
PASTED = [b"fbsz\nlr=0.5\nfb\n", "é∞\U0001f600\n".encode() * 9, b"x" * 3000, b"", b"\x1b[A\x1bf", bytes(range(32, 256))]
BROKEN = [b"\xff", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80" * 20, b"\0", "\ufeff€".encode()]
BEGINNINGS = ["", "", "i", "fi", "?", "??", ":", "/", "i:", "i?", "i/", "r", "50n", "iip", "v", "a\t", "\tae"]
SIZES = [(120, 40), (80, 24), (100, 30), (60, 15), (200, 60), (1, 1), (0, 0), (20, 5), (99, 29), (71, 19), (500, 200)]


def some_keys(rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return rng.choice(NAMED)
    return "".join(rng.choices(LETTERS, k=rng.randrange(1, 12))).encode()


def some_words(rng: random.Random) -> bytes:
    return (":" + rng.choice(WORDS) + rng.choice(["\r", "\r", "\t\r", "\x1b", ""])).encode()


def some_mouse(rng: random.Random) -> bytes:
    """Report a click, a move or the wheel in one of the ways there are, or wrongly."""
    button, x, y = rng.choice([0, 0, 1, 2, 3, 32, 35, 64, 65, 255, 10**9]), rng.randint(-1, 300), rng.randint(-1, 99)
    kinds = [
        f"\x1b[<{button};{x};{y}M\x1b[<{button};{x};{y}m",
        f"\x1b[<{button};{x};{y}M",
        f"\x1b[{button + 32};{x};{y}M",
        f"\x1b[<{button};{x}M",
        f"\x1b[<;;{y}M",
        f"\x1b[<{button};{x};{y};{x}m",
        f"\x1b[<{button};{10**12};{10**12}M",
    ]
    if rng.random() < 0.2:
        return b"\x1b[M" + rng.randbytes(3)
    return rng.choice(kinds).encode()


def some_kitty_key(rng: random.Random) -> bytes:
    """Send a key in kitty's protocol, often one that there is not."""
    code = rng.choice([27, 13, 9, 127, 97, 102, 98, 115, 122, 105, 57428, 57442, 0xD800, 0x10FFFF, 1114112, 10**9, 0])
    kinds = [
        f"{code}u",
        f"{code};{rng.randint(0, 99)}u",
        f"{code};1:3u",
        f"{code}:65;2u",
        f"{code};;{code}u",
        f"{code};{rng.randint(1, 8)};{code}:55296u",
        f"{code};;u",
        f":;:{code}u",
        f"1;{rng.randint(0, 99)}A",
        f"1;2:3{rng.choice('ABCDEFHPQRS~')}",
        f"{code};5:1~",
    ]
    return b"\x1b[" + rng.choice(kinds).encode()


def some_paste(rng: random.Random) -> bytes:
    return b"\x1b[200~" + rng.choice(PASTED) + b"\x1b[201~" * (rng.random() < 0.8)


def some_reply(rng: random.Random) -> bytes:
    return b"\x1b" + rng.choice(REPLIES).encode()


def some_broken_text(rng: random.Random) -> bytes:
    return rng.choice(BROKEN)


def some_bytes(rng: random.Random) -> bytes:
    """Give any bytes, but none that quit, or that stop and end a program which has given the terminal back."""
    return rng.randbytes(rng.randrange(1, 30)).translate(None, b"\x03q\x1a\x1c")


Piece = Callable[[random.Random], bytes]
PIECES: list[Piece] = [some_keys, some_keys, some_keys, some_words, some_mouse, some_kitty_key, some_paste, some_reply]
PIECES += [some_broken_text, some_bytes]


def some_burst(rng: random.Random, most: int) -> bytes:
    """Give what comes at once: of everything, or much of one kind."""
    size = min(rng.choice([10, 30, 60, 200, 800, 4000, 9000]), most)
    pieces = [rng.choice(PIECES)] if rng.random() < 0.3 else PIECES
    burst = rng.choice(BEGINNINGS).encode()
    while len(burst) < size:
        burst += rng.choice(pieces)(rng)
    return burst + rng.choice([b"", b"", b"\x1b", b"q", b"\x03"])


class Program:
    """One that runs in a pseudo-terminal of its own, forked from here."""

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self.written = bytearray()
        self.child, self.terminal = pty.fork()
        if not self.child:
            run_here(arguments, folder)
        self.resize(120, 40)
        self.before = termios.tcgetattr(self.terminal)
        os.set_blocking(self.terminal, False)
        self.code: int | None = None

    def resize(self, width: int, height: int) -> None:
        """Change the terminal's size, as dragging its corner does."""
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def read(self, seconds: float) -> bool:
        """Take in what it writes, waiting for it at most so long; False where there was nothing."""
        try:
            if not select.select([self.terminal], [], [], seconds)[0]:
                return False
            self.written += os.read(self.terminal, 1 << 20)
        except OSError:  # it has gone, and so has the other end of its terminal
            return False
        return True

    def pause(self, seconds: float) -> None:
        """Take in what it writes for so long, and type nothing."""
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0 and self.is_running:
            self.read(left)

    def type(self, data: bytes) -> None:
        """Read as terminals do, then type all at once, and read meanwhile: either may have to wait for the other.

        A ctrl+c behind the end would have the system throw away what has not been read.
        """
        for _ in range(100):  # or it never stops writing
            if not self.read(0.0):
                break
        until = monotonic() + PATIENCE
        while data and self.is_running:
            assert monotonic() < until, "it takes no input any more"
            try:
                data = data[os.write(self.terminal, data) :]
            except BlockingIOError:
                self.read(0.05)
            except OSError:
                return

    @property
    def is_running(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.child, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is None

    @property
    def has_left(self) -> bool:
        """Whether it has given the terminal back."""
        return not self.is_running or LEFT in self.written

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Read until something is true."""
        until = monotonic() + PATIENCE
        while not condition():
            assert monotonic() < until, f"{what} did not come"
            self.read(0.05)

    def shows(self, text: str, width: int, height: int) -> bool:
        """Ask for a paint of the whole screen, and tell whether it comes to show a text."""
        start = len(self.written)
        self.resize(width, height)

        def seen() -> bool:
            screen = pyte.Screen(width, height)
            try:
                pyte.ByteStream(screen).feed(NO_SCREEN.sub(b"", bytes(self.written[start:])))
            except TypeError:  # the terminal's own echo of what was typed, after the program's end
                return False
            return any(text in line for line in screen.display)

        until, looked_at = monotonic() + 3, -1
        while monotonic() < until and self.is_running:
            self.read(0.05)
            if looked_at < len(self.written) <= start + 2_000_000:
                looked_at = len(self.written)
                if seen():
                    return True
        return False

    def end(self) -> None:
        """Wait for its end, and take in the rest."""
        self.wait(lambda: not self.is_running, "its end")
        while self.read(0.0):
            pass

    def kill(self) -> None:
        """End it, if it has not ended by itself."""
        if self.is_running:
            os.kill(self.child, signal.SIGKILL)
            os.waitpid(self.child, 0)
        os.close(self.terminal)


def run_here(arguments: list[str], folder: Path) -> None:
    """Run the program in a process that was forked for it, and end with its exit code."""
    code = 70
    try:
        os.chdir(folder)
        for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
            file = os.fdopen(number, mode, encoding="utf-8", closefd=False)
            setattr(sys, name, file)
            setattr(sys, f"__{name}__", file)
        from autograd_tui.cli import main

        code = main(arguments)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Case:
    """Number so and so: the same input for the same number, in as many programs as it ends."""

    def __init__(self, number: int, size: int) -> None:
        self.number, self.left = number, size
        self.programs = self.resizes = 0

    def play(self) -> None:
        """Type it all; raises AssertionError where a program does harm."""
        while self.left > 0:
            with tempfile.TemporaryDirectory() as folder:
                program = Program(["linear"], Path(folder))
                self.random = random.Random(f"{self.number} {self.programs}")  # whenever the one before has ended
                self.programs += 1
                try:
                    self._play(program)
                finally:
                    program.kill()

    def _play(self, program: Program) -> None:
        begun = RAW if self.random.random() < 0.3 else b"frame 0 of 0"
        program.wait(lambda: begun in program.written or not program.is_running, "its beginning")
        while self.left > 0 and not program.has_left:
            burst = some_burst(self.random, self.left)
            self.left -= len(burst)
            self._type(program, burst)
        if not program.has_left:
            self._look(program)
        codes = {0, 130}
        if not program.has_left:
            codes = self._leave(program)
        program.end()
        check_what_is_left(program, codes)

    def _type(self, program: Program, burst: bytes) -> None:
        """Type a burst in parts of any size, the terminal resized between them."""
        while burst and not program.has_left:
            part = self.random.choice([1, 3, 20, 400, 4096])
            program.type(burst[:part])
            burst = burst[part:]
            for _ in range(self.random.randrange(4)):
                self._resize(program)
                program.read(self.random.choice([0.0, 0.001, 0.005, 0.01]))
        program.pause(self.random.choice([0.0, QUIET, QUIET]))

    def _resize(self, program: Program) -> None:
        self.resizes += 1
        if self.random.random() < 0.5:
            program.resize(*self.random.choice(SIZES))
        else:
            program.resize(self.random.randint(1, 160), self.random.randint(1, 50))

    def _look(self, program: Program) -> None:
        """See that it still answers: it shows words typed into the prompt, from wherever escape leads to."""
        program.type(b"\x1b[201~")  # a terminal ends a paste that it has begun
        until = monotonic() + PATIENCE
        for turn in range(1000):
            for _ in range(6):
                program.type(b"\x1b")
                program.pause(QUIET)  # or it would be alt and the next key
            program.type(f":seen{turn}".encode())
            if program.has_left or program.shows(f":seen{turn}", 110 + turn % 2, 36):
                program.type(b"\x1b")
                program.pause(QUIET)
                return
            assert monotonic() < until, "it does not answer any more"

    def _leave(self, program: Program) -> set[int]:
        """Have it leave by a signal or a key; give the exit codes that it may end with."""
        way = self.random.choice([signal.SIGTERM, signal.SIGHUP, signal.SIGINT, b"q", b"\x03"])
        if isinstance(way, signal.Signals):
            os.kill(program.child, way)
            return {CODES[way]}
        until = monotonic() + PATIENCE
        while not program.has_left:
            assert monotonic() < until, f"it does not leave by {way!r}"
            program.type(b"\x1b")  # the one before may have been taken for alt and a key, on a slow machine
            program.pause(QUIET)
            program.type(way)  # type: ignore[arg-type]
            program.pause(0.5)
        return {0} if way == b"q" else {130}


def check_what_is_left(program: Program, codes: set[int]) -> None:
    """Assert that it ended in order, and that the terminal is as it was."""
    written = bytes(program.written)
    ending = written.rpartition(LEFT)[2][-3000:].decode(errors="replace")
    assert program.code in codes, f"exit code {program.code}, and not one of {codes}:\n{ending}"
    assert b"Traceback" not in written, f"a traceback:\n{ending}"
    check_modes(written)
    assert termios.tcgetattr(program.terminal) == program.before, "the terminal's own modes are changed"
    assert "autograd-tui linear" in ending.replace("\r\n", ""), f"no command line:\n{ending}"


def check_modes(written: bytes) -> None:
    """Assert that every mode that was set is as it was."""
    last = dict(MODE.findall(written))
    left_on = {number for number, set_to in last.items() if set_to != ON_BY_ITSELF.get(number, b"l")}
    assert not left_on, f"modes left on: {left_on}"
    assert len(re.findall(rb"\x1b\[>\d*u", written)) <= written.count(b"\x1b[<u"), "kitty's keyboard is left on"


def warm_up(folder: str) -> None:
    """Import here what every program needs, and have all that they keep go into a folder."""
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "HOME"):
        os.environ[name] = folder
    os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LC_ALL": "C.UTF-8"}
    os.environ.pop("COLUMNS", None)
    os.environ.pop("LINES", None)
    import torch

    import autograd_tui.cli
    import autograd_tui.engine.open_session
    import autograd_tui.tui.app
    import autograd_tui.tui.terminal_driver  # noqa: F401

    torch.set_num_threads(1)


def play_all(numbers: range, size: int) -> Iterator[str]:
    """Play cases; give a line for each that goes wrong."""
    programs = resizes = 0
    for number in numbers:
        case = Case(number, size)
        try:
            case.play()
        except Exception as error:
            yield f"case {number}: {error!r}"[:6000].replace("\\n", "\n")
        programs, resizes = programs + case.programs, resizes + case.resizes
        print(f"case {number} is done: {programs} programs, {resizes} resizes so far", flush=True)
    print(f"{len(numbers)} cases of {size} bytes, {programs} programs, {resizes} resizes")


def main() -> int:
    """Play for as long as asked; 1 where anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=10)
    parser.add_argument("--bytes", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        warm_up(folder)
        for line in play_all(range(options.first, options.first + options.programs), options.bytes):
            wrong += 1
            print(line, flush=True)
    print(f"{wrong} went wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
