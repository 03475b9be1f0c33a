"""Kill runs at random moments with SIGKILL, and see what their journals have kept.

As a script, as often as is asked for: `python tests/journal/kills.py --times 100`.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from autograd_tui.engine.values.errors import Refused
from autograd_tui.journal.check import check
from autograd_tui.journal.reading import Journal, read_journal
from autograd_tui.journal.writing import JournalWriter
from autograd_tui.open import open_session

WORDS = [*"fbszFBSZ", "lr=0.05", "w=3", "undo", "@2", "branch=1", "branch=2", "optimizer=adam"]
QUARTER = 0.25  # seconds of a free run that may be lost


def killed(run: Callable[[int], None], *, after: float) -> list[str]:
    """Run in a process of its own that writes lines to a descriptor, kill it after so long, and give its lines."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            run(writing)
        finally:
            os._exit(0)
    os.close(writing)
    end, data = monotonic() + after, b""
    os.set_blocking(reading, False)
    while monotonic() < end:
        data += _read(reading)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    data += _read(reading)
    os.close(reading)
    return data.decode().split("\n")[:-1]


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 20)
    except BlockingIOError:
        return b""


def _has_begun(path: Path) -> bool:
    """Tell whether a journal has a first line: the file is there a moment before."""
    return path.exists() and path.stat().st_size > 0


def kill_while_typing(path: Path, rng: random.Random) -> str | None:
    """Kill a run of single commands; say what is wrong with its journal, or None."""
    words = rng.choices(WORDS, k=100_000)

    def run(out: int) -> None:
        session = open_session("linear")
        session.recorder = JournalWriter(path, session.about, private=True)
        for word in words:
            os.write(out, b"sent\n")
            try:
                if word == f"@{session.frame.index}":
                    raise Refused("nothing to go back to, and nothing to keep")
                session.run(word)
            except Refused:
                os.write(out, b"refused\n")
            else:
                os.write(out, b"done\n")

    lines = killed(run, after=rng.uniform(0.02, 0.3))
    done, sent = lines.count("done"), lines.count("sent") - lines.count("refused")
    if not _has_begun(path):
        return None if done == 0 else f"{done} commands were done, and there is no journal"
    journal = read_journal(path)
    if not done <= len(journal.entries) <= sent:
        return f"{len(journal.entries)} commands are kept; {done} were done, and {sent} sent"
    return _disagreement(journal)


def kill_a_free_run(path: Path, rng: random.Random) -> str | None:
    """Kill a free run; say what is wrong with its journal, or None."""

    def run(out: int) -> None:
        session = open_session("linear")
        session.recorder = JournalWriter(path, session.about, private=True)
        for frame in session.run_free(session.end_of(10**9), lambda: False, every=0.02):
            os.write(out, f"{frame.index} {monotonic()}\n".encode())

    lines = [line.split() for line in killed(run, after=rng.uniform(0.4, 1.2))]
    if not lines:
        return None
    last = float(lines[-1][1])
    wanted = max((int(index) for index, when in lines if float(when) < last - QUARTER), default=0)
    if not _has_begun(path):
        return None if wanted == 0 else f"frame {wanted} was there, and there is no journal"
    journal = read_journal(path)
    if journal.frame < wanted:
        return f"frame {journal.frame} is kept; frame {wanted} was there a quarter of a second before the end"
    return _disagreement(journal)


def _disagreement(journal: Journal) -> str | None:
    for checked in check(open_session("linear"), journal):
        if not checked.agrees:
            return f"line {checked.entry.id + 1} differs when it is done again"
    return None


def kill(times: int, seed: int) -> list[str]:
    """Kill so many runs; say what is wrong with each that was not kept as promised."""
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(times):
            rng = random.Random(seed * 1_000_003 + number)
            kind = kill_a_free_run if number % 2 else kill_while_typing
            problem = kind(Path(folder) / f"{number}.journal", rng)
            if problem:
                wrong.append(f"{kind.__name__} {number}: {problem}")
    return wrong


def main() -> None:
    """Kill as many as are asked for, and print what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    wrong = kill(arguments.times, arguments.seed)
    print(*wrong, sep="\n")
    print(f"{arguments.times} runs killed, {len(wrong)} not kept as promised")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)  # a process that forks must have no threads
    main()
