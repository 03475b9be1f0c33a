"""Journals as no run writes them: cut, altered, put together of others, or made up; and what must hold of all."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from torchvision import models

from autograd_tui.core.errors import Refused
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.replay import free_run
from autograd_tui.journal import reader as reading
from autograd_tui.journal import writer as writing
from autograd_tui.journal.interrupted import interrupted_run, journal_summary
from autograd_tui.journal.reader import Journal, read_journal
from autograd_tui.journal.resume_run import rebuild_branches
from spoiled_files import flipped, small_resnet18

REAL = 30  # runs that real journals are of
DEAR = 12  # of so many cases one runs again what its journal tells
MOST_FRAMES, MOST_SIZE = 3000, 1000  # that are run again, and of a scenario's option
BAIT = "bait.pt"  # a file that a journal may ask for, and nobody has named
WORDS = [*"fbszFBSZ", "fbsz", "fbsz*3", "lr=0.05", "w=3", "w=nan", "undo", "@2", "@0", "branch=1", "branch=2"]
WORDS += ["optimizer=adam", "w.requires_grad=False", "seed=3"]
TEXTS = ["", "x", "f", "fbsz*2", "@1", "branch=1", "branch=99999", "undo", "NaN", "0" * 16, "a\nb", "\ud800", "\0", "é"]
TEXTS += [BAIT, "fbsz*99999999999", "fb*99999999999", "linear", "plateau", "plateau:0:0", "cuda", "\x1b[2J"]
NUMBERS = [0, 1, -1, 2, 3, 7, 10**6, 2**31, 2**63, 10**30, 0.5, 1e300, -0.0, float("nan"), float("inf")]
HERE = "raw"  # in its place comes what json.dumps does not write
VALUES: list[Any] = [
    *[HERE] * 6,
    *TEXTS,
    *NUMBERS,
    True,
    False,
    None,
    [],
    {},
    [1],
    {"a": 1},
    [[[[[[[]]]]]]],
    {"left": 3},
]
RAW = [b"NaN", b"1e999", b"1" * 5000, b"[" * 5000, b'{"a":' * 3000, b'"\\ud800"', b"\0", b"\xff", b"9" * 400, b"-"]


def write_real(number: int, path: Path) -> None:
    """Write the journal of a random run, the same for the same number: no clock has a part in it."""
    rng = random.Random(number)
    options: dict[str, Any] = rng.choice([{}, {"optimizer": "adam"}, {"seed": 3, "lr": 0.05}, {"decay": "plateau"}])
    lines_late = rng.choice([0.0, 1.0])
    still = {"monotonic": lambda: 0.0, "time": lambda: 1.7e9, "FREE_RUN_INTERVAL": lines_late}
    with patch.multiple(writing, **still), patch.object(free_run, "perf_counter", lambda: 0.0):  # type: ignore[call-overload]
        session = open_session(rng.choice(["linear", "linear", "spiral"]), batch_size=3, **options)
        session.observer = writing.JournalWriter(path, session.about, private=True)
        for _ in range(rng.randrange(1, 25)):
            try:
                if rng.random() < 0.3:
                    list(session.run_free(session.end_of(rng.randrange(2, 12)), lambda: False, every=0))
                else:
                    list(session.run_all(rng.choice(WORDS)))
            except Refused:
                pass
        session.close(in_order=rng.random() < 0.5)


@cache
def real(number: int) -> bytes:
    """Return such a journal; one in which nothing ran has no file."""
    with TemporaryDirectory() as folder:
        write_real(number, path := Path(folder) / "real.journal")
        return path.read_bytes() if path.exists() else real((number + 1) % REAL)


def replaced(value: Any, rng: random.Random) -> Any:
    """Put an odd value in one place, deep or not."""
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.choice([rng.randrange(len(value)), len(value) - 1])
        inside = [] if rng.random() < 0.1 else [replaced(value[place], rng)]
        return [*value[:place], *inside, *value[place + 1 :]]
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.2:
            return {each: inside for each, inside in value.items() if each != key}
        return {**value, rng.choice([*[key] * 9, "a", "seed", "state"]): replaced(value[key], rng)}
    if type(value) is int and rng.random() < 0.5:
        return value + rng.choice([-2, -1, 1, 2, 10])
    return rng.choice(VALUES)


def altered(line: bytes, rng: random.Random) -> bytes:
    """Change what a line says."""
    try:
        written = json.dumps(replaced(json.loads(line), rng), separators=(",", ":")).encode()
        return written.replace(b'"raw"', rng.choice(RAW))
    except (ValueError, RecursionError):  # it has been altered before
        return line


def with_raw(line: bytes, rng: random.Random) -> bytes:
    """Put what json.dumps does not write anywhere."""
    place = rng.randrange(len(line) + 1)
    return line[:place] + rng.choice(RAW) + line[place + rng.randrange(3) :]


def made(rng: random.Random) -> bytes:
    """Make a line up."""
    number, parent, start = (rng.choice([0, 1, 2, 3, 5, 8, 10**6, 2**70]) for _ in range(3))
    more = rng.choice([{}, {"start": start}, {"loss": rng.choice(VALUES)}, {"raised": "E", "said": rng.choice(VALUES)}])
    command = rng.choice([*WORDS, *TEXTS])
    return json.dumps([number, parent, command, "0" * 16, *[more] * bool(more)]).encode()


def spoiled_lines(lines: list[bytes], rng: random.Random) -> list[bytes]:
    """Spoil one place of a journal."""
    place, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    place = rng.choice([place, place, max(len(lines) - 2, 0)])  # the last line is the one that is asked for most
    line = lines[place]
    ways: list[Callable[[], list[bytes]]] = [
        lambda: [*lines[:place], altered(line, rng), *lines[place + 1 :]],
        lambda: [*lines[:place], altered(line, rng), *lines[place + 1 :]],
        lambda: [altered(lines[0], rng), *lines[1:]],
        lambda: [asking(lines[0], rng), *lines[1:]],
        lambda: [*lines[:place], with_raw(line, rng), *lines[place + 1 :]],
        lambda: [*lines[:place], flipped(line, rng), *lines[place + 1 :]],
        lambda: [*lines[:place], made(rng), *lines[place:]],
        lambda: [*lines[:place], lines[other], *lines[place + 1 :]],
        lambda: [*lines[:place], line, *lines[place:]],
        lambda: [*lines[:place], *lines[place + 1 :]],
        lambda: [*lines[:place], *real(rng.randrange(REAL)).split(b"\n")[place:]],
    ]
    return rng.choice(ways)()


def asking(header: bytes, rng: random.Random) -> bytes:
    """Have a first line ask for a file."""
    try:
        written = json.loads(header)
        where, name = rng.choice([("arguments", "state"), *[("own", each) for each in ("weights", "image", "hub_dir")]])
        asked = {**written, where: {name: BAIT}, "scenario": "linear" if name == "state" else "resnet18"}
        return json.dumps(asked | {"scenario": BAIT} if rng.random() < 0.2 else asked).encode()
    except (ValueError, TypeError, RecursionError):
        return header


def some_journal(rng: random.Random) -> bytes:
    """Return what a file that is called a journal may hold."""
    if rng.random() < 0.02:
        return rng.choice([b"", rng.randbytes(rng.randrange(200)), b"\n" * 9, b"{}\n", b"[" * 10**6])
    data = real(rng.randrange(REAL))
    if rng.random() < 0.1:
        lines = data.split(b"\n")[:1] + [made(rng) for _ in range(rng.randrange(9))] + [b""]
        data = b"\n".join(lines)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        data = b"\n".join(spoiled_lines(data.split(b"\n") or [b""], rng))
    if rng.random() < 0.2:
        return flipped(data, rng)
    return data + rng.choice([b"", b"", b"", b"x", b"x\n", b"\0" * 40, b"[", made(rng), made(rng) + b"\n"])


def check_read(path: Path) -> Journal | None:
    """Read a journal in all ways that run nothing; raises AssertionError where they do not agree."""
    assert journal_summary(path)
    try:
        journal = read_journal(path)
    except Refused:
        return None
    assert journal.size + journal.unread_bytes == path.stat().st_size
    assert isinstance(journal.loss, float | int | None)
    told = rebuild_branches(journal)
    check_plain_lines(journal)
    assert journal.frame <= len(told.log) == len(journal.log(journal.branch_tip)) == journal.tree.end
    assert len(journal.log()) == journal.frame
    for number, end in told.ends.items():
        branch = told.branches.get(number) if number in {each.number for each in told.branches.newest} else None
        assert branch is None or len(branch) == len(journal.log(journal.entries[end - 1]))
    _ = journal.config.command_line, [entry.error for entry in journal.entries]
    if journal.damage:
        before = path.with_name("before.journal")
        before.write_bytes(path.read_bytes()[: journal.size])
        again = read_journal(before)
        assert (again.damage, [*again.entries], again.end_frames) == (None, [*journal.entries], journal.end_frames)
        before.unlink()
    return journal


def check_plain_lines(journal: Journal) -> None:
    """Read a journal's plain lines as all others are; raises AssertionError where that makes a difference."""
    with patch.object(reading, "PLAIN_LINE", re.compile(b"(?!)")):
        other = read_journal(journal.path)
    assert not other.entries.letters.strip(b"-")
    assert [*other.entries] == [*journal.entries]
    ours, theirs = rebuild_branches(journal), rebuild_branches(other)
    assert (ours.log._blocks, ours.log._open, ours.ends) == (theirs.log._blocks, theirs.log._open, theirs.ends)
    for name in ("end_frames", "size", "damage", "left"):
        assert getattr(other, name) == getattr(journal, name), name
    assert vars(other.tree) == vars(journal.tree)


_opened: list[tuple[int, str]] = []  # the thread, and the file
_watched: list[bool] = []  # whether there is a hook, which no program can take out again


@contextmanager
def opened_files() -> Iterator[list[tuple[int, str]]]:
    """Note which files are opened, and by which thread."""
    if not _watched:
        _watched.append(True)
        sys.addaudithook(_note_opened)
    _opened.clear()
    yield _opened


def _note_opened(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open":
        _opened.append((threading.get_ident(), str(arguments[0])))


def can_run_again(journal: Journal | None) -> bool:
    """Tell whether running it again would end soon, where it runs at all."""
    if journal is None:
        return True
    options = [*journal.config.own.values(), journal.config.arguments.get("threads")]
    small = all(not isinstance(each, int | float | str) or _is_small(each) for each in options)
    return small and max([*journal.end_frames, *journal.tree.left.values()], default=0) <= MOST_FRAMES


def _is_small(value: float | str) -> bool:
    try:
        return abs(float(value)) <= MOST_SIZE
    except (ValueError, OverflowError):
        return isinstance(value, str)


def some_command(rng: random.Random, path: Path) -> list[str]:
    """Return a command line that runs a journal again, in a folder of its own."""
    name, out = str(path), str(path.parent / "out")
    return rng.choice(
        [
            ["resume", name, "--headless", "--do", "f"],
            ["resume", name, "--salvage", "--headless", "--do", "f"],
            ["resume", name, "--salvage", "--changed", "--headless", "--do", "fbsz @1 f branch=1"],
            ["replay", name, "--headless", "--check"],
            ["export", name, "--to", f"{out}.py"],
            ["export", name, "--to", f"{out}.csv"],
        ]
    )


def case_of_a_journal(
    rng: random.Random, folder: Path, *, dear: bool, quietly: Callable[[list[str]], tuple[int, str]]
) -> tuple[object, str | None]:
    """Read what is no journal, or a damaged one, in every way; give it, and what is wrong.

    dear: run it again too. quietly: runs the program, and gives its exit code and what it says.
    """
    (bait := folder / BAIT).touch()
    data = some_journal(rng).replace(BAIT.encode(), str(bait).encode())
    runs = folder / "spoiled" / "autograd-tui" / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    (path := runs / "spoiled.journal").write_bytes(data)
    try:
        with patch.dict(os.environ, XDG_STATE_HOME=str(folder / "spoiled")):
            journal = _read_everywhere(path)
            assert data not in map(real, range(REAL)) or (journal and not journal.damage), "it is as it was written"
            code, said = quietly(["sessions"])
            assert (code, said) in ((0, ""), (0, "no run is kept yet.\n")), said[:500]
            path.unlink()
            if dear and can_run_again(journal):
                _run_again(data, rng, folder / "again", quietly)
    except Exception:
        return data, traceback.format_exc()
    return data, None


def _read_everywhere(path: Path) -> Journal | None:
    """Read a journal as lists of runs and the greeting do: no other file is opened."""
    with opened_files() as opened:
        journal = check_read(path)
        interrupted_run()
    # A thread of an earlier case may still hash the file of weights that was refused.
    files = {file for thread, file in opened if thread == threading.get_ident() and not file.isdecimal()}
    others = files - {str(path), str(path.with_name("before.journal"))}
    assert not others, f"opened: {others}"
    return journal


def _run_again(data: bytes, rng: random.Random, folder: Path, quietly: Callable[[list[str]], tuple[int, str]]) -> None:
    """Run again what a journal tells; raises AssertionError where that does not end in order."""
    folder.mkdir()
    try:
        (path := folder / "named.journal").write_bytes(data)
        command = some_command(rng, path)
        with opened_files() as opened, patch.object(models, "resnet18", small_resnet18):
            code, said = quietly(command)
        lines, ends = said.splitlines(), f"{command[:-1]}: exit code {code}: {said[:500]}"
        assert code in (0, 1, 2), ends
        assert all(line.startswith("autograd-tui: ") for line in lines), ends
        assert (code == 2) <= len(lines) <= 3, ends  # of damage, another run, and another branch
        assert not [file for _, file in opened if file.endswith(BAIT)], ends
        assert command[0] == "resume" or path.read_bytes() == data, ends
    finally:
        shutil.rmtree(folder)
