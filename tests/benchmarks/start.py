"""How soon a start is there: its first paint and its first key, beside an empty Textual app and `import torch`.

Real processes in pseudo-terminals, in turns. Of each, the seconds and the processor's seconds, which a busy machine
disturbs less. A key is typed at the first paint, and taken when its frame is on the screen.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import tempfile
import termios
import time
from typing import NamedTuple

import pyte
from figures import Figure

WIDTH, HEIGHT = 120, 40
PATIENCE = 60.0  # seconds; what takes longer has failed
FIRST_CELL = b"\x1b[1;1H"  # where a paint of the whole screen begins

PROGRAM = (sys.executable, "-m", "autograd_tui")
EMPTY_APP = (sys.executable, "-c", "from textual.app import App; App().run()")
IMPORT = (sys.executable, "-c", "import torch; print('imported', flush=True)")
PYTHON = (sys.executable, "-c", "")
COMPARED = (  # what is measured, its yardstick, and the goal of their ratio
    ("first paint / an empty app's", "paint", "empty", 1.3),
    ("first key / import torch", "key", "import", 1.15),
)
QUICK = ("--help", "--version", "sessions")  # arguments of what needs neither PyTorch nor Textual
QUICK_GOAL = 0.15  # seconds


class Moment(NamedTuple):
    """When something was on the terminal: seconds since the start, and those of the processor until then."""

    seconds: float
    processor: float


class Program:
    """A program that is started anew in a terminal of its own, ended with the block."""

    def __init__(self, words: tuple[str, ...], environment: dict[str, str]) -> None:
        self._began = time.perf_counter()
        self._pid, self._descriptor = pty.fork()
        if not self._pid:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
            os.execve(words[0], words, environment)
        self._clock = (~self._pid << 3) | 2  # Linux: of the processor's time that another process has taken
        self._screen = pyte.Screen(WIDTH, HEIGHT)
        self._stream = pyte.ByteStream(self._screen)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *error: object) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._descriptor)

    def type(self, keys: str) -> None:
        """Type keys."""
        os.write(self._descriptor, keys.encode())

    def painted(self) -> Moment:
        """Return when a whole screen was first painted."""
        while True:
            moment, data = self._receive()
            self._stream.feed(data)
            if FIRST_CELL in data:
                return moment

    def shown(self, text: str) -> Moment:
        """Return when a text was first on the screen."""
        while True:
            moment, data = self._receive()
            self._stream.feed(data)
            if any(text in line for line in self._screen.display):
                return moment

    def ended(self) -> Moment:
        """Return when the program has ended by itself."""
        while True:
            try:
                self._receive()
            except OSError:
                break  # nobody holds the other end of the terminal any more
        os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        return self._now()

    def _now(self) -> Moment:
        return Moment(time.perf_counter() - self._began, time.clock_gettime(self._clock))

    def _receive(self) -> tuple[Moment, bytes]:
        """Return what the terminal receives next, and when; raises OSError where the program has ended."""
        if not select.select([self._descriptor], [], [], PATIENCE)[0]:
            raise TimeoutError("nothing more came:\n" + "\n".join(self._screen.display))
        data = os.read(self._descriptor, 1 << 16)
        return self._now(), data


def measure_start(scenario: str, key: str, environment: dict[str, str]) -> dict[str, Moment]:
    """Return when the first paint, frame 0, and the frame of a key that was typed at the first paint were there."""
    with Program((*PROGRAM, scenario), environment) as program:
        painted = program.painted()
        program.type(key)
        return {"paint": painted, "key": program.shown("frame 1 of 1")}


def measure_paint(words: tuple[str, ...], environment: dict[str, str]) -> Moment:
    """Return when a screen was first painted."""
    with Program(words, environment) as program:
        return program.painted()


def measure_text(words: tuple[str, ...], text: str, environment: dict[str, str]) -> Moment:
    """Return when a text was shown."""
    with Program(words, environment) as program:
        return program.shown(text)


def measure_end(words: tuple[str, ...], environment: dict[str, str]) -> Moment:
    """Return when a program that ends by itself has ended."""
    with Program(words, environment) as program:
        return program.ended()


def moments_of_rounds(rounds: int, scenario: str, key: str) -> dict[str, list[Moment]]:
    """Start each program in turns, so many times; return the moments of each."""
    moments: dict[str, list[Moment]] = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LC_ALL": "C.UTF-8"}
        environment |= {"XDG_CONFIG_HOME": f"{folder}/config", "XDG_STATE_HOME": f"{folder}/state"}
        for turn in range(rounds + 1):
            taken = {"empty": measure_paint(EMPTY_APP, environment)}
            taken |= measure_start(scenario, key, environment)
            taken["import"] = measure_text(IMPORT, "imported", environment)
            taken["python"] = measure_end(PYTHON, environment)
            taken |= {each: measure_end((*PROGRAM, each), environment) for each in QUICK}
            if turn:  # the first one writes bytecode and fills the system's caches
                for name, moment in taken.items():
                    moments.setdefault(name, []).append(moment)
    return moments


def figures(rounds: int, scenario: str = "linear", key: str = "f") -> list[Figure]:
    """Return the first paint and the first key over their yardsticks, and what the quick commands take beyond Python.

    Each in seconds, with a goal, and in the processor's seconds.
    """
    moments = moments_of_rounds(rounds, scenario, key)
    measured = []
    for clock, ending in enumerate(("", ", processor")):
        for name, ours, yardstick, limit in COMPARED:
            pairs = zip(moments[ours], moments[yardstick], strict=True)
            ratios = [one[clock] / other[clock] for one, other in pairs]
            measured.append(Figure(f"{scenario}, {name}{ending}", ratios, at_most=None if ending else limit))
        for name in QUICK:
            pairs = zip(moments[name], moments["python"], strict=True)
            beyond = [one[clock] - other[clock] for one, other in pairs]
            measured.append(
                Figure(f"{name}, beyond Python itself{ending}", beyond, "s", at_most=None if ending else QUICK_GOAL)
            )
    return measured


def main() -> None:
    """Start each in turns, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--scenario", default="linear")
    parser.add_argument("--key", default="f", help="one that leads to frame 1")
    arguments = parser.parse_args()
    for figure in figures(arguments.rounds, arguments.scenario, arguments.key):
        print(figure.row())


if __name__ == "__main__":
    main()
