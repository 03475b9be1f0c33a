"""Journals of somebody else: what they name is neither opened nor made nor fetched without a word."""

from __future__ import annotations

import json
import random
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autograd_tui.core.run_config import BUILT_IN
from autograd_tui.engine.open_session import open_session
from autograd_tui.journal.writer import JournalWriter

WATCHED = ("open", "os.mkdir", "os.listdir", "os.scandir", "socket.connect", "socket.getaddrinfo", "urllib.Request")
NAMES = (
    ["{trap}/file.pt"] * 5
    + ["file.pt"] * 5
    + ["{trap}/hub", "{trap}", "../trap/file.pt", "pretrained", "auto", "random", ""]
)
NAMES += ["file://{trap}/file.pt", "http://127.0.0.1:9/file.pt", "~/file.pt", "{trap}/none.safetensors", "cpu", "3"]
FILES = ("weights", "hub_dir", "image")
ODD = ("data", "batch_size", "image_size", "width", "points", "device", "optimizer", "decay", "memory")

_heard: list[tuple[str, str]] = []
_listening: list[bool] = []
_hooked: list[bool] = []  # no program can take an audit hook out again


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if _listening and event in WATCHED:
        _heard.append((event, str(arguments[event == "socket.connect"])))


@contextmanager
def heard() -> Iterator[list[tuple[str, str]]]:
    """Give what this process opens, makes and asks for from now on."""
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_hear)
    _heard.clear()
    _listening.append(True)
    try:
        yield _heard
    finally:
        _listening.clear()


def some_header(header: dict[str, Any], trap: Path, rng: random.Random) -> dict[str, Any]:
    """Have a journal's first line name files."""
    name = lambda: rng.choice(NAMES).replace("{trap}", str(trap))  # noqa: E731
    own = {option: name() for option in rng.sample(FILES, k=rng.choice([0, 1, 1, 1, 2, 3]))}
    arguments = {"state": name()} if not own or rng.random() < 0.5 else {}
    for option in rng.sample(ODD, k=rng.random() < 0.1):  # which is mostly refused for itself
        (own if option in ODD[:5] else arguments)[option] = name()
    scenario = "resnet18" if own else rng.choice([*BUILT_IN])
    hashes = rng.choice([None, {}, dict.fromkeys([*own, *arguments], "0" * 64)])
    return header | {
        "scenario": scenario,
        "arguments": arguments,
        "own": own,
        "folder": rng.choice([str(trap), str(trap.parent), None, ""]),
        **({} if hashes is None else {"hashes": hashes}),
    }


def some_command(rng: random.Random, journal: Path) -> list[str]:
    """Give a command line that names the journal, and allows nothing else."""
    name, changed = str(journal), ["--changed"] * (rng.random() < 0.3)
    return rng.choice(
        [
            ["resume", name, *changed, "--headless", "--do", "f"],
            ["replay", name, *changed, "--headless", "--check"],
            ["export", name, *changed, "--to", f"{name}.csv"],
            ["sessions"],
        ]
    )


def case_of_named_files(
    rng: random.Random, folder: Path, *, quietly: Callable[[list[str]], tuple[int, str]]
) -> tuple[object, str | None]:
    """Run a command on a journal that names files; give both, and what is wrong.

    quietly: runs the program, and gives its exit code and what it says.
    """
    trap, runs = folder / "trap", folder / "autograd-tui" / "runs"
    for each in (trap, runs):
        each.mkdir(parents=True)
    (trap / "file.pt").write_bytes(b"a trap")
    try:
        real = _real(folder / "real.journal")
        header = some_header(json.loads(real[0]), trap, rng)
        journal = rng.choice([folder / "named.journal", runs / "planted.journal"])
        journal.write_text("\n".join([json.dumps(header), *real[1 : rng.choice([1, 3, 9])], ""]))
        journal.chmod(0o666)  # as where others may write too
        command = some_command(rng, journal)
        with heard() as events:
            code, said = quietly(command)
        return (command, header), _wrong(events, code, said, trap)
    except BaseException:
        return None, traceback.format_exc()
    finally:
        for each in (trap, runs):
            shutil.rmtree(each)


def _wrong(events: list[tuple[str, str]], code: int, said: str, trap: Path) -> str | None:
    trapped = [(event, what) for event, what in events if str(trap) in what or event[:2] in ("so", "ur")]
    if trapped:
        return f"it has {trapped}"
    if (trap / "hub").exists():
        return "it has made a folder"
    fine = code in (0, 1, 2) and all(line.startswith(("autograd-tui: ", "no run is")) for line in said.splitlines())
    return None if fine else f"exit code {code}: {said[:500]}"


def _real(path: Path) -> list[str]:
    """Give the lines of a run of the line."""
    if not path.exists():
        session = open_session("linear")
        session.observer = JournalWriter(path, session.about, private=True)
        list(session.run_all("fbsz*3"))
        session.close(in_order=True)
    return path.read_text().splitlines()
