"""What stepping a script costs it: free runs beside plain Python in turns, and the time from a key to a frame."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from threading import Thread
from time import perf_counter

from figures import Figure

from autograd_tui.core.errors import Refused
from autograd_tui.core.phase_order import Goal
from autograd_tui.engine.script.script_session import ScriptSession

LOOP = Path(__file__).parent / "script_loop.py"
LOOPS = ("line", "mlp", "digits")
NAMES = {"line": "Linear(1, 1)", "mlp": "a few layers", "digits": "a network over images"}
GOALS = {("line", "free"): 1.10, ("line", "watched"): 1.25, ("digits", "free"): 1.08}
KEY_GOAL = 5.0  # ms
WATCHED = ("nonfinite", "grad_norm > 1e6")
SAMPLE_SECONDS = 0.6  # between two frames: twice what the screen asks for, since half of the time the other one runs
TURN = re.compile(rb"turn ([0-9.e-]+)")
KEYS = """
import torch
from torch import nn
model = nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
x, y = torch.ones(4, 1), torch.ones(4, 1)
while True:
    loss = (model(x) - y).pow(2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def seconds_of_turns(
    name: str, turns: int, conditions: tuple[str, ...], iterations: int | None = None
) -> tuple[list[float], list[float], int]:
    """Return the seconds of an iteration, turn by turn: under plain Python and run freely; and the frames made.

    iterations: of a turn; None for those of a second or so.
    """
    with tempfile.NamedTemporaryFile() as lock:
        words = (str(LOOP), name, str(turns), lock.name, *([str(iterations)] if iterations else []))
        plain: list[bytes] = []
        beside = Thread(
            target=lambda: plain.append(subprocess.run([sys.executable, *words], stdout=subprocess.PIPE).stdout)
        )
        printed: list[bytes] = []
        session = ScriptSession(words, on_output=printed.append)
        for condition in conditions:
            session.arm(condition)
        beside.start()
        frames = 0
        try:
            for _ in session.run_free(Goal(), bool, every=SAMPLE_SECONDS):
                frames += 1
        except Refused:  # at the script's end
            pass
        beside.join()
        session.close(in_order=True)
    seconds = [[float(each) for each in TURN.findall(text)] for text in (plain[0], b"".join(printed))]
    return seconds[0], seconds[1], frames


def key_times(keys: int) -> list[float]:
    """Return the seconds from each key's order to the decoded frame."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.py"
        path.write_text(KEYS)
        session = ScriptSession((str(path),), on_output=lambda data: None)
        times = []
        for _ in range(keys):
            begun = perf_counter()
            session.run(session.next_command())
            times.append(perf_counter() - begun)
        session.close(in_order=True)
    return times[keys // 10 :]


def figures(turns: int, keys: int, loops: Sequence[str] = tuple(LOOPS), iterations: int | None = None) -> list[Figure]:
    """Measure each loop, run freely and watched, beside plain Python, and a key; print the frames that were made."""
    measured = []
    for name in loops:
        for what, conditions in (("free", ()), ("watched", WATCHED)):
            plain, free, frames = seconds_of_turns(name, turns, conditions, iterations)
            ratios = [one / other for one, other in zip(free[1:], plain[1:], strict=True)]
            measured.append(Figure(f"script, {NAMES[name]}, {what} / plain", ratios, at_most=GOALS.get((name, what))))
            print(f"  {name}, {what}: plain {median(plain) * 1e6:,.0f} us an iteration; {frames} frames", flush=True)
    milliseconds = [each * 1000 for each in key_times(keys)]
    return [*measured, Figure("script, a key to its frame", milliseconds, "ms", at_most=KEY_GOAL)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loops", nargs="*", default=LOOPS, help=f"of {', '.join(LOOPS)}")
    parser.add_argument("--turns", type=int, default=16)
    parser.add_argument("--keys", type=int, default=400)
    options = parser.parse_args()
    for figure in figures(options.turns, options.keys, options.loops):
        print(figure.row())


if __name__ == "__main__":
    main()
