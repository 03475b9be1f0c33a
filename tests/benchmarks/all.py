"""Every figure that is promised, goal beside figure, in under ten minutes on two cores."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from tempfile import TemporaryDirectory
from time import perf_counter

import free_run
import keys
import script
import size
import start
import stepping
import traced_phase
from figures import Figure, machine_load

Measurement = Callable[[], list[Figure]]
FULL: Mapping[str, Measurement] = {
    "stepping": lambda: stepping.figures(60),
    "keys": lambda: keys.figures(25),
    "inside": lambda: traced_phase.figures(25),
    "size": lambda: size.figures(200_000, 1_000_000, 10_000),
    "line": lambda: free_run.figures("linear", 6, 1.2),
    "resnet18": lambda: free_run.figures("resnet18", 4, 2.0),
    "start": lambda: start.figures(5),
    "script": lambda: script.figures(8, 200, ("line", "digits")),
}
QUICK: Mapping[str, Measurement] = {
    "stepping": lambda: stepping.figures(1),
    "keys": lambda: keys.figures(1),
    "inside": lambda: traced_phase.figures(1, checks=1),
    "size": lambda: size.figures(100, 100, 10),
    "line": lambda: free_run.figures("linear", 1, 0.1, ("nonfinite",)),
    "resnet18": lambda: free_run.figures("resnet18", 1, 0.1, ("",)),
    "start": lambda: start.figures(1),
    "script": lambda: script.figures(2, 20, ("line",), iterations=50),
}


def main() -> None:
    """Print the figures of each benchmark as soon as they are there, and in the end how many goals are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="NAME", nargs="+", choices=list(FULL), help=f"of {', '.join(FULL)}")
    parser.add_argument("--quick", action="store_true", help="as little as runs everything once: figures say nothing")
    arguments = parser.parse_args()
    measurements = QUICK if arguments.quick else FULL
    started, measured = perf_counter(), []
    print(machine_load(), flush=True)
    with TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = folder  # where the runs on screen are kept
        for name in arguments.only or measurements:
            print(f"{name}:", flush=True)
            for figure in measurements[name]():
                print(figure.row(), flush=True)
                measured.append(figure)
    with_goals = [figure for figure in measured if figure.verdict]
    met = sum(figure.verdict == "met" for figure in with_goals)
    print(f"{met} of {len(with_goals)} goals are met; measured in {(perf_counter() - started) / 60:.1f} minutes.")


if __name__ == "__main__":
    main()
