"""Going back: how long any frame takes, what checkpoints hold, and what they and a journal add to an iteration."""

from __future__ import annotations

import argparse
import random
import resource
from collections.abc import Callable
from itertools import pairwise
from operator import sub
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import torch
from stepping import plain_iteration

from autograd_tui import Session, open_session
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.run_config import size_in_words
from autograd_tui.engine import session as session_file
from autograd_tui.engine.replay import checkpoints as checkpoint_line
from autograd_tui.engine.replay import free_run
from autograd_tui.engine.replay import replayer as rerun
from autograd_tui.journal.writer import JournalWriter

OPTIMIZER = "sgd,momentum=0.9"


CLOCK = [perf_counter]


def seconds_of(what: Callable[[], object]) -> float:
    started = CLOCK[0]()
    what()
    return CLOCK[0]() - started


def count_processor_time() -> None:
    """Count the seconds of one thread on the processor, everywhere: as on a machine of its own."""
    torch.set_num_threads(1)
    CLOCK[0] = process_time
    for module in (checkpoint_line, free_run, rerun, session_file):
        vars(module)["perf_counter"] = process_time


def resident() -> float:
    """Give the most megabytes that the program has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def go_everywhere(session: Session, targets: int) -> None:
    """Go to random frames, one after the other, and print how long that took."""
    draw, newest = random.Random(0), session.newest
    places = [draw.randrange(newest + 1) for _ in range(targets)]
    at = [each.frame.index for each in session._replayer.checkpoints._checkpoints]
    widest = max((after - before for before, after in pairwise([*at, newest])), default=newest)
    print(f"  {len(at)} checkpoints, at most {widest:,} frames apart: {widest * len(at) / newest:.2f} times even gaps")
    took = {place: seconds_of(lambda place=place: session.rewind(place)) for place in places}  # type: ignore[misc]
    slowest = max(places, key=lambda place: took[place])
    checkpoints = session._replayer.checkpoints
    print(f"  to {targets} random frames of {newest:,}: slowest {took[slowest]:.2f} s (frame {slowest:,}),", end=" ")
    print(f"median {median(took.values()):.2f} s")
    print(f"  {len(checkpoints)} checkpoints hold {size_in_words(checkpoints.bytes)};", end=" ")
    print(f"the program has held up to {resident():,.0f} MB; difference: {session.take_divergence()}")


def step(session: Session, iterations: int) -> None:
    for _ in range(iterations):
        for letter in "fbsz":
            session.run(letter)


def resnet18(iterations: int, targets: int) -> None:
    """Step, then go to random frames."""
    session = open_session("resnet18", optimizer=OPTIMIZER, lr=1e-2)
    print(f"resnet18, {OPTIMIZER}: {iterations} stepped iterations", end=" ")
    print(f"in {seconds_of(lambda: step(session, iterations)):.1f} s")
    go_everywhere(session, targets)


def line(iterations: int, targets: int) -> None:
    """Run freely, then go to random frames."""
    session = open_session("linear")
    before = resident()

    def run() -> None:
        for _ in session.run_free(Goal(iteration=iterations), lambda: False):
            pass

    print(f"the line: a free run of {iterations:,} iterations in {seconds_of(run):.1f} s,", end=" ")
    print(f"{resident() - before:.0f} MB more than before it")
    go_everywhere(session, targets)


def kept(session: Session, folder: Path) -> Session:
    """Have a session keep what it runs."""
    session.observer = JournalWriter(folder / "journal", session.about, private=True)
    return session


def cost(blocks: int, iterations: int) -> None:
    """Step with checkpoints and a journal, with checkpoints alone and with neither, beside the plain loop."""
    plain = plain_iteration(OPTIMIZER)
    with TemporaryDirectory() as folder:
        opened = [open_session("resnet18", optimizer=OPTIMIZER, lr=1e-2, memory=size) for size in ("1GiB", "1GiB", "0")]
        sessions = [kept(opened[0], Path(folder)), *opened[1:]]
        ratios: list[list[float]] = []
        for _ in range(blocks + 1):
            times = [0.0] * 4
            for _ in range(iterations):  # in turns, so that what else the machine does is spread over all
                times[0] += seconds_of(plain)
                for place, session in enumerate(sessions, 1):
                    times[place] += seconds_of(lambda session=session: step(session, 1))  # type: ignore[misc]
            ratios.append([each / times[0] for each in times[1:]])
        sessions[0].close(in_order=True)
    both, checkpoints, neither = zip(*ratios[1:], strict=True)  # the first block warms up
    print(f"resnet18, {OPTIMIZER}: stepped / plain is {median(neither):.3f};", end=" ")
    print(f"checkpoints add {median(map(sub, checkpoints, neither)):+.3f},", end=" ")
    print(f"checkpoints and journal {median(map(sub, both, neither)):+.3f}")
    print(f"  (medians of {blocks} blocks of {iterations} iterations each)")


def journal(iterations: int) -> None:
    """Step the line with a journal, and say what that takes on the disk."""
    with TemporaryDirectory() as folder:
        session = kept(open_session("linear"), Path(folder))
        took = seconds_of(lambda: step(session, iterations))
        session.close(in_order=True)
        size = (Path(folder) / "journal").stat().st_size
    print(f"the line, {iterations:,} stepped iterations in {took:.1f} s: a journal of {size_in_words(size)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=500, help="of resnet18")
    parser.add_argument("--line", type=int, default=100_000, help="iterations of the line")
    parser.add_argument("--targets", type=int, default=20)
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--journal", type=int, default=100_000, help="stepped iterations of the line with a journal")
    parser.add_argument("--only", choices=["line", "resnet18", "cost", "journal"], help="one of the four")
    parser.add_argument("--cpu-time", action="store_true", help="of one thread, where others share the machine")
    arguments = parser.parse_args()
    if arguments.cpu_time:
        count_processor_time()
    measurements = {
        "line": lambda: line(arguments.line, arguments.targets),
        "resnet18": lambda: resnet18(arguments.iterations, arguments.targets),
        "cost": lambda: cost(arguments.blocks, 40),
        "journal": lambda: journal(arguments.journal),
    }
    for name in [arguments.only] if arguments.only else measurements:
        measurements[name]()
