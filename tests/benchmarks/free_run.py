"""A free run on the screen, watched or not, beside the plain loop, in turns; bytes a second; memory as it grows."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from math import inf
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from figures import Figure

from pseudo_terminal import Terminal

PLAIN = """
import sys, time, torch
from autograd_tui.engine.training.scenario import Options
from autograd_tui.scenarios.find import find

scenario = find(sys.argv[1])
torch.manual_seed(0)
parts = scenario.build(scenario.options(0, {}))
lr, momentum = map(float, sys.argv[2:])
optimizer = torch.optim.SGD(parts.model.parameters(), lr=lr, momentum=momentum)
model, i = parts.model.train(), 0
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


# Learning rate and momentum: so slow that nothing comes to rest, where a run would end.
OPTIONS = {"linear": ("1e-6", "0"), "resnet18": ("1e-4", "0.9")}
NAMES = {"linear": "the line", "resnet18": "resnet18"}
UNWATCHED = ""
WATCHED = ("nonfinite", "grad_norm > 1e9", "still", "loss rises 1000")  # none of which fires
FREE_GOALS, WATCHED_GOALS = {"linear": 0.93, "resnet18": 0.97}, {"linear": 0.85, "resnet18": 0.95}
BYTES_GOAL = 8.0  # kB a second
# Of both processes: glibc gives large gradients back to the system or keeps them by what a process did before, which is
# a third of a resnet18 iteration.
KEEPS_MEMORY: dict[str, Any] = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 33)}


def iteration(shown: Terminal) -> int:
    """Read the number of the iteration on the first row."""
    found = re.search(r"iteration (\d+)", shown.text)
    assert found, shown.text
    return int(found[1])


def run_freely(shown: Terminal, seconds: float, memory_every: float = inf) -> tuple[float, float]:
    """Run for so long; return the iterations a second, and the bytes a second that were written."""
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
    while shown.read(0.5) or "running at" in shown.text:
        pass
    return (iteration(shown) - first) / (ended - started), len(written) / (ended - started)


def watch(shown: Terminal, condition: str) -> None:
    """Watch one condition alone, or none."""
    shown.type(":watch off\r")
    while shown.read(0.2):
        pass
    if condition:
        shown.type(f":watch {condition}\r")
        shown.wait_for("a run pauses at")


def watch_memory(scenario: str, condition: str, seconds: float, every: float) -> None:
    """Print the memory of one long run as it goes on."""
    with closing(opened(scenario)) as shown:
        watch(shown, condition)
        print(f"memory before the run: {resident(shown):.1f} MB")
        speed, _ = run_freely(shown, seconds, every)
        print(f"{iteration(shown):,} iterations, {speed:,.1f} a second: {resident(shown):.1f} MB")


def resident(shown: Terminal) -> float:
    """Give the megabytes of memory that the program holds."""
    status = Path(f"/proc/{shown.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found
    return int(found[1]) / 1024


def opened(scenario: str) -> Terminal:
    """Return the program with a scenario on its screen."""
    lr, momentum = OPTIONS[scenario]
    shown = Terminal(scenario, "--lr", lr, "--momentum", momentum, width=120, height=40, anew=True, **KEEPS_MEMORY)
    shown.wait_for("frame 0 of 0")
    return shown


@contextmanager
def plain_loop(scenario: str) -> Iterator[subprocess.Popen[str]]:
    """Start the plain loop in a process of its own; it runs for each number of seconds that it reads."""
    words = [sys.executable, "-c", PLAIN, scenario, *OPTIONS[scenario]]
    environment = {**os.environ, **KEEPS_MEMORY}
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as plain:
        yield plain
        plain.kill()


def plain_speed(plain: subprocess.Popen[str], seconds: float) -> float:
    """Run the plain loop for so long; return its iterations a second."""
    assert plain.stdin
    assert plain.stdout
    print(seconds, file=plain.stdin, flush=True)
    return float(plain.stdout.readline())


def figures(
    scenario: str, turns: int, seconds: float, conditions: Sequence[str] = (UNWATCHED, *WATCHED)
) -> list[Figure]:
    """Run under each condition in turns, the plain loop before each; return the ratios, and the bytes a second."""
    ratios: dict[str, list[float]] = {condition: [] for condition in conditions}
    kilobytes: list[float] = []
    with closing(opened(scenario)) as shown, plain_loop(scenario) as plain:
        for turn in range(turns + 1):
            for condition in conditions:
                watch(shown, condition)
                plain_iterations = plain_speed(plain, seconds)
                iterations, written = run_freely(shown, seconds)
                sleep(0.1)
                if turn:  # the first warms both up
                    ratios[condition].append(iterations / plain_iterations)
                    kilobytes.append(written / 1000)
    measured = []
    for condition, values in ratios.items():
        name, goals = (f"watched ({condition})", WATCHED_GOALS) if condition else ("free run", FREE_GOALS)
        measured.append(Figure(f"{NAMES[scenario]}, {name} / plain", values, at_least=goals[scenario]))
    return [
        *measured,
        Figure(f"{NAMES[scenario]}, running: to the terminal a second", kilobytes, "kB", at_most=BYTES_GOAL),
    ]


def main() -> None:
    """Run both in turns and print the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", default="linear", choices=list(OPTIONS))
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn")
    parser.add_argument(
        "--watch", metavar="CONDITION", help='one alone, such as "nonfinite", which must not fire; "" for none'
    )
    parser.add_argument("--memory-every", type=float, help="one run alone, its memory told so often, in seconds")
    arguments = parser.parse_args()
    if arguments.memory_every:
        watch_memory(arguments.scenario, arguments.watch or UNWATCHED, arguments.seconds, arguments.memory_every)
        return
    conditions = (UNWATCHED, *WATCHED) if arguments.watch is None else (arguments.watch,)
    for figure in figures(arguments.scenario, arguments.turns, arguments.seconds, conditions):
        print(figure.row())


if __name__ == "__main__":
    main()
