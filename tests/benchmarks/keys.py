"""From a key to the last byte on the terminal, in a pseudo-terminal, beside an app that shows one changing number."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

import torch
from figures import Figure
from torch import nn

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
MANY = """
import torch
from torch import nn
from autograd_tui import Parts, scenario

@scenario("many")
def build(options):
    model = nn.ParameterList(nn.Parameter(value) for value in torch.ones(2000, 4).unbind())
    forward = lambda model, batch: sum(each.square().sum() for each in model)
    return Parts(model=model, batch=lambda i: (), forward=forward)
"""
PARAMETERS = 2000
WALK = (("\x1b[C", 9), ("\x1b[D", 2), ("n", 1), ("\x1b[B", 2))  # right, left, n, down, and how often in a round
QUIET = 0.08  # seconds without a byte after which a key's drawing is done
WARM_UP = 8  # keys that do not count


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


def line_figures(rounds: int, scenario: str = "linear") -> list[Figure]:
    """Press f b s z so often, a key of a bare app between them; return times and bytes of all, and print each key's."""
    times: dict[str, list[float]] = {key: [] for key in "fbsz"}
    sizes: dict[str, list[float]] = {key: [] for key in "fbsz"}
    bare_times, bare_sizes = [], []
    bare_program = (sys.executable, "-c", BARE)
    with (
        closing(Terminal(scenario, width=120, height=40, anew=True)) as ours,
        closing(Terminal(width=120, height=40, program=bare_program, anew=True)) as bare,
    ):
        ours.wait_for("frame 0 of 0")
        for shown in (ours, bare):
            for _ in range(WARM_UP):
                press(shown, "n" if shown is ours else "x")
        for _ in range(rounds):
            for key in "fbsz":
                seconds, count = press(ours, key)
                times[key].append(seconds * 1000)
                sizes[key].append(count / 1000)
                seconds, count = press(bare, "x")
                bare_times.append(seconds * 1000)
                bare_sizes.append(count / 1000)
    for key in "fbsz":
        print(f"  {key}  {median(times[key]):5.1f} ms  {median(sizes[key]):4.1f} kB")
    print(f"  a bare app's changed number: {median(bare_times):.1f} ms  {median(bare_sizes):.2f} kB", flush=True)
    all_times = [each for column in times.values() for each in column]
    all_sizes = [each for column in sizes.values() for each in column]
    return [
        Figure(f"{scenario}: a key to its last byte", all_times, "ms", at_most=10),
        Figure(f"{scenario}: a key, 95th of a hundred", all_times, "ms", at_most=16, quantile=0.95),
        Figure(f"{scenario}: bytes of a key", all_sizes, "kB", at_most=2.5),
        Figure(f"{scenario}: a key / a bare app's", [a / b for a, b in zip(all_times, bare_times, strict=True)]),
    ]


def many_figures(rounds: int) -> list[Figure]:
    """Press f b s z in a run of 2,000 parameters; return the time of each beyond the same phase of plain PyTorch."""
    model = nn.ParameterList(nn.Parameter(value) for value in torch.ones(PARAMETERS, 4).unbind())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses: list[torch.Tensor] = []
    phases = {
        "f": lambda: losses.append(sum(each.square().sum() for each in model)),
        "b": lambda: losses.pop().backward(),
        "s": optimizer.step,
        "z": optimizer.zero_grad,
    }
    beyond = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "many.py"
        path.write_text(MANY)
        with closing(Terminal(str(path), "--lr", "1e-3", width=120, height=40, anew=True)) as shown:
            shown.wait_for("frame 0 of 0")
            for turn in range(rounds + 2):
                for key, phase in phases.items():
                    started = perf_counter()
                    phase()
                    plain = perf_counter() - started
                    seconds, _ = press(shown, key)
                    if turn >= 2:
                        beyond.append((seconds - plain) * 1000)
    return [Figure("2,000 parameters: a key beyond PyTorch's own time", beyond, "ms", at_most=60)]


def figures(rounds: int) -> list[Figure]:
    """Measure the keys of the line, and of a model of many parameters."""
    return [*line_figures(rounds), *many_figures(max(rounds // 2, 1))]


def main() -> None:
    """Press keys in both, in turns, and print medians; or inside a phase alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--scenario", help="default: linear and 2,000 parameters, and inside resnet18")
    parser.add_argument("--inside", action="store_true", help="walk the operations of a backward")
    arguments = parser.parse_args()
    if arguments.inside:
        walk(arguments.scenario or "resnet18", arguments.rounds)
        return
    rounds, scenario = arguments.rounds, arguments.scenario
    for figure in line_figures(rounds, scenario) if scenario else figures(rounds):
        print(figure.row())


if __name__ == "__main__":
    main()
