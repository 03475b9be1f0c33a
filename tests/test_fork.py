"""A copy of the process that a scenario makes and lets come back: it is no second program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cases import LONG
from hostile import PLACES, write

sys.path.insert(0, str(Path(__file__).parent / "terminal"))

from pseudo_terminal import terminal

COMES_BACK = "os.fork()"
RAISES = "if os.fork() == 0: raise ValueError('in the copy')"
LEAVES = "if os.fork() == 0: sys.exit(3)"
FORWARD = [("forward", RAISES), ("forward", LEAVES)]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork here")


def headless(scenario: str, do: str, journal: Path) -> subprocess.CompletedProcess[str]:
    words = [scenario, "--headless", "--do", do, "--json", "--journal", str(journal), "--threads", "1"]
    return subprocess.run([sys.executable, "-m", "autograd_tui", *words], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(("place", "code"), [(place, COMES_BACK) for place in PLACES] + FORWARD if LONG else FORWARD)
def test_every_line_is_written_once(tmp_path: Path, place: str, code: str) -> None:
    journal = tmp_path / "run.jsonl"
    done = headless(write(tmp_path, code, place), "fbszf", journal)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["index"] for line in done.stdout.splitlines()] == [1, 2, 3, 4, 5]
    assert journal.read_text().count("\n[") == 5


FREELY = """
import sys
from autograd_tui import open_session

session = open_session(sys.argv[1], threads=1)
frames = list(session.run_free(session.end_of(40), lambda: False, every=0))
print(session.frame.index, session.frame.error)
"""


@pytest.mark.parametrize(("place", "code"), [("batch", COMES_BACK), *FORWARD] if LONG else [("batch", COMES_BACK)])
def test_a_free_run_goes_on_in_one_process(tmp_path: Path, place: str, code: str) -> None:
    words = [sys.executable, "-c", FREELY, write(tmp_path, code, place)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == ("160 None\n", "")


def test_a_screen_is_drawn_by_one_process(tmp_path: Path) -> None:
    with terminal(write(tmp_path, COMES_BACK, "forward")) as shown:
        shown.wait_for("frame 0 of 0")
        shown.type("nn")
        shown.wait_for("frame 8 of 8")
        shown.type("q")
        assert shown.end().count("autograd-tui ") == 1
        assert shown.exit_code == 0
