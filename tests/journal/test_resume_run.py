"""A run that is left and resumed, at any point, stands as if it had never been left."""

from __future__ import annotations

from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from torch import nn

from autograd_tui import __version__
from autograd_tui.core.errors import Refused
from autograd_tui.core.replay_check import Divergence
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.journal import writer as writing
from autograd_tui.journal.reader import read_journal
from autograd_tui.journal.resume_run import resume_run, verify_journal
from autograd_tui.journal.writer import JournalWriter
from command_machine import Machine
from expected_journal import listed, told_otherwise
from plain_loop import Batch, differing
from session_internals import as_scenario, tensors
from suite_options import search


def kept(path: Path, words: str) -> Session:
    """Run a line that is kept, and leave it."""
    session = open_session("linear")
    session.observer = JournalWriter(path, session.about, private=True)
    list(session.run_all(words))
    session.close(in_order=False)
    return session


def resumed(path: Path, *, changed: bool = False) -> Session:
    session = open_session("linear")
    resume_run(session, read_journal(path), changed=changed)
    return session


@pytest.mark.parametrize(
    "words",
    [
        "fbsz @2 lr=0.5",
        "fbsz f @2 lr=0.5 fb @0 z f",
        "fb lr=0.5 @1 b s branch=1 f @1 b branch=2 @1",
        "f w=nan fb @2 f @1 b",
        "w=nan f @0 w=nan F z branch=1",
        "f @0 z",
    ],
)
def test_branches_are_there_again_with_number_fork_length_and_loss(tmp_path: Path, words: str) -> None:
    session = kept(tmp_path / "j", words)
    assert session.branches
    told = listed(resumed(tmp_path / "j").branches)
    assert str(told) == str(listed(session.branches))  # as text, where a NaN is a NaN


def test_a_branch_taken_after_resuming_has_the_frames_and_plots_that_it_had(tmp_path: Path) -> None:
    session = kept(tmp_path / "j", "fbsz*3 F lr=0.05 fbBs @5 bs fbsz")
    again = resumed(tmp_path / "j")
    session.observer = None
    for each in (session, again):
        each.run("branch=1")
    assert again.history == session.history
    assert all(again.look(index).same(session.look(index)) for index in range(session.newest + 1))
    assert listed(again.branches) == listed(session.branches)


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
    session.observer = None
    assert again.run("@7").same(session.run("@7"))


def test_giving_up_a_branch_that_was_told_leaves_all_as_it_was(tmp_path: Path) -> None:
    kept(tmp_path / "j", "fbsz*5 @2 s f")
    again = resumed(tmp_path / "j")
    frame, branches, history = again.frame, listed(again.branches), again.history.copy()
    again.watch(lambda progress: progress.home or progress.done < 4)
    with pytest.raises(Refused, match="given up"):
        again.run("branch=1")
    assert again.frame.same(frame)
    assert (listed(again.branches), again.history) == (branches, history)


def test_a_line_that_returns_to_no_branch_is_named(tmp_path: Path) -> None:
    kept(tmp_path / "j", "fbsz")
    with (tmp_path / "j").open("a") as file:
        file.write('[5,2,"branch=1","0000000000000000",{"start":2}]\n')
    damage = read_journal(tmp_path / "j").damage
    assert damage == "its line 6 cannot be read (it returns to a branch that no line before it has left)"


def spoiled(path: Path, line: int, was: str, now: str) -> None:
    """Change what a line of the file says."""
    lines = path.read_text().splitlines(keepends=True)
    assert was in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(was, now, 1)
    path.write_text("".join(lines))


def flip(path: Path, line: int) -> None:
    """Change a bit of a line's digest."""
    digest = read_journal(path).entries[line - 2].digest
    spoiled(path, line, digest, f"{int(digest, 16) ^ 1:016x}")


@pytest.mark.parametrize(("words", "line"), [("fbsz*2", 2), ("fbsz*2", 9), ("fbsz*2 @3", 10), ("fbsz @2 lr=1 @1", 3)])
def test_a_flipped_bit_on_the_way_is_named_with_its_line_and_frame(tmp_path: Path, words: str, line: int) -> None:
    kept(tmp_path / "j", words)
    flip(tmp_path / "j", line)
    frame = read_journal(tmp_path / "j").end_frames[line - 2]
    with pytest.raises(Refused, match=f"from line {line} of its journal on, frame {frame}, this is another run: "):
        resumed(tmp_path / "j")


def test_each_line_of_a_free_run_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "FREE_RUN_INTERVAL", 0.0)
    session = open_session("linear")
    session.observer = JournalWriter(tmp_path / "j", session.about, private=True)
    list(session.run_free(session.end_of(3000), lambda: False, every=0.001))
    session.close(in_order=False)
    resumed(tmp_path / "j").close(in_order=False)
    line = len(read_journal(tmp_path / "j").entries) // 2
    flip(tmp_path / "j", line)
    with pytest.raises(Refused, match=f"from line {line} of"):
        resumed(tmp_path / "j")


@pytest.mark.parametrize(("was", "now"), [('"s"', '"z"'), ('"lr=0.5"', '"lr=0.25"')])
def test_a_command_that_is_another_one_is_noticed(tmp_path: Path, was: str, now: str) -> None:
    kept(tmp_path / "j", "fb lr=0.5 sz")
    line = 4 if "lr" in was else 5
    spoiled(tmp_path / "j", line, was, now)
    with pytest.raises(Refused, match=f"from line {line} of its journal on"):
        resumed(tmp_path / "j")


def test_a_line_that_cannot_run_any_more_is_named(tmp_path: Path) -> None:
    kept(tmp_path / "j", "fbsz")
    spoiled(tmp_path / "j", 2, '"f"', '"b"')
    with pytest.raises(Refused, match="from line 2 of its journal on, frame 0, this is another run: backward "):
        resumed(tmp_path / "j", changed=True)


def test_a_line_of_which_a_part_alone_is_left_is_not_compared(tmp_path: Path) -> None:
    session = open_session("linear")
    session.observer = JournalWriter(tmp_path / "j", session.about, private=True)
    list(session.run_free(session.end_of(40), lambda: False))
    list(session.run_all("@101 lr=0.5"))
    session.close(in_order=False)
    assert resumed(tmp_path / "j").frame.same(session.frame)


def test_a_run_that_is_another_one_goes_on_where_that_is_asked_and_says_so(tmp_path: Path) -> None:
    kept(tmp_path / "j", "fbsz f")
    flip(tmp_path / "j", 4)
    again = resumed(tmp_path / "j", changed=True)
    assert again.warning is not None
    assert again.warning.startswith("from line 4 of its journal on, frame 3, this is another run: its model does not ")
    assert again.warning.endswith("; it goes on as it is now.")
    list(again.run_all("b @2 s"))
    again.close(in_order=True)
    assert resumed(tmp_path / "j").commands() == "fbs"


def test_a_branch_that_ends_otherwise_than_it_did_is_told(tmp_path: Path) -> None:
    kept(tmp_path / "j", "fbsz*2 @2 lr=0.5")
    again = resumed(tmp_path / "j")
    again.run("branch=1")
    assert again.take_divergence() is None
    again.close(in_order=True)
    kept(tmp_path / "k", "fbsz*2 @2 lr=0.5")
    flip(tmp_path / "k", 9)
    again = resumed(tmp_path / "k")
    again.run("branch=1")
    assert again.take_divergence() == Divergence(8, "numbers")
    again.close(in_order=True)


def test_another_machine_is_named_as_the_cause(tmp_path: Path) -> None:
    kept(tmp_path / "j", "fb")
    spoiled(tmp_path / "j", 1, '"threads": ', '"threads": 9')
    resumed(tmp_path / "j").close(in_order=False)  # where the numbers are the same, that is nothing to speak of
    flip(tmp_path / "j", 2)
    with pytest.raises(Refused, match=r"another run: threads \d+ \(was 9\d+\); --changed goes on"):
        resumed(tmp_path / "j")


def test_a_journal_of_another_version_which_measures_other_numbers_goes_on_where_its_losses_agree(
    tmp_path: Path,
) -> None:
    kept(tmp_path / "j", "fbsz f")
    spoiled(tmp_path / "j", 1, f'"autograd-tui": "{__version__}"', '"autograd-tui": "0.1.0"')
    for line in range(2, 7):
        flip(tmp_path / "j", line)
    resumed(tmp_path / "j").close(in_order=False)
    spoiled(tmp_path / "j", 6, '"loss":', '"loss":1')
    with pytest.raises(Refused, match=r"from line 6 .*another run: autograd-tui"):
        resumed(tmp_path / "j")


def test_a_model_that_does_not_repeat_is_said(tmp_path: Path) -> None:
    stream = iter(range(100))

    def never_the_same(seed: int) -> tuple[nn.Module, Batch]:
        model = nn.Linear(1, 1)
        return model, lambda i: (torch.full((1, 1), float(next(stream))), torch.ones(1, 1))

    scenario = as_scenario(never_the_same)
    session = open_session(scenario)
    session.observer = JournalWriter(tmp_path / "j", session.about, private=True)
    list(session.run_all("fbsz*2"))
    session.close(in_order=False)
    with pytest.raises(
        Refused, match="from line 2 of its journal on, frame 1, this is another run: its model does not"
    ):
        resume_run(open_session(scenario), read_journal(tmp_path / "j"))


class Resuming(Machine):
    """Any walk, left and resumed now and then; after each step the journal says where the session stands."""

    def begin(self) -> None:
        """Keep the run in a folder of its own."""
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "j"
        self.always = patch.multiple(writing, CHECKPOINT_INTERVAL=0.0, MAX_CHECKPOINT_SHARE=inf, FREE_RUN_INTERVAL=inf)
        self.always.start()
        self.session.observer = JournalWriter(self.path, self.session.about, private=True)

    @rule(lines=st.sampled_from([0.0, inf]), tensors=st.sampled_from([0.0, inf]))
    def write(self, *, lines: float, tensors: float) -> None:
        """Write lines of a free run, and files of tensors, at once or as late as can be."""
        writing.FREE_RUN_INTERVAL, writing.CHECKPOINT_INTERVAL = lines, tensors

    @invariant()
    def the_journal_says_where_training_stands(self) -> None:
        """Hold what can be read now against the session."""
        if self.path.exists():
            assert told_otherwise(self.path, self.session) == []
        else:
            assert self.session.frame.index == 0

    @rule(times=st.integers(3, 9), back=st.integers(1, 9))
    def go_back_into_a_free_run(self, *, times: int, back: int) -> None:
        """Return into what may be one line of the journal."""
        self.run_freely(times, None)
        index = max(self.session.frame.index - back, 0)
        self.arrive(index, self.session.rewind(index))

    @precondition(lambda self: self.path.exists())
    @rule()
    def do_it_all_again(self) -> None:
        """Check the journal, as `replay --check` does."""
        assert all(each.matches for each in verify_journal(self.opened(), read_journal(self.path)))

    @precondition(lambda self: self.path.exists())
    @rule(in_order=st.booleans(), from_tensors=st.booleans())
    def leave_and_resume(self, *, in_order: bool, from_tensors: bool) -> None:
        """Let another session take the place of this one, from the tensors beside the journal or without them."""
        before, branches = self.session, str(listed(self.session.branches))
        before.close(in_order=in_order)
        for each in [] if from_tensors else self.path.parent.glob("j.tensors-*"):
            each.unlink()
        self.session = self.opened()
        resume_run(self.session, read_journal(self.path))
        assert self.session.frame.same(before.frame)
        assert self.session.newest == before.newest
        assert differing(tensors(self.session), tensors(before)) == []
        assert str(listed(self.session.branches)) == branches

    def teardown(self) -> None:
        """Leave nothing behind."""
        if hasattr(self, "folder"):
            self.session.close(in_order=False)
            self.always.stop()
            self.folder.cleanup()


TestResuming = Resuming.TestCase
TestResuming.settings = settings(search(8), stateful_step_count=30, suppress_health_check=[HealthCheck.too_slow])
