"""A free run on the screen beside the plain loop, in turns: iterations a second, and memory as the run grows."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from math import inf
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from pseudo_terminal import Terminal

PLAIN = """
import sys, time, torch
from autograd_tui.engine.training.scenario import Options
from autograd_tui.scenarios.find import find

scenario = find(sys.argv[1])
torch.manual_seed(0)
parts = scenario.build(scenario.options(0, {}))
options = {"linear": {"lr": 0.1}, "resnet18": {"lr": 1e-2, "momentum": 0.9}}[sys.argv[1]]
model, optimizer, i = parts.model.train(), torch.optim.SGD(parts.model.parameters(), **options), 0
for line in sys.stdin:
    seconds, begun, first = float(line), time.perf_counter(), i
    while time.perf_counter() - begun < seconds:
        data, labels = parts.batch(i)
        loss = parts.loss(model(data), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        i += 1
    print((i - first) / (time.perf_counter() - begun), flush=True)
"""


SLOWLY = ("--lr", "1e-6")  # so that the line does not come to rest, where its run would end


def iteration(shown: Terminal) -> int:
    """Read the number of the iteration on the first row."""
    found = re.search(r"iteration (\d+)", shown.text)
    assert found, shown.text
    return int(found[1])


def run_freely(shown: Terminal, seconds: float, memory_every: float = inf) -> float:
    """Run for so long; give the iterations a second."""
    first, started = iteration(shown), perf_counter()
    shown.type("+r")
    written, looks = b"", 1  # drawn afterwards: an emulator written in Python takes more time than a terminal does
    while (passed := perf_counter() - started) < seconds:
        written += shown.receive(0.05)
        if passed > looks * memory_every:
            print(f"  after {looks * memory_every:4g} s: {resident(shown):.1f} MB", flush=True)
            looks += 1
    shown.type(" ")
    ended = perf_counter()
    shown.draw(written)
    while shown.read(0.5):
        pass
    return (iteration(shown) - first) / (ended - started)


def watch_memory(shown: Terminal, seconds: float, every: float) -> None:
    """Print the memory of one long run as it goes on."""
    print(f"memory before the run: {resident(shown):.1f} MB")
    speed = run_freely(shown, seconds, every)
    print(f"{iteration(shown):,} iterations, {speed:,.1f} a second: {resident(shown):.1f} MB")
    shown.close()


def resident(shown: Terminal) -> float:
    """Give the megabytes of memory that the program holds."""
    status = Path(f"/proc/{shown.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found
    return int(found[1]) / 1024


def main() -> None:
    """Run both in turns and print the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", default="linear", choices=["linear", "resnet18"])
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn")
    parser.add_argument(
        "--watch", metavar="CONDITION", help='armed before the run, such as "nonfinite"; it must not fire'
    )
    parser.add_argument("--memory-every", type=float, help="one run alone, its memory told so often, in seconds")
    arguments = parser.parse_args()
    shown = Terminal(arguments.scenario, *SLOWLY, width=120, height=40, anew=True)
    shown.wait_for("frame 0 of 0")
    if arguments.watch:
        shown.type(f":watch {arguments.watch}\r")
        shown.wait_for("a run pauses at")
    if arguments.memory_every:
        watch_memory(shown, arguments.seconds, arguments.memory_every)
        return
    plain = subprocess.Popen(
        [sys.executable, "-c", PLAIN, arguments.scenario], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert plain.stdin
    assert plain.stdout
    ratios, speeds = [], []
    for turn in range(arguments.turns + 1):
        print(arguments.seconds, file=plain.stdin, flush=True)
        speed = float(plain.stdout.readline())
        freely = run_freely(shown, arguments.seconds)
        sleep(0.2)
        if turn:  # the first warms both up
            ratios.append(freely / speed)
            speeds.append(speed)
        else:
            print(f"memory after the first turn: {resident(shown):.0f} MB")
    print(f"memory after the last turn, iteration {iteration(shown):,}: {resident(shown):.0f} MB")
    watched = f" with {arguments.watch} watched" if arguments.watch else ""
    print(f"{arguments.scenario}: free run{watched} / plain loop = {median(ratios):.3f} iterations a second")
    print(f"  (median of {arguments.turns} turns of {arguments.seconds:g} s, plain {median(speeds):,.1f} a second)")
    shown.close()
    plain.kill()


if __name__ == "__main__":
    main()
