"""From a key to the last byte on the terminal, in a pseudo-terminal, beside an app that shows one changing number."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import pexpect

sys.path.insert(0, str(Path(__file__).parent.parent / "terminal"))

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
QUIET = 0.08  # seconds without a byte after which a key's drawing is done


def press(child: pexpect.spawn[bytes], key: str) -> tuple[float, int]:
    """Send a key; give the seconds to its last byte, and the bytes."""
    sent = last = perf_counter()
    child.send(key.encode())
    count = 0
    while True:
        try:
            count += len(child.read_nonblocking(65536, QUIET))
            last = perf_counter()
        except pexpect.TIMEOUT:
            if count:
                return last - sent, count


def main() -> None:
    """Press keys in both, in turns, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--scenario", default="linear")
    arguments = parser.parse_args()
    ours = Terminal(arguments.scenario, width=120, height=40)
    bare = pexpect.spawn(sys.executable, ["-c", BARE], dimensions=(40, 120), timeout=60)
    bare.delaybeforesend = None
    ours.wait_for("frame 0 of 0")
    for child in (ours.child, bare):
        for _ in range(8):
            press(child, "n" if child is ours.child else "x")
    times: dict[str, list[float]] = {key: [] for key in "fbsz"}
    sizes: dict[str, list[int]] = {key: [] for key in "fbsz"}
    bare_times, bare_sizes = [], []
    for _ in range(arguments.rounds):
        for key in "fbsz":
            seconds, count = press(ours.child, key)
            times[key].append(seconds)
            sizes[key].append(count)
            seconds, count = press(bare, "x")
            bare_times.append(seconds)
            bare_sizes.append(count)
    everything = [each for column in times.values() for each in column]
    all_sizes = [each for column in sizes.values() for each in column]
    print(f"{arguments.scenario}, 120 x 40, medians of {arguments.rounds} rounds of f b s z:")
    for key in "fbsz":
        print(f"  {key}  {median(times[key]) * 1000:5.1f} ms  {median(sizes[key]) / 1000:4.1f} kB")
    print(f"  all {median(everything) * 1000:4.1f} ms  {median(all_sizes) / 1000:4.1f} kB")
    print(f"  a bare app's changed number: {median(bare_times) * 1000:.1f} ms  {median(bare_sizes) / 1000:.2f} kB")
    ours.child.close(force=True)
    bare.close(force=True)


if __name__ == "__main__":
    main()
