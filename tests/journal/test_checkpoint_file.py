"""Checkpoints beside a journal: what is resumed from one goes on to the bit."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from unittest.mock import Mock, patch

import pytest
import torch
from torch import nn

from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.scenario import Scenario
from autograd_tui.journal import checkpoint_file as kept
from autograd_tui.journal import writer as writing
from autograd_tui.journal.entry import Entry
from autograd_tui.journal.followed_session import FollowedSession
from autograd_tui.journal.journal_file import PrefixHash
from autograd_tui.journal.reader import read_journal
from autograd_tui.journal.resume_run import resume_run
from autograd_tui.journal.writer import JournalWriter
from loops_with_loaders import CASES
from models_hard_to_repeat import gated
from plain_loop import differing, small_net
from session_internals import as_scenario, open_with_many_checkpoints, state_of, tensors


@pytest.fixture(autouse=True)
def every_checkpoint_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "CHECKPOINT_INTERVAL", 0.0)
    monkeypatch.setattr(writing, "MAX_CHECKPOINT_SHARE", float("inf"))


def recorded(path: Path, scenario: object, words: str, **options: object) -> Session:
    session = open_with_many_checkpoints(scenario, **options)  # type: ignore[arg-type]
    session.observer = JournalWriter(path, session.about, private=True)
    list(session.run_all(words))
    session.close(in_order=False)
    return session


def resumed(path: Path, scenario: object, **options: object) -> tuple[Session, int]:
    """Resume a run, and tell from which frame it was run again."""
    journal = read_journal(path)
    session = open_with_many_checkpoints(scenario, **options)  # type: ignore[arg-type]
    found = kept.load_checkpoint(journal, session.checkpoint())
    assert found is not None
    resume_run(session, journal)
    return session, found.checkpoint.frame.index


WORLDS = {"line": "linear", "net": as_scenario(small_net), "gated": as_scenario(gated)}
WORDS = [
    "fbsz*6",
    "fbsz*3 lr=0.05 fbsz fb",
    "fbsF optimizer=adam bsz fbsz f",
    "fbBsz*3 fbs",
    "fbsz*4 @10 s fbsz f undo",
]


@pytest.mark.parametrize("optimizer", ["sgd,lr=0.01,momentum=0.9", "adam,lr=0.01"])
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("words", WORDS)
def test_a_run_resumed_from_tensors_is_the_straight_run(tmp_path: Path, world: str, words: str, optimizer: str) -> None:
    first = recorded(tmp_path / "j", WORLDS[world], words, optimizer=optimizer, decay="plateau:0.5:1")
    again, start = resumed(tmp_path / "j", WORLDS[world], optimizer=optimizer, decay="plateau:0.5:1")
    assert start > 0
    assert again.frame.same(first.frame)
    assert differing(tensors(again), tensors(first)) == []
    for session in (first, again):
        list(session.run_all("F F"))
    assert differing(tensors(again), tensors(first)) == []


@pytest.mark.parametrize(("words", "other"), [("fff", "@2 b"), ("fbszff", "@5 Bsf"), ("fbszff", "@5 b @4 ff")])
def test_a_checkpoint_is_passed_over_where_no_forward_follows_it_any_more(
    tmp_path: Path, words: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_with_many_checkpoints(WORLDS["net"])  # type: ignore[arg-type]
    first.observer = JournalWriter(tmp_path / "j", first.about, private=True)
    list(first.run_all(words))
    monkeypatch.setattr(writing, "CHECKPOINT_INTERVAL", float("inf"))
    list(first.run_all(other))
    first.close(in_order=False)
    again = open_with_many_checkpoints(WORLDS["net"])  # type: ignore[arg-type]
    resume_run(again, read_journal(tmp_path / "j"))
    assert again.frame.same(first.frame)
    assert differing(tensors(again), tensors(first)) == []


@pytest.mark.parametrize(
    ("seconds", "in_order", "kept"), [(1.0, True, 20), (0.3, True, None), (1.0, False, None), (3.0, False, 20)]
)
def test_a_run_that_ends_in_order_leaves_its_newest_checkpoint(
    tmp_path: Path, seconds: float, in_order: bool, kept: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "CHECKPOINT_INTERVAL", 2.0)
    clock = [0.0]
    monkeypatch.setattr(writing, "monotonic", lambda: clock[0])
    session = open_with_many_checkpoints(WORLDS["line"])  # type: ignore[arg-type]
    session.observer = JournalWriter(tmp_path / "j", session.about, private=True)
    list(session.run_all("fbsz*5"))
    clock[0] = seconds
    list(session.run_all("fb"))
    session.close(in_order=in_order)
    assert [path.name for path in tmp_path.glob("j.tensors-*")] == ([f"j.tensors-{kept}"] if kept else [])
    if kept:
        again, start = resumed(tmp_path / "j", WORLDS["line"])
        assert (start, again.frame.same(session.frame)) == (kept, True)


@pytest.mark.parametrize("name", CASES)
def test_a_loader_goes_on_in_the_middle_of_its_epoch(tmp_path: Path, name: str) -> None:
    scenario = Scenario(name, CASES[name].parts)
    first = recorded(tmp_path / "j", scenario, "fbsz*6 fbs")
    again, start = resumed(tmp_path / "j", scenario)
    assert start == 24
    for session in (first, again):
        list(session.run_all("z fbsz*8 @14 sz fbsz*2"))
    assert again.frame.same(first.frame)
    assert differing(tensors(again), tensors(first)) == []


def test_every_earlier_frame_can_be_returned_to(tmp_path: Path) -> None:
    first = recorded(tmp_path / "j", WORLDS["net"], "fbsBz*3 lr=0.05 fbsz*3")
    again, _ = resumed(tmp_path / "j", WORLDS["net"])
    for index in random.Random(0).sample(range(first.newest), 12):
        assert again.rewind(index).same(first.rewind(index))


def test_the_plots_go_on(tmp_path: Path) -> None:
    first = recorded(tmp_path / "j", "linear", "fbsz*20")
    again, _ = resumed(tmp_path / "j", "linear")
    assert again.history == first.history
    assert len(again.history.path) == 21
    assert len(again.history.grads) == 20


def test_two_files_are_kept(tmp_path: Path) -> None:
    recorded(tmp_path / "j", "linear", "fbsz*9")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["j", "j.tensors-28", "j.tensors-32"]


@pytest.mark.parametrize("name", ["run[1].journal", "[!a]*", "*?"])
def test_a_name_is_no_pattern(tmp_path: Path, name: str) -> None:
    others = [tmp_path / "run1.journal.tensors-4", tmp_path / "other.tensors-4"]
    for each in others:
        each.write_bytes(b"PK\x03\x04")
    first = recorded(tmp_path / name, "linear", "fbsz*9")
    again, start = resumed(tmp_path / name, "linear")
    assert (start, again.frame.same(first.frame)) == (32, True)
    kept_files = [f"{name}.tensors-28", f"{name}.tensors-32", name, *(each.name for each in others)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept_files)


def test_a_planted_link_is_neither_written_through_nor_read_nor_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    for ending in (".tensors-28", ".tensors-32", ".tensors-32.new", ".frames", ".frames.new"):
        (tmp_path / f"j{ending}").symlink_to("mine")
    recorded(tmp_path / "j", "linear", "fbsz*9")
    again, start = resumed(tmp_path / "j", "linear")
    assert again.observer is not None
    again.observer.on_shown(again.frame, again.newest, again.history)
    assert FollowedSession(tmp_path / "j").frame.index == again.frame.index
    assert (start, (tmp_path / "mine").read_text()) == (32, "mine")


def test_what_a_killed_run_has_left_unfinished_is_removed_when_the_run_goes_on(tmp_path: Path) -> None:
    recorded(tmp_path / "j", "linear", "fbsz*9")
    for ending in (".tensors-20.new", ".tensors-20.0123abcd.new", ".frames.0123abcd.new"):
        (tmp_path / f"j{ending}").write_bytes(b"")
    (tmp_path / "j.new").write_bytes(b"mine")
    resumed(tmp_path / "j", "linear")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["j", "j.new", "j.tensors-28", "j.tensors-32"]


def test_a_checkpoint_of_a_branch_that_was_left_is_passed_over(tmp_path: Path) -> None:
    recorded(tmp_path / "j", "linear", "fbsz*9 @6 s")
    found = kept.load_checkpoint(read_journal(tmp_path / "j"), open_session("linear").checkpoint())
    assert found is not None
    assert found.checkpoint.frame.index == 4


@pytest.mark.parametrize("damage", ["cut", "noise", "pickle"])
def test_a_damaged_file_is_passed_over(tmp_path: Path, damage: str) -> None:
    recorded(tmp_path / "j", "linear", "fbsz*9")
    for path in tmp_path.glob("j.tensors-*"):
        data = path.read_bytes()
        path.write_bytes({"cut": data[:-500], "noise": b"noise" * 99, "pickle": b"cos\nsystem\n(S'true'\ntR."}[damage])
    assert kept.load_checkpoint(read_journal(tmp_path / "j"), open_session("linear").checkpoint()) is None


def test_a_file_of_another_model_is_passed_over(tmp_path: Path) -> None:
    recorded(tmp_path / "j", "linear", "fbsz*9")
    assert kept.load_checkpoint(read_journal(tmp_path / "j"), open_session(as_scenario(small_net)).checkpoint()) is None


@pytest.mark.parametrize("way", ["removed", "moved"])
def test_checkpoints_of_another_run_that_had_the_name_are_passed_over(tmp_path: Path, way: str) -> None:
    recorded(tmp_path / "j", "linear", "fbsz*9")
    (tmp_path / "j").rename(tmp_path / "k") if way == "moved" else (tmp_path / "j").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "CHECKPOINT_INTERVAL", float("inf"))  # it leaves none of its own
        first = recorded(tmp_path / "j", "linear", "fbsz*9", lr=0.01)
    assert kept.load_checkpoint(read_journal(tmp_path / "j"), first.checkpoint()) is None
    session = open_session("linear", lr=0.01)
    resume_run(session, read_journal(tmp_path / "j"))
    assert session.frame.same(first.frame)


def test_checkpoints_of_another_way_on_from_a_copied_journal_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(tmp_path / "j", "linear", "fbsz*3 fb")
    copy = (tmp_path / "j").read_bytes()

    def went_on(words: str) -> Session:
        session = open_with_many_checkpoints("linear")
        resume_run(session, read_journal(tmp_path / "j"))
        list(session.run_all(words))
        session.close(in_order=False)
        return session

    went_on("lr=0.5 s z fbsz*4")
    assert (tmp_path / "j.tensors-29").exists()
    (tmp_path / "j").write_bytes(copy)
    monkeypatch.setattr(writing, "CHECKPOINT_INTERVAL", float("inf"))  # the second one leaves none of its own
    second = went_on("lr=0.1 s z fbsz*4")
    again = open_session("linear")
    resume_run(again, read_journal(tmp_path / "j"))
    assert differing(tensors(again), tensors(second)) == []


def test_a_checkpoint_of_which_the_frame_is_not_that_of_its_line_is_passed_over(tmp_path: Path) -> None:
    session = recorded(tmp_path / "j", "linear", "fbsz*9")
    older, newer = sorted(tmp_path.glob("j.tensors-*"))
    older.unlink()
    content = torch.load(newer, weights_only=True)
    line = read_journal(tmp_path / "j").entries[content["entry"] - 1]
    text = (tmp_path / "j").read_text().replace(line.digest, "0" * 16)
    (tmp_path / "j").write_text(text)
    torch.save(content | {"lines": [len(text), PrefixHash(text.encode()).hexdigest()]}, newer)
    assert kept.load_checkpoint(read_journal(tmp_path / "j"), session.checkpoint()) is None


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    session = recorded(tmp_path / "j", "linear", "fbsz*3")
    assert [path.name for path in tmp_path.iterdir()] == ["j"]
    assert session.observer is not None
    problem = session.observer.problem
    assert problem is not None
    assert problem.mark == "no checkpoints"
    assert problem.sentence.endswith("failed writing file): resuming will run more of it again.")
    assert len(read_journal(tmp_path / "j").entries) == 12


def test_lines_that_may_not_have_reached_the_disk_end_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(errno.EIO, os.strerror(errno.EIO))))
    session = recorded(tmp_path / "j", "linear", "fbsz*3")
    assert session.observer is not None
    problem = session.observer.problem
    assert problem is not None
    assert "cannot be written (Input/output error): this run is kept no further" in problem.sentence


def test_resnet18_is_resumed_from_tensors(tmp_path: Path) -> None:
    first = recorded(tmp_path / "j", "resnet18", "fbsz*3 fb")
    again, start = resumed(tmp_path / "j", "resnet18")
    assert start == 12
    assert differing(tensors(again), tensors(first)) == []
    assert isinstance(state_of(again).model, nn.Module)


def test_a_long_journal_is_gone_through_once_and_only_its_end_runs_again(tmp_path: Path) -> None:
    recorded(tmp_path / "j", "linear", "fbsz*50 f")
    with patch.object(Entry, "append_to", autospec=True, side_effect=Entry.append_to) as added:
        session, start = resumed(tmp_path / "j", "linear")
    assert session.frame.index == 201
    assert start > 180
    assert added.call_count == 201 - start  # each that runs again
