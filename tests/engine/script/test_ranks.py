"""A script of several ranks: one is held, and the others wait for it."""

from __future__ import annotations

import sys
from pathlib import Path
from time import sleep

import pytest

from autograd_tui.core.command import Command
from autograd_tui.core.errors import Refused
from autograd_tui.engine.script.script_session import ScriptSession

SCRIPT = Path(__file__).parents[2] / "support" / "scripts" / "impatient_ranks.py"
HELD_SECONDS = 5.0  # longer than the ranks of the script wait by themselves


def run_to_the_end(session: ScriptSession) -> None:
    while True:
        session.run(session.next_command())


def test_a_process_that_the_script_has_spawned_is_held_and_not_copied() -> None:
    printed: list[bytes] = []
    session = ScriptSession((str(SCRIPT.with_name("spawns.py")),), on_output=printed.append)
    try:
        session.run(session.next_command())
        with pytest.raises(Refused, match="cannot be taken back: the process that started it waits for its end"):
            session.run(Command("undo"))
        with pytest.raises(Refused, match=r"spawns\.py has ended after 8 events\.$"):
            run_to_the_end(session)
        session.process.wait(60)  # a copy would keep the script waiting for the end of what it has spawned
        assert session.process.exit_code == 0
    finally:
        session.close(in_order=True)
    assert b"sha256 " in b"".join(printed)


def test_ranks_wait_for_the_one_that_is_held() -> None:
    printed: list[bytes] = []
    launcher = ("--", sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    session = ScriptSession((*launcher, str(SCRIPT)), on_output=printed.append)
    try:
        assert session.about.title == SCRIPT.name
        while not (session.frame.iteration == 1 and session.frame.steps == 1):
            session.run(session.next_command())
        sleep(HELD_SECONDS)  # the other rank is in its next backward by now
        with pytest.raises(Refused, match=r"impatient_ranks\.py has ended after 8 events\.$"):
            run_to_the_end(session)
    finally:
        session.close(in_order=True)
    assert b"".join(printed).count(b"sha256 ") == 2
