"""What long runs cost: memory and keys after many iterations, a branch taken again, journals resumed and listed."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from figures import Figure
from free_run import iteration, opened, resident
from keys import press

from autograd_tui import open_session
from autograd_tui.core.frame import Frame
from autograd_tui.engine.session import Session
from autograd_tui.journal.checkpoint_file import save_checkpoint
from autograd_tui.journal.entry import Entry
from autograd_tui.journal.journal_file import hash_prefix
from autograd_tui.journal.reader import read_journal
from autograd_tui.journal.resume_run import resume_run
from autograd_tui.journal.writer import JournalWriter
from pseudo_terminal import Terminal

KEY_ROUNDS = 15
FORK = 40  # the frame that the long branch is left from
LISTINGS = 3
RESUMES = 3
REAL_COMMANDS = 8000  # at the end of a long journal: those of some seconds


def run_to(shown: Terminal, goal: int) -> None:
    """Run freely to an iteration."""
    if goal > iteration(shown):
        shown.type(f":run {goal - iteration(shown)}\r")
        while iteration(shown) < goal:
            shown.read()


def wait_for_frame(shown: Terminal, frame: int, newest: int) -> None:
    """Read until training stands at a frame of so many."""
    text = f"frame {frame} of {newest}"
    shown.wait(lambda: text in shown.text.replace(",", ""), text)


def long_run(iterations: int) -> list[Figure]:
    """Run the line freely beside one that stands at its first iteration; then leave it for a branch, and return."""
    with closing(opened("linear")) as long, closing(opened("linear")) as short:
        run_to(long, iterations // 10)
        early = resident(long)
        run_to(long, iterations)
        growth = resident(long) / early
        ratios = []
        for _ in range(KEY_ROUNDS + 1):
            for key in "fbsz":
                taken, _ = press(long, key)
                ratios.append(taken / press(short, key)[0])
        newest = 4 * (iterations + KEY_ROUNDS + 1)
        long.type(f":@{FORK}\r")
        wait_for_frame(long, FORK, newest)
        long.type(":lr=2e-6\r")  # where what ran before would only be repeated
        wait_for_frame(long, FORK + 1, FORK + 1)
        started = perf_counter()
        long.type(":branch=1\r")
        wait_for_frame(long, newest, newest)
        back = perf_counter() - started
    return [
        Figure(f"{iterations:,} iterations: memory / after a tenth", [growth], at_most=1.03),
        Figure(f"{iterations:,} iterations: a key / one at the start", ratios[4:], at_most=1.1),
        Figure(f"{iterations:,} iterations: branch=1 back over them", [back], "s", at_most=2),
    ]


def step(session: Session, commands: int) -> None:
    """Run so many commands, whole iterations."""
    for _ in range(commands // 4):
        for letter in "fbsz":
            session.run(letter)


def long_journal(path: Path, commands: int) -> Frame:
    """Write a journal of so many commands with its newest checkpoint, as a run leaves it; return its last frame.

    The last lines are those of a real run, which count on from earlier ones: no digest depends on a frame's index.
    """
    short = path.with_name("short.journal")
    session = open_session("linear")
    session.observer = JournalWriter(short, session.about, private=True)
    step(session, min(commands, REAL_COMMANDS))
    session.close(in_order=True)
    checkpoint, end = session._replayer.checkpoints.newest, session.frame
    earlier = commands - end.index
    header, *lines = short.read_text().splitlines()
    entries = [Entry.from_json_line(line.encode()) for line in lines if not line.startswith('{"left":')]
    with path.open("w") as file:
        file.write(f"{header}\n")
        file.writelines(f'[{number + 1},{number},"{"fbsz"[number % 4]}","{"0" * 16}"]\n' for number in range(earlier))
        for entry in entries:
            file.write(replace(entry, id=entry.id + earlier, parent=entry.parent + earlier).to_json_line())
    if checkpoint is not None and checkpoint.frame.index:
        index = checkpoint.frame.index + earlier
        later = replace(checkpoint, frame=replace(checkpoint.frame, index=index))
        prefix = hash_prefix(path, path.stat().st_size)
        save_checkpoint(path, later, session.history, entry=index, lines=prefix, mode=0o600)
    return end


def resumed_journal(commands: int) -> list[Figure]:
    """Return resuming a journal of so many commands over reading it, the seconds of both, and the memory they take."""
    ratios, reads, memory = [], [], []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "long.journal"
        end = long_journal(path, commands)
        for _ in range(RESUMES):
            session = open_session("linear")
            before = held_memory()
            started = perf_counter()
            journal = read_journal(path)
            between = perf_counter()
            resume_run(session, journal)
            ended = perf_counter()
            memory.append(held_memory() - before)
            reads.append(between - started)
            ratios.append((ended - started) / (between - started))
            assert (session.frame.index, session.frame.loss) == (commands, end.loss)
            session.close(in_order=False)
            del journal, session
    return [
        Figure(f"{commands:,} commands in a journal: resume / read", ratios, at_most=2),
        Figure(f"{commands:,} commands in a journal: read", reads, "s"),
        Figure(f"{commands:,} commands in a journal: memory", memory, "MB"),
    ]


def listed_journals(journals: int) -> Figure:
    """Keep so many journals, and return the seconds that `sessions` takes."""
    seconds = []
    with TemporaryDirectory() as folder:
        runs = Path(folder) / "autograd-tui" / "runs"
        runs.mkdir(parents=True)
        first = runs / "0.journal"
        session = open_session("linear")
        session.observer = JournalWriter(first, session.about, private=True)
        step(session, 40)
        session.close(in_order=True)
        for number in range(1, journals):
            shutil.copy(first, runs / f"{number}.journal")
        for _ in range(LISTINGS):
            started = perf_counter()
            words = [sys.executable, "-m", "autograd_tui", "sessions"]
            done = subprocess.run(
                words, env={**os.environ, "XDG_STATE_HOME": folder}, stdout=subprocess.PIPE, check=True
            )
            seconds.append(perf_counter() - started)
        assert done.stdout.count(b"\n") == journals + 1
    return Figure(f"sessions, of {journals:,}", seconds, "s", at_most=2)


def held_memory() -> float:
    """Return the megabytes of memory that this program holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def figures(iterations: int, commands: int, journals: int) -> list[Figure]:
    """Measure a long run, a long journal and many of them."""
    return [*long_run(iterations), *resumed_journal(commands), listed_journals(journals)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=1_000_000, help="of a free run")
    parser.add_argument("--commands", type=int, default=1_000_000, help="of a journal")
    parser.add_argument("--journals", type=int, default=10_000)
    arguments = parser.parse_args()
    for figure in figures(arguments.iterations, arguments.commands, arguments.journals):
        print(figure.row())
