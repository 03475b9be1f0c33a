"""Random keys, clicks and resizes in a pseudo-terminal: python tests/terminal/random_keys.py --keys 10000

Whatever is typed, the program answers, and when it leaves it gives the terminal back.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import tempfile
from collections.abc import Iterator
from time import monotonic

from pseudo_terminal import Terminal

KEYS = [*"fbsznFBSZ" * 3, *" " * 8, *"0123456789r+=-uylogevai:/?,.<>\r\t\x1b\x7f\x10"]
KEYS += [f"\x1b[{code}" for code in ("A", "B", "C", "D", "H", "F", "5~", "6~", "Z", "3~", "1;5C", "15~")] * 2
WORDS = [
    "fbsz*20",
    "lr=0.05",
    "w=3",
    "optimizer=adam",
    "@0",
    "undo",
    "sort grad",
    "run 30",
    "nonsense",
    "b[0]=nan",
    "ü€",
]
BATCH = 25  # keys typed at once
LEFT = b"\x1b[?1049l"
MODES = re.compile(rb"\x1b\[\?(\d+)([hl])")


class Monkey:
    """Types at one terminal after the other, the same for the same seed."""

    def __init__(self, seed: int, scenario: str) -> None:
        self.random = random.Random(seed)
        self.scenario = scenario
        self.programs = 0
        self.resizes = 0

    def play(self, keys: int) -> None:
        """Type so many keys; where they end the program, begin anew."""
        typed = 0
        while typed < keys:
            shown = Terminal(self.scenario, width=120, height=40)
            self.programs += 1
            try:
                shown.wait_for("frame 0 of 0")
                while typed < keys and not has_left(shown):
                    typed += self._batch(shown)
                self._leave(shown)
            finally:
                shown.child.close(force=True)

    def _batch(self, shown: Terminal) -> int:
        if self.random.random() < 0.3:
            self.resizes += 1
            resize(shown, self.random.randint(1, 160), self.random.randint(1, 50))
        shown.type("".join(self._keys(BATCH)))
        until = monotonic() + 1  # a run that goes on is never quiet
        while shown.read(0.05) and monotonic() < until:
            pass
        return BATCH

    def _keys(self, count: int) -> Iterator[str]:
        for _ in range(count):
            kind = self.random.random()
            if kind < 0.005:
                yield self.random.choice("qq\x03")
            elif kind < 0.03:
                yield ":" + self.random.choice(WORDS) + self.random.choice(["\r", "\t\r", "\x1b", ""])
            elif kind < 0.08:
                at = f"{self.random.randint(1, 160)};{self.random.randint(1, 50)}"
                button = self.random.choice([0, 0, 2, 64, 65])
                yield f"\x1b[<{button};{at}M\x1b[<{button};{at}m"
            else:
                yield self.random.choice(KEYS)

    def _leave(self, shown: Terminal) -> None:
        """Bring the program to its end, if it has not ended yet, and look at what it leaves behind."""
        calm = not has_left(shown)
        if calm:
            resize(shown, 100, 30)
            shown.type("\x1b" * 8)
            shown.wait(lambda: not shown.read(0.3), "a quiet moment")
            while not has_left(shown):  # the first one asks for a second
                shown.type("\x03")
                shown.read(0.5)
        shown.end()
        ending = shown.bytes[-3000:].decode(errors="replace")
        assert shown.exit_code in (0, 130), f"exit code {shown.exit_code}:\n{ending}"
        check_what_is_left(shown.bytes, calm=calm)


def check_what_is_left(written: bytes, *, calm: bool) -> None:
    """Every mode that was set is reset, and behind the last one stand command lines, where keys did not go on."""
    check_modes(written)
    behind = b"".join(re.split(rb"\x1b\[[<>=?\d;]*[a-zA-Z]|\x1b[=>78]", written.rpartition(LEFT)[2]))
    lines = behind.decode(errors="replace").replace("^C", "").splitlines()  # the terminal's echo of the last key
    assert any("autograd-tui " in line for line in lines), lines
    assert not any("Traceback" in line for line in lines), lines
    assert not calm or all(line.startswith("autograd-tui ") for line in lines if line), lines


def check_modes(written: bytes) -> None:
    """Every mode that was set is reset."""
    modes = dict(MODES.findall(written))
    left_on = {number for number, last in modes.items() if last == b"h"} - {b"25", b"7"}
    assert not left_on, f"modes left on: {left_on}"
    assert modes.get(b"25", b"h") == b"h", "the cursor is left hidden"


def has_left(shown: Terminal) -> bool:
    """Tell whether the program has given the terminal back."""
    return LEFT in shown.bytes or not shown.child.isalive()


def resize(shown: Terminal, width: int, height: int) -> None:
    """Change the terminal's size, as dragging its corner does."""
    shown.screen.resize(height, width)
    shown.child.setwinsize(height, width)


def main() -> None:
    """Play for as long as asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenario", default="linear")
    arguments = parser.parse_args()
    monkey = Monkey(arguments.seed, arguments.scenario)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # where `e` writes its pictures
        monkey.play(arguments.keys)
    print(f"{arguments.keys} keys, {monkey.resizes} resizes, {monkey.programs} programs: all well")


if __name__ == "__main__":
    main()
