"""Disturb the disk under a run that is kept, at random moments: the run goes on, and what it says is true.

As a script: `python tests/support/disks.py 200` runs so many cases, `python tests/support/disks.py 1 --first 17` the
one of that number again. Every tenth runs on a screen.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import random
import resource
import shutil
import stat
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch

from app_screen import running
from autograd_tui.core.command import Commands
from autograd_tui.core.errors import Refused
from autograd_tui.engine.session import Session
from autograd_tui.journal import frame_stream as drawn_frames
from autograd_tui.journal import writer as writing
from autograd_tui.journal.entry import frame_digest
from autograd_tui.journal.reader import Journal, read_journal
from autograd_tui.journal.resume_run import rebuild_branches, resume_run, verify_journal
from autograd_tui.journal.writer import JournalWriter
from autograd_tui.tui.app import AutogradApp
from resume_check import do, state
from session_internals import open_with_many_checkpoints

WORDS = [*"fbsz" * 4, "free 20", "free 3", "undo", "@2", "@5", "branch=1", "branch=2", "lr=0.05", "optimizer=adam", "B"]
KEYS = ["f", "b", "s", "z", "n", "5n", "u", "space"]
FOREIGN = "somebody else's\n"
NOT_KEPT = "not kept"
ALWAYS = {"CHECKPOINT_INTERVAL": 0.0, "MAX_CHECKPOINT_SHARE": float("inf")}  # a checkpoint whenever there is a new one
ON_SCREEN = 10  # every so many cases


class Disk:
    """A folder with a journal in it, and what can happen to them."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self._rng, self._outside = rng, folder / "foreign"
        self.folder = folder / "runs"
        self.path = self.folder / "run.journal"
        self._mend: Callable[[], object] = lambda: None
        self.foreign: list[Path] = []
        self._was_ours = False

    def trouble(self) -> str:
        """Have something happen, once what happened before is over; give its name."""
        self.get_well()
        name = self._rng.choice(TROUBLES)
        getattr(self, name)()
        return name

    def get_well(self) -> None:
        """End what can be ended."""
        mend, self._mend = self._mend, lambda: None
        mend()

    # What a disk does.

    def fills_up(self) -> None:
        """Let no file grow by more than a few bytes: the system writes in part, then refuses."""
        size = self.path.stat().st_size if self.path.exists() else 0
        self._limit(size + self._rng.choice([0, 1, 30, 200, 3000]))

    def refuses(self) -> None:
        """Have every write fail."""
        wrong = self._rng.choice([errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
        write = os.write

        def fail(descriptor: int, data: bytes) -> int:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(wrong, os.strerror(wrong))
            return write(descriptor, data)

        self._patch("write", fail)

    def opens_nothing(self) -> None:
        """Have every file that is to be made or written fail to open."""
        wrong = self._rng.choice([errno.EROFS, errno.EMFILE, errno.EACCES])
        opened = os.open

        def fail(path: str, flags: int, mode: int = 0o777, **more: int) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR):
                raise OSError(wrong, os.strerror(wrong), path)
            return opened(path, flags, mode, **more)

        self._patch("open", fail)

    # What others do.

    def loses_the_journal(self) -> None:
        """Remove it."""
        self.path.unlink(missing_ok=True)

    def gets_another_journal(self) -> None:
        """Put another file in its place."""
        if self.folder.exists():
            self._outside.write_text(FOREIGN)
            os.replace(self._outside, self.path)
            self.foreign.append(self.path)

    def cuts_the_journal(self) -> None:
        """Cut off its end."""
        if self.path.exists() and self.path not in self.foreign and (size := self.path.stat().st_size):
            os.truncate(self.path, self._rng.randrange(size))

    def adds_to_the_journal(self) -> None:
        """Write behind its end."""
        if self.path.exists() and self.path not in self.foreign:
            with self.path.open("a") as file:
                file.write(self._rng.choice(["x", "x\n", '[7,0,"f","00"]\n', '{"left": 1}\n']))

    def loses_the_folder(self) -> None:
        """Remove everything."""
        if not self.foreign:
            shutil.rmtree(self.folder, ignore_errors=True)

    def moves_the_folder(self) -> None:
        """Give it another name, and its own again later."""
        moved = self.folder.with_name("moved")
        if self.folder.exists() and not moved.exists() and not self.foreign:
            os.rename(self.folder, moved)
            self._mend = lambda: None if self.folder.exists() else os.rename(moved, self.folder)

    def _limit(self, size: int) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        self._mend = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)

    def _patch(self, name: str, function: Callable[..., object]) -> None:
        patched = patch.object(os, name, function)
        patched.start()
        self._mend = patched.stop


TROUBLES = [
    *["fills_up", "refuses"] * 3,
    "opens_nothing",
    *["loses_the_journal", "gets_another_journal", "cuts_the_journal", "adds_to_the_journal"],
    *["loses_the_folder", "moves_the_folder"],
]


def journal_on(disk: Disk) -> Journal | None:
    """Read the journal, where there is one that is the program's; raises Refused where it cannot be read."""
    moved = disk.folder.with_name("moved") / disk.path.name
    path = disk.path if disk.path.exists() or not moved.exists() else moved
    if path in disk.foreign or not path.exists() or not path.stat().st_size:
        return None
    return read_journal(path)


def is_kept(disk: Disk, session: Session) -> bool:
    """Tell whether the journal has the run up to where the session stands."""
    try:
        journal = journal_on(disk)
        told = None if journal is None else rebuild_branches(journal)
    except Refused:
        return False
    if journal is None or told is None:
        return not session.newest and not session.branches
    present = told.log
    branches = [(each.number, each.fork, len(each)) for each in told.branches.newest]
    return (
        (journal.frame, len(present), branches)
        == (session.frame.index, session.newest, [(each.number, each.fork, len(each)) for each in session.branches])
        and str(present.up_to(journal.frame)) == session.commands()
        and journal.tip.digest in ("", frame_digest(session.frame))
    )


class Run:
    """A run on a disk that is disturbed, beside the same run on none."""

    def __init__(self, number: int, folder: Path) -> None:
        self.rng = random.Random(number)
        self.disk = Disk(folder, self.rng)
        self.session, self.straight = (open_with_many_checkpoints("linear") for _ in range(2))
        self.observer = JournalWriter(self.disk.path, self.session.about, private=True)
        self.session.observer = self.observer
        self.troubles: list[str] = []
        first = self.rng.randrange(20)
        self._begins = {first, *self.rng.sample(range(first, 30), k=self.rng.choice([0, 0, 1]))}
        self._ends = {each + self.rng.randint(1, 12) for each in self._begins if self.rng.random() < 0.7}
        self._lasting = False  # whether somebody else had the journal

    def disturb(self, place: int) -> None:
        """Have something happen, or end, before the word at a place."""
        if place in self._begins:
            written = self.disk.path.exists()
            self.troubles.append(self.disk.trouble())
            self._lasting |= written and self.troubles[-1] in LASTING
            self.quiet = False
        elif place in self._ends:
            self.disk.get_well()
            self.quiet = True

    quiet = True  # whether nothing is wrong with the disk now

    def look(self) -> None:
        """Raise AssertionError where what the program says of the journal is not so, after a line was to be written."""
        problem = self.observer.problem
        says_so = problem is not None and problem.mark == NOT_KEPT
        assert says_so or is_kept(self.disk, self.session), f"it is not kept, and the program says {problem}"
        assert not says_so or self._lasting or not self.quiet, f"nothing is wrong any more, and it says {problem}"

    def leave(self) -> None:
        """Leave the run, and look at what has become of its files."""
        said = self.observer.problem
        self.session.close(in_order=True)
        left = self.observer.problem
        self.disk.get_well()
        assert all(each.read_text() == FOREIGN for each in self.disk.foreign), "somebody else's file is another one"
        try:
            journal = journal_on(self.disk)
        except Refused:
            assert "cuts_the_journal" in self.troubles, "what is left of the journal cannot be read"
            return
        if journal is None:
            assert self._lasting or not self.session.newest or (said and left), "there is no journal"
            return
        assert all(each.matches for each in verify_journal(open_with_many_checkpoints("linear"), journal)), (
            "a line is not true"
        )
        if left is None or left.mark != NOT_KEPT:
            again = open_with_many_checkpoints("linear")
            resume_run(again, journal)
            here, there = state(again), state(self.session)
            assert here == there, f"it is resumed at {here}, and stood at {there}"


LASTING = {
    each.__name__
    for each in (
        Disk.loses_the_journal,
        Disk.gets_another_journal,
        Disk.cuts_the_journal,
        Disk.adds_to_the_journal,
        Disk.loses_the_folder,
        Disk.moves_the_folder,
    )
}


def run_without_screen(run: Run) -> None:
    """Do words, in both runs alike."""
    for place, word in enumerate(run.rng.choices(WORDS, k=40)):
        run.disturb(place)
        before = state(run.session)
        refused = [_is_refused(each, word) for each in (run.session, run.straight)]
        run.observer.on_shown(run.session.frame, run.session.newest, run.session.history)
        run.observer.on_idle()
        assert refused[0] == refused[1]
        here, there = state(run.session), state(run.straight)
        assert here == there, f"{word} leads to {here}, and without trouble to {there}"
        assert run.session.frame.same(run.straight.frame)
        if state(run.session) != before:
            run.look()
    run.leave()


def _is_refused(session: Session, word: str) -> bool:
    try:
        do(session, word)
    except Refused:
        return True
    return False


async def run_on_screen(run: Run) -> None:
    """Press keys; the first row says what is not kept for as long as that is so."""
    app = AutogradApp(lambda _: run.session, Commands(), title="line")
    async with running(app, run.rng.choice([(120, 40), (80, 24), (60, 15)])) as shown:
        for place, key in enumerate(run.rng.choices(KEYS, k=25)):
            run.disturb(place)
            before = state(run.session)
            await shown.press(*key if len(key) == 2 else [key])
            problem, row = run.observer.problem, shown.text("StatusPanel")
            mark = f" {problem.mark} " if problem else " the line"
            assert row.startswith(mark), f"the first row says {row!r} of {problem}"
            if state(run.session) != before:
                run.look()
    list(run.straight.run_all(run.session.commands()))
    assert run.session.frame.same(run.straight.frame)
    run.leave()


def case(number: int) -> str | None:
    """Run the case of a number; say what is wrong, or None."""
    always = patch.multiple(writing, **ALWAYS), patch.object(drawn_frames, "MIN_INTERVAL", 0.0)  # type: ignore[call-overload]
    with tempfile.TemporaryDirectory() as folder, always[0], always[1]:
        run = Run(number, Path(folder))
        try:
            asyncio.run(run_on_screen(run)) if number % ON_SCREEN == 0 else run_without_screen(run)
        except Exception:
            return f"{', '.join(run.troubles)}: {traceback.format_exc()}"
        finally:
            run.disk.get_well()
    return None


def main() -> None:
    """Run as many cases as are asked for, and print what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=int, nargs="?", default=200)
    parser.add_argument("--first", type=int, default=0, help="the number of the first one")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    wrong = 0
    for number in range(arguments.first, arguments.first + arguments.cases):
        if why := case(number):
            wrong += 1
            print(f"{number}: {why}", flush=True)
    print(f"{arguments.cases} disks disturbed, {wrong} runs not as promised")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
