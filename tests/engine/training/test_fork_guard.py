"""A copy of the process that a scenario makes and lets come back: it is no second program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from socket import socketpair

import pytest

import fork_server
from autograd_tui import open_session
from autograd_tui.core.files import is_locked
from autograd_tui.journal.writer import JournalWriter
from hostile_scenarios import PLACES, write
from pseudo_terminal import terminal
from suite_options import LONG

COMES_BACK = "os.fork()"
RAISES = "if os.fork() == 0: raise ValueError('in the copy')"
LEAVES = "if os.fork() == 0: sys.exit(3)"
FORWARD = [("forward", RAISES), ("forward", LEAVES)]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork here")


def headless(scenario: str, do: str, journal: Path) -> subprocess.CompletedProcess[str]:
    words = [scenario, "--headless", "--do", do, "--json", "--journal", str(journal), "--threads", "1"]
    return fork_server.run([sys.executable, "-m", "autograd_tui", *words])


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
    done = fork_server.run(words)
    assert (done.stdout, done.stderr) == ("160 None\n", "")


CHILDREN = """
import multiprocessing, os, signal, sys, time
import torch
from torch import nn
from torch.utils.data import DataLoader
from autograd_tui import Parts, scenario

fork, spawn = multiprocessing.get_context("fork"), multiprocessing.get_context("spawn")

def raises():
    raise ValueError("in a child")

def ended(context, target, *words, terminate=False):
    child = context.Process(target=target, args=words)
    child.start()
    if terminate:
        child.terminate()
    child.join()
    return child.exitcode

def loaded(persistent):
    loader = DataLoader(list(range(4)), num_workers=1, multiprocessing_context="fork", persistent_workers=persistent)
    for _ in range(2):
        last = sum(int(each) for each in loader)
    return last

class Model(nn.Linear):
    def forward(self, x):
        with fork.Pool(2) as pool:
            print("pool", pool.map(abs, [1, -2]))
        print("ended", [ended(fork, time.sleep, 1000, terminate=True) for _ in range(5)])
        print("left", ended(fork, sys.exit, 3), ended(fork, os._exit, 4), ended(fork, raises))
        print("spawned", ended(spawn, print, "from a spawned child"))
        fork.Process(target=print, args=("from a forked child",)).start()
        print("loaded", loaded(False), loaded(True))
        os.forkpty()[0] or os.kill(os.getpid(), signal.SIGTERM)
        os.fork()  # and the copy comes back
        return super().forward(x)

@scenario("mine")
def build(options):
    x = torch.rand(4, 2)
    return Parts(model=Model(2, 1), batch=lambda i: (x, x[:, :1]), loss=nn.functional.mse_loss)
"""
PRINTED = ["pool [1, 2]", f"ended {[-15] * 5}", "left 3 4 1", "ValueError: in a child", "spawned 0", "loaded 6 6"]
PRINTED += ["from a spawned child", "from a forked child"]


def test_copies_and_children_that_a_forward_starts_and_ends_leave_the_screen_alone(tmp_path: Path) -> None:
    path = tmp_path / "with_children.py"
    path.write_text(CHILDREN)
    with terminal(str(path)) as shown:
        shown.wait_for("frame 0 of 0")
        shown.type("n")
        shown.wait_for("frame 4 of 4")
        shown.type("q")
        said = shown.end().rpartition("\x1b[?1049l")[2]
        assert shown.exit_code == 0
    assert said.count("autograd-tui ") == 1
    for line in PRINTED:
        assert said.count(line) == 1, said


@pytest.mark.skipif(not LONG, reason="it says what the screen's own test does")
def test_children_that_a_forward_starts_and_ends_leave_a_run_without_a_screen_alone(tmp_path: Path) -> None:
    path = tmp_path / "with_children.py"
    path.write_text(CHILDREN)
    done = headless(str(path), "fbsz", tmp_path / "run.jsonl")
    assert done.returncode == 0, done.stderr
    for line in PRINTED:
        assert done.stderr.count(line) == 1, done.stderr


def test_a_copy_holds_no_journal_when_the_run_has_ended(tmp_path: Path) -> None:
    about = open_session("linear", threads=1).about
    path = tmp_path / "run.jsonl"
    writer = JournalWriter(path, about, private=True)
    writer.on_command("f", next(iter(open_session("linear", threads=1).run_all("f"))))
    ours, theirs = socketpair()
    with ours, theirs:
        if not (copy := os.fork()):
            theirs.send(b"here")
            ours.close()
            theirs.recv(1)
            os._exit(0)
        theirs.close()
        assert ours.recv(9) == b"here"
        writer.close(in_order=False)
        assert not is_locked(path)
    os.waitpid(copy, 0)
