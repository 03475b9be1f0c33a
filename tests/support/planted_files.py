"""Folders that others have put things into, under the names that the program is about to use."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from types import FrameType

SCENARIO = """
import torch
from torch import nn
from autograd_tui import Parts, scenario

@scenario("mine")
def build(options):
    return Parts(model=nn.Linear(1, 1), batch=lambda i: (torch.ones(1, 1),) * 2, loss=nn.functional.mse_loss)
"""
OF_THE_JOURNAL = [".frames", ".frames.new", ".tensors-4", ".tensors-4.new", ".tensors-x", ".py", ".csv", ".new"]
TARGETS = [
    "out.csv",
    "out.jsonl",
    "out.py",
    "out.pt",
    "out.tb",
    "mine.py",
    "mine.pt",
    "run",
    "here/../out.csv",
    "[o]*.py",
]
PLACES = [
    *TARGETS,
    "new",
    "out.csv.new",
    "out.pt.new",
    "out.tb.new",
    *(name + ending for name in ("run", "new") for ending in OF_THE_JOURNAL),
]
OURS = {".frames": b'{"autograd-tui frames": 2', ".tensors-4": b"PK\x03\x04"}  # how companions begin
SECONDS = 60  # after which a case hangs
Run = Callable[[list[str]], str | None]  # of a command line; gives what is wrong with how it ended


def plant(rng: random.Random, place: Path, victim: Path) -> str:
    """Put something where nothing is; say what."""
    kind = rng.choice(
        ["link", "link", "link to nowhere", "link to the scenario", "hard link", "pipe", "folder", "file"]
    )
    if kind == "hard link":
        place.hardlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    elif kind == "file":
        place.write_bytes(rng.choice([b"mine", OURS.get(place.suffix, b"")]))
    else:
        leads_to = {"link": victim, "link to nowhere": victim.with_name("made"), "link to the scenario": "mine.py"}
        place.symlink_to(leads_to[kind])  # type: ignore[arg-type]
    return f"{kind} {place.name}"


def some_command(rng: random.Random) -> list[str]:
    """Give a command line that writes or deletes files."""
    own = ["--scenario", "mine.py"]
    match rng.choice(["new", "resume", "export", "export", "delete"]):
        case "new":
            return ["linear", "--headless", "--do", "fb", "--journal", rng.choice(["new", "run", "out.csv"])]
        case "resume":
            return ["resume", "run", *own, "--headless", "--do", "z"]
        case "export":
            return ["export", "run", *own, "--to", rng.choice(TARGETS), *["--force"] * rng.randrange(2)]
        case _:
            return ["sessions", "--delete", *rng.sample(["run", "new", "mine.py", "out.csv"], rng.randrange(1, 3))]


def contents(folder: Path) -> dict[str, object]:
    """Give what lies in a folder and those below: links as what they lead to, files as their bytes."""
    return {each.relative_to(folder).as_posix(): _content(each) for each in folder.rglob("*")}


def _content(path: Path) -> object:
    if path.is_symlink():
        return os.readlink(path)
    return path.read_bytes() if path.is_file() else path.lstat().st_mode


def may_change(command: list[str], name: str, content: object) -> bool:
    """Tell whether a command may write over or delete what stood under a name."""
    if command[0] == "resume":  # takes away what a run that was killed has left unfinished
        ours = any(name.startswith("run" + ending) for ending in OURS)
        return name == "run" or (ours and isinstance(content, bytes) and content[:4] in (b"", b"PK\x03\x04", b'{"au'))
    if command[0] == "sessions":
        companion = re.fullmatch(r"(run|new)\.(frames|tensors-\d+)(\.new)?", name)
        recognised = isinstance(content, bytes) and content.startswith((b"PK", b'{"autograd-tui frames"'))
        empty = content == b"" and name.endswith(".new")
        return name in command or bool(companion and companion[1] in command and (recognised or empty))
    if command[0] == "export" and "--force" in command:
        target = Path(os.path.normpath(command[5]))
        written = {target.as_posix(), *[target.with_suffix(".py").as_posix()] * (target.suffix == ".pt")}
        return name.split("/")[0] in written - {"mine.py", "run"}
    return False


def wrong_in(command: list[str], before: dict[str, object], after: dict[str, object]) -> str | None:
    """Say what a command has changed that it may not; None where it has not."""
    for name, content in before.items():
        if after.get(name) != content and not may_change(command, name, content):
            return f"{name} was changed"
    left = [name for name in after.keys() - before.keys() if re.search(r"\.[0-9a-f]{8}\.new$", name)]
    return f"{left} was left behind" if left else None


class Waits(BaseException):
    """What nobody takes for an error of the system."""


@contextmanager
def patience() -> Iterator[None]:
    """End what waits for ever."""

    def fail(number: int, frame: FrameType | None) -> None:
        raise Waits

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def case_of_a_folder(rng: random.Random, folder: Path, run: Run) -> tuple[object, str | None]:
    """Plant some things, and run some commands: what is not theirs stays, elsewhere and here."""
    top = folder / "planted"
    shutil.rmtree(top, ignore_errors=True)
    (here := top / "here").mkdir(parents=True)
    (victim := top / "victim").write_bytes(b"theirs")
    (here / "mine.py").write_text(SCENARIO)
    with chdir(here), patience():
        done: list[object] = []
        wrong = run(["mine.py", "--headless", "--do", "fbsz", "--journal", "run"])
        for name in rng.sample(PLACES, rng.randrange(1, 9)):
            if not os.path.lexists(name) and "/" not in name:
                done.append(plant(rng, Path(name), victim))
        for _ in range(rng.randrange(1, 4)):
            command, before = some_command(rng), contents(here)
            done.append(command)
            wrong = wrong or run(command) or wrong_in(command, before, contents(here))
            if {each.name for each in top.iterdir()} != {"here", "victim"} or victim.read_bytes() != b"theirs":
                wrong = wrong or "something was written through a link"
        return done, wrong
