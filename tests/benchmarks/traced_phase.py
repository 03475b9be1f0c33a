"""What recording costs: each phase of resnet18 plain, and recorded with all its numbers, in turns in one run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter, process_time

import torch
from stepping import OPTIMIZERS, plain_phases

from autograd_tui import open_session


def measure(optimizer: str, iterations: int, clock: Callable[[], float]) -> None:
    """Print the median ratio of each phase, and hold the losses equal all the while."""
    phases, session = plain_phases(optimizer), open_session("resnet18", optimizer=optimizer, lr=1e-2)
    times: dict[str, list[tuple[float, float]]] = {letter: [] for letter in phases}
    for turn in range(iterations + 3):
        for letter, plain in phases.items():
            started = clock()
            loss = plain()
            between = clock()
            frame = session.run(f"i:{letter}")
            ended = clock()
            assert frame.trace is not None
            assert letter != "f" or loss is None or loss.item() == frame.loss
            if turn >= 3:
                times[letter].append((between - started, ended - between))
    print(f"resnet18, {optimizer}: recorded / plain, medians of {iterations} turns")
    for letter, pairs in times.items():
        ratio = median(recorded / plain for plain, recorded in pairs)
        print(f"  {letter} {ratio:.2f}   (plain {median(plain for plain, _ in pairs) * 1000:.2f} ms)")
    whole = [sum(column) for column in zip(*([pair[0] for pair in pairs] for pairs in times.values()), strict=True)]
    recorded = [sum(column) for column in zip(*([pair[1] for pair in pairs] for pairs in times.values()), strict=True)]
    print(f"  an iteration {median(b / a for a, b in zip(whole, recorded, strict=True)):.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--cpu-time", action="store_true", help="of one thread, where others share the machine")
    arguments = parser.parse_args()
    if arguments.cpu_time:
        torch.set_num_threads(1)
    for name in OPTIMIZERS:
        measure(name, arguments.iterations, process_time if arguments.cpu_time else perf_counter)
