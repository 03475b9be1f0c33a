"""The program where standard streams are closed, encodings are poor, and its configuration cannot be read."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from suite_options import some

PROGRAM = shlex.join([sys.executable, "-m", "autograd_tui"])
ACCENTS = """
import torch
from torch import nn
from autograd_tui import Parts, scenario

@scenario("réseau 漢字")
def build(options):
    model = nn.Module()
    model.register_parameter("é", nn.Parameter(torch.ones(1)))

    def forward(model, batch):
        print("imprimé 漢字")
        if model.training and model.é.item() < 1:
            raise ValueError("pas d’été")
        return model.é.sum()

    return Parts(model=model, batch=lambda i: (), forward=forward)
"""
POOR = [
    {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    {"LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "latin-1:strict"},
]


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    return subprocess.run(["sh", "-c", command], capture_output=True, env={**kept, **environment}, timeout=300)


@pytest.mark.parametrize("encoding", some(POOR, 1))
def test_accents_are_printed_as_far_as_the_encoding_goes(tmp_path: Path, encoding: dict[str, str]) -> None:
    """In tables, in what a model prints, and in the sentence about what it raises."""
    (tmp_path / "net.py").write_text(ACCENTS, encoding="utf-8")
    done = shell(f"{PROGRAM} {tmp_path}/net.py --headless --do fbszf", **encoding)
    assert done.returncode == 1
    assert "é 0.99" in done.stdout.decode()
    assert b"imprim" in done.stderr
    assert b"f raised ValueError: pas d" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("words", ["sessions --delete été.jsonl", "été --headless --do f", "--headless --do é"])
@pytest.mark.parametrize("encoding", some(POOR, 1))
def test_a_word_with_an_accent_is_refused_in_a_sentence(words: str, encoding: dict[str, str]) -> None:
    done = shell(f"{PROGRAM} {words}", **encoding)
    assert done.returncode == 2
    assert done.stderr.startswith(b"autograd-tui: ")
    assert done.stderr.count(b"\n") == 1


CLOSED = [("2>&-", 0), ("<&- >&- 2>&-", 2), ("> /dev/full", 1), (">&-", 2), ("<&-", 0), (">&- 2>&-", 2)]


@pytest.mark.parametrize(("closed", "code"), some(CLOSED, 4))
def test_streams_that_are_closed_or_full_are_no_traceback(closed: str, code: int) -> None:
    done = shell(f"{PROGRAM} linear --headless --do f {closed}")
    assert done.returncode == code
    assert done.stderr.count(b"\n") == (code != 0 and "2>&-" not in closed)
    assert b"Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("closed", some(["2>&-", "<&-", ">&-"], 1))
def test_a_screen_without_one_of_its_streams_is_refused(closed: str) -> None:
    done = shell(f"{PROGRAM} linear {closed}")
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == ("2>&-" not in closed)
