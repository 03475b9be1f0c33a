"""From a key to the last byte on the terminal, in a pseudo-terminal, beside an app that shows one changing number."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from pseudo_terminal import Terminal

BARE = """
from textual.app import App
from textual.widgets import Static

class Bare(App):
    count = 0
    def compose(self):
        yield Static("0", id="count")
    def on_key(self, event):
        self.count += 1
        self.query_one("#count").update(str(self.count))

Bare().run()
"""
WALK = (("\x1b[C", 9), ("\x1b[D", 2), ("n", 1), ("\x1b[B", 2))  # right, left, n, down, and how often in a round
QUIET = 0.08  # seconds without a byte after which a key's drawing is done


def press(shown: Terminal, key: str) -> tuple[float, int]:
    """Send a key; give the seconds to its last byte, and the bytes."""
    sent = last = perf_counter()
    shown.type(key)
    count = 0
    while True:
        if data := shown.receive(QUIET):
            count += len(data)
            last = perf_counter()
        elif count:
            return last - sent, count


def walk(scenario: str, rounds: int) -> None:
    """Walk inside a backward, and print the median and the slowest of each key."""
    ours = Terminal(scenario, "--do", "f", width=120, height=40, anew=True)
    ours.wait_for("frame 1 of 1")
    ours.type("i")
    ours.wait_for("operation 1 of")
    times: dict[str, list[float]] = {key: [] for key, _ in WALK}
    sizes: dict[str, list[int]] = {key: [] for key, _ in WALK}
    press(ours, "\x1b[C")
    for _ in range(rounds):
        for key, repeats in WALK:
            for _ in range(repeats):
                seconds, count = press(ours, key)
                times[key].append(seconds)
                sizes[key].append(count)
    print(f"{scenario}, 120 x 40, inside a backward:")
    for (key, _), name in zip(WALK, ("right", "left", "n", "down"), strict=True):
        middle, slowest = median(times[key]) * 1000, max(times[key]) * 1000
        print(f"  {name:<5} {middle:5.1f} ms  {median(sizes[key]) / 1000:4.1f} kB  slowest {slowest:.1f} ms")
    ours.close()


def main() -> None:
    """Press keys in both, in turns, and print medians; or inside a phase alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--scenario", help="default: linear, and inside resnet18, where a walk is long enough")
    parser.add_argument("--inside", action="store_true", help="walk the operations of a backward")
    arguments = parser.parse_args()
    if arguments.inside:
        walk(arguments.scenario or "resnet18", arguments.rounds)
        return
    scenario = arguments.scenario or "linear"
    ours = Terminal(scenario, width=120, height=40, anew=True)
    bare = Terminal(width=120, height=40, program=(sys.executable, "-c", BARE), anew=True)
    ours.wait_for("frame 0 of 0")
    for shown in (ours, bare):
        for _ in range(8):
            press(shown, "n" if shown is ours else "x")
    times: dict[str, list[float]] = {key: [] for key in "fbsz"}
    sizes: dict[str, list[int]] = {key: [] for key in "fbsz"}
    bare_times, bare_sizes = [], []
    for _ in range(arguments.rounds):
        for key in "fbsz":
            seconds, count = press(ours, key)
            times[key].append(seconds)
            sizes[key].append(count)
            seconds, count = press(bare, "x")
            bare_times.append(seconds)
            bare_sizes.append(count)
    everything = [each for column in times.values() for each in column]
    all_sizes = [each for column in sizes.values() for each in column]
    print(f"{scenario}, 120 x 40, medians of {arguments.rounds} rounds of f b s z:")
    for key in "fbsz":
        print(f"  {key}  {median(times[key]) * 1000:5.1f} ms  {median(sizes[key]) / 1000:4.1f} kB")
    print(f"  all {median(everything) * 1000:4.1f} ms  {median(all_sizes) / 1000:4.1f} kB")
    print(f"  a bare app's changed number: {median(bare_times) * 1000:.1f} ms  {median(bare_sizes) / 1000:.2f} kB")
    ours.close()
    bare.close()


if __name__ == "__main__":
    main()
