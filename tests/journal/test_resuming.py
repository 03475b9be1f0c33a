"""A run that is left and resumed, at any point, stands as if it had never been left."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from plain_loop import differing
from reach import tensors
from test_state_machine import Machine

from autograd_tui.engine.session import Session
from autograd_tui.engine.values.errors import Refused
from autograd_tui.journal import writing
from autograd_tui.journal.reading import read_journal
from autograd_tui.journal.resuming import resume
from autograd_tui.journal.writing import JournalWriter
from autograd_tui.open import open_session

ASKED = os.environ.get("AUTOGRAD_TUI_EXAMPLES")


def kept(path: Path, words: str) -> Session:
    """Run a line that is kept, and leave it."""
    session = open_session("linear")
    session.recorder = JournalWriter(path, session.about, private=True)
    list(session.run_all(words))
    session.close(in_order=False)
    return session


def resumed(path: Path) -> Session:
    session = open_session("linear")
    resume(session, read_journal(path))
    return session


def listed(session: Session) -> list[tuple[int, int, int, float | None]]:
    return [(branch.number, branch.fork, len(branch), branch.loss) for branch in session.branches]


@pytest.mark.parametrize(
    "words",
    [
        "fbsz @2 lr=0.5",
        "fbsz f @2 lr=0.5 fb @0 z f",
        "fb lr=0.5 @1 b s branch=1 f @1 b branch=2 @1",
        "f w=nan fb @2 f @1 b",
        "f @0 z",
    ],
)
def test_branches_are_there_again_with_number_fork_length_and_loss(tmp_path: Path, words: str) -> None:
    session = kept(tmp_path / "j", words)
    assert session.branches
    assert str(listed(resumed(tmp_path / "j"))) == str(listed(session))  # as text, where a NaN is a NaN


def test_a_branch_taken_after_resuming_has_the_frames_and_plots_that_it_had(tmp_path: Path) -> None:
    session = kept(tmp_path / "j", "fbsz*3 F lr=0.05 fbBs @5 bs fbsz")
    again = resumed(tmp_path / "j")
    session.recorder = None
    for each in (session, again):
        each.run("branch=1")
    assert again.history == session.history
    assert all(again.look(index).same(session.look(index)) for index in range(session.newest + 1))
    assert listed(again) == listed(session)


def test_a_branch_taken_after_resuming_is_kept_in_the_journal(tmp_path: Path) -> None:
    kept(tmp_path / "j", "fbsz @2 s f")
    again = resumed(tmp_path / "j")
    list(again.run_all("branch=1 f"))
    again.close(in_order=True)
    journal = read_journal(tmp_path / "j")
    assert [entry.command for entry in journal.entries][-2:] == ["branch=1", "f"]
    assert resumed(tmp_path / "j").commands() == "fbsz f"


def test_frames_ahead_of_where_training_stood_are_still_ahead(tmp_path: Path) -> None:
    session = kept(tmp_path / "j", "fbsz*2 @3")
    again = resumed(tmp_path / "j")
    assert (again.frame.index, again.newest) == (3, 8)
    session.recorder = None
    assert again.run("@7").same(session.run("@7"))


def test_giving_up_a_branch_that_was_told_leaves_all_as_it_was(tmp_path: Path) -> None:
    kept(tmp_path / "j", "fbsz*5 @2 s f")
    again = resumed(tmp_path / "j")
    frame, branches, history = again.frame, listed(again), again.history.copy()
    again.watch(lambda progress: progress.home or progress.done < 4)
    with pytest.raises(Refused, match="given up"):
        again.run("branch=1")
    assert again.frame.same(frame)
    assert (listed(again), again.history) == (branches, history)


def test_a_line_that_returns_to_no_branch_is_named(tmp_path: Path) -> None:
    kept(tmp_path / "j", "fbsz")
    with (tmp_path / "j").open("a") as file:
        file.write('[5,2,"branch=1","00",{"start":2}]\n')
    with pytest.raises(Refused, match="line 6 returns to a branch that no line before it has left"):
        resumed(tmp_path / "j")


class Resuming(Machine):
    """Any walk, left and resumed now and then, with a file of tensors for each checkpoint."""

    def begin(self) -> None:
        """Keep the run in a folder of its own."""
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "j"
        self.always = patch.multiple(writing, KEEP_SECONDS=0.0, KEEP_SHARE=float("inf"))
        self.always.start()
        self.session.recorder = JournalWriter(self.path, self.session.about, private=True)

    @precondition(lambda self: self.path.exists())
    @rule(in_order=st.booleans())
    def leave_and_resume(self, *, in_order: bool) -> None:
        """Let another session take the place of this one."""
        before, branches = self.session, str(listed(self.session))
        before.close(in_order=in_order)
        self.session = self.opened()
        resume(self.session, read_journal(self.path))
        assert self.session.frame.same(before.frame)
        assert self.session.newest == before.newest
        assert differing(tensors(self.session), tensors(before)) == []
        assert str(listed(self.session)) == branches

    def teardown(self) -> None:
        """Leave nothing behind."""
        if hasattr(self, "folder"):
            self.session.close(in_order=False)
            self.always.stop()
            self.folder.cleanup()


TestResuming = Resuming.TestCase
TestResuming.settings = settings(
    max_examples=int(ASKED or 8),
    stateful_step_count=30,
    deadline=None,
    derandomize=ASKED is None,
    suppress_health_check=[HealthCheck.too_slow],
)
