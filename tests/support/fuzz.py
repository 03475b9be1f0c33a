"""Feed the program what nobody would give it.

`python tests/support/fuzz.py 10000` runs so many cases, `python tests/support/fuzz.py 10000 file` those of one kind.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import sys
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from torchvision import models

from autograd_tui.cli import main
from autograd_tui.tui.preferences import Preferences, load_preferences
from foreign_journals import case_of_named_files
from odd_runs import case_of_a_scenario
from planted_files import case_of_a_folder
from spoiled_files import REFUSALS, small_resnet18, some_file
from spoiled_frames import ON_SCREEN, case_of_frames
from spoiled_journals import DEAR, case_of_a_journal

KINDS = ("do", "arguments", "settings", "file", "frames", "folder", "named", "journal")
PIECES = [
    "f",
    "b",
    "s",
    "z",
    "F",
    "B",
    "S",
    "Z",
    "fbsz*3",
    "lr=0.1",
    "w=3",
    "b[0]=1",
    "optimizer=adam,betas=(0.9,0.99)",
    "@3",
    "@0",
    "undo",
    "forward*2",
    "step",
]
SIGNS = "fbszFBSZ*=@[](),.-+0123456789 eE_aluxnif\t\n\0\x1b\"'\\/:é∞\U0001f600"
FLAGS = [
    "--seed",
    "--device",
    "--threads",
    "--optimizer",
    "--lr",
    "--momentum",
    "--weight-decay",
    "--decay",
    "--batch-size",
    "--image-size",
    "--data",
    "--option",
    "--do",
    "--repeat",
    "--theme",
    "--ascii",
    "--no-ascii",
    "--json",
    "--headless",
    "--bogus",
]
VALUES = [
    *[
        "0",
        "1",
        "-1",
        "2",
        "1.5",
        "nan",
        "inf",
        "1e9",
        "cpu",
        "cuda",
        "meta",
        "adam",
        "sgd",
        "sgd,lr=0.1",
        "plateau",
        "plateau:0.5:1",
        "plateau:0.5:1:1e-4",
        "fixed",
        "fresh",
        "x=1",
    ],
    "",
]
SETTINGS = [
    "{",
    "}",
    "[",
    "]",
    '"theme"',
    '"log_scale"',
    '"ascii_only"',
    ":",
    ",",
    "null",
    "true",
    "1e999",
    '"nord"',
    "{}",
]


def mutated(text: str, rng: random.Random) -> str:
    """Take out, double, swap or put in a few characters."""
    for _ in range(rng.randrange(4)):
        place = rng.randrange(len(text) + 1)
        text = text[:place] + rng.choice(SIGNS) * rng.randrange(3) + text[place + rng.randrange(3) :]
    return text


def some_words(rng: random.Random) -> str:
    """Give a text for --do: commands, commands with errors in them, or anything."""
    if rng.random() < 0.2:
        return "".join(rng.choices(SIGNS, k=rng.randrange(30)))
    return mutated(" ".join(rng.choices(PIECES, k=rng.randrange(6))), rng)


def some_arguments(rng: random.Random) -> list[str]:
    """Give a command line that never opens a screen."""
    words = [mutated(rng.choice(["linear", "linear", "linear", "resnet81", "a.py"]), rng)] * (rng.random() < 0.3)
    for _ in range(rng.randrange(4)):
        value = some_words(rng) if rng.random() < 0.2 else rng.choice(VALUES)
        words += [rng.choice(FLAGS), *[mutated(value, rng)] * (rng.random() < 0.9)]
    return [*words, "--headless"]


def quietly(arguments: list[str]) -> tuple[int, str]:
    """Run the program in this process; give its exit code and what it says."""
    said, out = io.StringIO(), os.dup(1)
    sys.stdin = io.StringIO("f b s z\n")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        with contextlib.redirect_stderr(said):
            return main(arguments), said.getvalue()
    finally:
        os.dup2(out, 1)
        os.close(nowhere)
        os.close(out)


def complaint(arguments: list[str], refusals: str = ".") -> str | None:
    """Say what is wrong with how the program took these arguments; None where nothing is.

    refusals: what it says where it exits with 2 must look like this, as a regular expression.
    """
    try:
        code, said = quietly(arguments)
    except BaseException:
        return traceback.format_exc()
    lines = said.splitlines()
    one = len(lines) == 1 and lines[0].startswith("autograd-tui: ")
    fine = (
        all(line.startswith("autograd-tui: written: ") for line in lines),
        one,
        one and re.search(refusals, lines[0]),
    )
    return None if code in (0, 1, 2) and fine[code] else f"exit code {code}, {len(lines)} lines: {said[:500]}"


def case_of_a_file(rng: random.Random, folder: Path) -> tuple[object, str | None]:
    """Open a file of weights or of a state: nothing in it may run."""
    arguments, ran = some_file(rng, folder), folder / "ran"
    with patch.object(models, "resnet18", small_resnet18):
        wrong = complaint(arguments, REFUSALS)
    if ran.exists():
        ran.rmdir()
        wrong = "something in the file was run"
    return arguments, wrong


def case_of_settings(rng: random.Random, folder: Path) -> tuple[object, str | None]:
    """Read what a screen may have remembered."""
    file = folder / "screen.json"
    text = mutated("".join(rng.choices(SETTINGS, k=rng.randrange(12))), rng).encode()
    file.write_bytes(rng.randbytes(rng.randrange(60)) if rng.random() < 0.3 else text)
    try:
        return text, None if isinstance(load_preferences(file), Preferences) else "no choices"
    except Exception:
        return text, traceback.format_exc()


def case(number: int, folder: Path, kind: str | None = None) -> tuple[object, str | None]:
    """Make and run case `number`, of any kind where none is given; give it, and what is wrong."""
    rng = random.Random(number)
    kind = kind or rng.choice(KINDS)
    if kind == "file":
        return case_of_a_file(rng, folder)
    if kind == "frames":
        return case_of_frames(rng, folder, shown=number % ON_SCREEN == 0)
    if kind == "folder":
        return case_of_a_folder(rng, folder, complaint)
    if kind == "named":
        return case_of_named_files(rng, folder, quietly=quietly)
    if kind == "returns":
        return case_of_a_scenario(number, folder)
    if kind == "settings":
        return case_of_settings(rng, folder)
    if kind == "journal":
        return case_of_a_journal(rng, folder, dear=number % DEAR == 0, quietly=quietly)
    arguments = some_arguments(rng) if kind == "arguments" else ["--headless", f"--do={some_words(rng)}"]
    if any("*" in word and any(len(part) > 3 for part in word.split("*")[1:]) for word in arguments):
        return arguments, None  # it may ask for a million iterations, rightly
    return arguments, complaint(arguments)


def run(first: int, cases: int, kind: str | None = None) -> int:
    """Run the cases, print those that went wrong, and count them; their journals are not kept."""
    wrong = 0
    with TemporaryDirectory() as folder, patch.dict(os.environ, XDG_STATE_HOME=folder):
        for number in range(first, first + cases):
            what, why = case(number, Path(folder), kind)
            if why:
                wrong += 1
                print(f"case {number}: {what!r}\n{why}")
    print(f"{cases} cases, {wrong} went wrong")
    return wrong


if __name__ == "__main__":
    many, *of_kind = [*sys.argv[1:], *["1000"][len(sys.argv) - 1 :]]
    raise SystemExit(bool(run(0, int(many), *of_kind)))
