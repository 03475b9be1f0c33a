"""What recording costs: each phase of resnet18 plain, and recorded with all its numbers, in turns; a gradient check."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from time import perf_counter, process_time

import torch
from figures import Figure
from stepping import OPTIMIZERS, WARM_UP, plain_phases

from autograd_tui import open_session

GOALS = {"f": 2.0, "b": 1.7, "s": 1.5, "z": 3.0}
CONVOLUTION = "layer4.1.conv2.weight"
CHECK_GOAL = 3.0  # seconds
NAMES = {"f": "forward", "b": "backward", "s": "step", "z": "zero_grad"}


def measure(optimizer: str, iterations: int, clock: Callable[[], float]) -> list[Figure]:
    """Return recorded over plain of each phase; the losses are held equal all the while."""
    phases, session = plain_phases(optimizer), open_session("resnet18", optimizer=optimizer, lr=1e-2)
    ratios: dict[str, list[float]] = {letter: [] for letter in phases}
    gc.freeze()  # as the screen does where a session is open
    for turn in range(iterations + WARM_UP):
        for letter, plain in phases.items():
            started = clock()
            loss = plain()
            between = clock()
            frame = session.run(f"i:{letter}")
            ended = clock()
            assert frame.trace is not None
            assert letter != "f" or loss is None or loss.item() == frame.loss
            if turn >= WARM_UP:
                ratios[letter].append((ended - between) / (between - started))
    return [
        Figure(f"resnet18, {optimizer}: recorded {NAMES[letter]} / plain", ratios[letter], at_most=goal)
        for letter, goal in GOALS.items()
    ]


def gradient_checks(checks: int, clock: Callable[[], float]) -> Figure:
    """Return the seconds of gradient checks of one convolution."""
    session = open_session("resnet18")
    session.run("f")
    session.run("b")
    seconds = []
    for _ in range(checks):
        started = clock()
        session.check_gradient(2, CONVOLUTION)
        seconds.append(clock() - started)
    return Figure(f"a gradient check of {CONVOLUTION}", seconds, "s", at_most=CHECK_GOAL)


def figures(iterations: int, *, checks: int = 3, clock: Callable[[], float] = perf_counter) -> list[Figure]:
    """Measure every phase with each optimizer, and a gradient check."""
    recorded = [figure for optimizer in OPTIMIZERS for figure in measure(optimizer, iterations, clock)]
    return [*recorded, gradient_checks(checks, clock)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--cpu-time", action="store_true", help="of one thread, where others share the machine")
    arguments = parser.parse_args()
    if arguments.cpu_time:
        torch.set_num_threads(1)
    for figure in figures(arguments.iterations, clock=process_time if arguments.cpu_time else perf_counter):
        print(figure.row())
