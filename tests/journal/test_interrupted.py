"""A run that was cut off is named at the next start, with the journal to resume it by."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from autograd_tui.engine.open_session import open_session
from autograd_tui.journal.interrupted import interrupted_run, journal_summaries, journal_summary
from autograd_tui.journal.paths import list_journals, new_journal_paths
from autograd_tui.journal.writer import JournalWriter

LONG, SHORT = "fbsz*2", "fb"


@pytest.fixture(autouse=True)
def own_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))


def ran(words: str, *, when: int, left: bool = False) -> Path:
    """Keep a run that was `left` in order or cut off; `when` it was written last, in seconds since the epoch."""
    session = open_session("linear")
    paths = new_journal_paths(session.about.config)
    session.observer = writer = JournalWriter(next(paths), session.about, private=True, fallback_paths=paths)
    for _ in session.run_all(words):
        pass
    writer.close(in_order=left)
    os.utime(writer.path, (when, when))
    return writer.path


def sentence(path: Path, frame: int) -> str:
    resume = f"autograd-tui resume ~/state/autograd-tui/runs/{path.name}"
    return f"a run of linear waits at frame {frame}; to go on with it: {resume}"


def test_nothing_waits_where_nothing_is_kept() -> None:
    assert interrupted_run() is None


@pytest.mark.parametrize("words", [LONG, SHORT])
def test_a_run_that_was_cut_off_is_named_by_its_journal(words: str) -> None:
    path = ran(words, when=1)
    assert interrupted_run() == sentence(path, 8 if words == LONG else 2)


def test_a_run_that_was_left_in_order_waits_for_nobody() -> None:
    ran(LONG, when=1)
    ran(LONG, when=2, left=True)
    assert interrupted_run() is None


@pytest.mark.parametrize("left", [True, False])
def test_a_few_keys_tried_since_do_not_hide_the_run_that_waits(left: bool) -> None:
    path = ran(LONG, when=1)
    ran(SHORT, when=2, left=left)
    ran(SHORT, when=3, left=left)
    assert interrupted_run() == sentence(path, 8)


def test_the_run_of_a_file_is_named_with_it(tmp_path: Path) -> None:
    path = ran(LONG, when=1)
    path.write_text(path.read_text().replace('"scenario": "linear"', '"scenario": "my model.py"'))
    assert str(interrupted_run()).endswith(f"{path.name} --scenario 'my model.py'")


def test_a_short_run_waits_where_no_longer_one_does() -> None:
    ran(LONG, when=1, left=True)
    path = ran(SHORT, when=2)
    assert interrupted_run() == sentence(path, 2)


def test_a_run_that_goes_on_elsewhere_does_not_wait() -> None:
    session = open_session("linear")
    session.observer = JournalWriter(next(new_journal_paths(session.about.config)), session.about, private=True)
    session.run("f")
    assert interrupted_run() is None


def test_a_state_folder_whose_name_is_a_pattern_keeps_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "[a]*?"))
    path = ran(LONG, when=1)
    assert list_journals() == [path]


def test_a_damaged_journal_hides_nothing_newer() -> None:
    ran(LONG, when=1).write_text("no journal")
    path = ran(SHORT, when=1 << 40)
    assert interrupted_run() == sentence(path, 2)


@pytest.mark.parametrize("text", ["no journal", "", '{"autograd-tui journal": 1, "started": 1e999}\n'])
def test_a_file_that_is_no_journal_hides_none_that_is_older(text: str) -> None:
    path = ran(SHORT, when=1)
    ran(LONG, when=2).write_text(text)
    path.with_name("nowhere.journal").symlink_to("nothing")
    assert interrupted_run() == sentence(path, 2)


def test_a_damaged_run_waits_to_be_salvaged() -> None:
    path = ran(LONG, when=1)
    with path.open("a") as file:
        file.write("x\n")
    assert interrupted_run() == sentence(path, 8) + " --salvage"


def test_a_path_is_spelled_as_a_shell_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "my state"))
    path = ran(SHORT, when=1)
    assert str(interrupted_run()).endswith(f"resume ~/'my state/autograd-tui/runs/{path.name}'")
    monkeypatch.setenv("HOME", "/nowhere")
    assert str(interrupted_run()).endswith(f"resume '{path}'")


def test_a_journal_without_a_line_yet_is_no_run_to_resume() -> None:
    path = ran(LONG, when=100)
    path.with_name("later.journal").touch()
    assert list_journals() == [path]


def test_many_runs_are_listed_with_one_look_into_their_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [ran(SHORT, when=when) for when in range(4)]
    for path in paths[1:]:
        path.with_name(f"{path.name}.frames").write_bytes(b'{"autograd-tui frames": 2}')
    rows = [journal_summary(path) for path in paths]
    listing = Mock(side_effect=os.listdir)
    monkeypatch.setattr(os, "listdir", listing)
    assert list(journal_summaries(paths)) == rows
    listing.assert_called_once_with(paths[0].parent)
