"""The journal of a script's run: what it says, who reads it, and what is refused of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from autograd_tui.cli.program import main
from autograd_tui.core.command import Command, Phase
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.run_config import RunConfig
from autograd_tui.core.session_protocol import SessionInfo
from autograd_tui.engine.script.script_session import ScriptSession
from autograd_tui.journal.followed_session import FollowedSession
from autograd_tui.journal.interrupted import interrupted_run, journal_summary
from autograd_tui.journal.reader import read_journal
from autograd_tui.journal.writer import JournalWriter
from handmade_scripts import gan, simple

LISTING = {"setup": (), **{phase.value: () for phase in Phase}}
SCRIPT = Path(__file__).parent.parent / "support" / "scripts" / "plain.py"


@dataclass
class Run:
    """A script's run to its end: some stops, a free run of some iterations, some stops, and a free run."""

    path: Path
    about: SessionInfo
    frames: list[Frame] = field(default_factory=list)
    log: str = ""
    followed: list[Frame | None] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("kept") / "plain.journal"
    session = ScriptSession((str(SCRIPT), "--epochs", "300", ""), on_output=lambda _: None)
    session.observer = writer = JournalWriter(path, session.about, private=True)
    made = Run(path, session.about)

    def show(frame: Frame) -> None:
        made.frames.append(frame)
        writer.on_shown(frame, session.newest, session.history)
        writer.on_idle()

    show(session.frame)
    for _ in range(6):
        show(session.run(session.next_command()))
    following = FollowedSession(path)
    for frame in session.run_free(session.end_of(90), lambda: False, every=0.25):
        show(frame)
    for _ in range(3):
        show(session.run(session.next_command()))
    following.refresh()
    made.followed = [following.stored(frame.index) for frame in made.frames]
    made.notices.append(following.notice)
    with pytest.raises(Refused, match="has ended after 1,200 events"):
        list(session.run_free(Goal(), lambda: False, every=0.25))
    made.log = str(session.log())
    session.close(in_order=True)
    following.refresh()
    made.notices.append(following.notice)
    return made


def test_a_journal_says_what_script_it_was_of(run: Run) -> None:
    config = read_journal(run.path).config
    assert config.scenario == str(SCRIPT)
    assert config.script == (str(SCRIPT), "--epochs", "300", "")
    assert config.sha256 == hashlib.sha256(SCRIPT.read_bytes()).hexdigest()
    assert {"autograd-tui", "python", "torch"} <= config.versions.keys()
    assert config.folder == str(Path.cwd())


def test_a_journal_has_a_line_for_each_stop_and_counts_what_a_free_run_did_not_show(run: Run) -> None:
    journal = read_journal(run.path)
    assert journal.damage is None
    commands = [entry.command for entry in journal.entries]
    assert commands[:6] == ["z", "f", "b", "s", "z", "f"]
    behind_the_first_run = commands[6:]  # both free runs take more lines on a machine under load
    assert ["f", "b", "s"] in [behind_the_first_run[start : start + 3] for start in range(len(behind_the_first_run))]
    assert journal.frame == 1200
    assert len(journal.log()) == 1200
    assert str(journal.log()) == run.log
    assert "next*" in run.log
    assert journal.left is not None


def test_a_script_is_followed_frame_by_frame(run: Run) -> None:
    assert run.followed[0] is None  # nothing is written before the first call
    for frame, followed in zip(run.frames[1:], run.followed[1:], strict=True):
        assert followed is not None
        assert followed.same(frame)
        assert followed.script == frame.script
    assert run.notices[0].startswith("following another terminal")
    assert run.notices[1] == f"the terminal that led this script has left it: {run.about.command_line} runs it anew"


def test_a_follower_of_a_script_finds_the_same_call_before(run: Run) -> None:
    following = FollowedSession(run.path)
    before = following.look_alike(6, -1)
    assert before is not None
    assert (before.index, before.command) == (2, Command("forward"))
    assert following.can.script
    assert not following.can.export


@pytest.mark.parametrize("words", [["resume"], ["replay", "--headless", "--check"]])
def test_what_is_run_anew_is_said(run: Run, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([words[0], str(run.path), *words[1:]]) == 2
    line = f"autograd-tui script {SCRIPT} --epochs 300 ''"
    assert (
        capsys.readouterr().err
        == f"autograd-tui: {run.path} is of a script, which is run anew in {Path.cwd()}: {line}\n"
    )


def test_sessions_name_a_script_by_its_words(run: Run, tmp_path: Path) -> None:
    assert " script " in journal_summary(run.path)
    config = replace(run.about.config, script=("train.py", "--lr", "0.1"))
    writer = JournalWriter(tmp_path / "train.journal", replace(run.about, config=config), private=True)
    writer.on_command("f", run.frames[1])
    writer.close(in_order=True)
    assert "  script train.py --lr 0.1  " in journal_summary(tmp_path / "train.journal")


def test_a_script_that_was_cut_off_waits_for_nobody(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = tmp_path / "autograd-tui" / "runs"
    folder.mkdir(parents=True)
    lines = run.path.read_bytes().splitlines(keepends=True)[:-1]
    (folder / "cut-off.journal").write_bytes(b"".join(lines))
    assert interrupted_run() is None


def test_a_follower_begins_anew_where_a_script_has_come_to_one_more_model(tmp_path: Path) -> None:
    first, second, more = *simple()[:2], gan()[2]
    about = SessionInfo("gan.py", "cpu", 0, RunConfig("gan.py", script=("gan.py",)), listing=LISTING)
    writer, history = JournalWriter(tmp_path / "gan.journal", about, private=True), History()
    following: FollowedSession | None = None
    for frame in (first, second, more):
        if frame is more:
            history = History(history.loss)
        history.append(frame)
        if frame.index:
            writer.on_command(str(frame.command), frame)
        writer.on_shown(frame, frame.index, history)
        writer.on_idle()
        following = following or (FollowedSession(tmp_path / "gan.journal") if frame.index else None)
    assert following is not None
    following.refresh()
    assert following.damage is None
    assert following.frame.same(more)
    writer.close(in_order=True)


def test_what_a_script_raised_in_a_free_run_stands_in_a_line_of_its_own(tmp_path: Path) -> None:
    path, crash = tmp_path / "crash.journal", SCRIPT.with_name("crash.py")
    session = ScriptSession((str(crash),), on_output=lambda _: None)
    session.observer = JournalWriter(path, session.about, private=True)
    frames = list(session.run_free(Goal(), lambda: False, every=0.25))
    session.close(in_order=True)
    journal = read_journal(path)
    assert journal.damage is None
    assert frames[-1].error is not None
    assert journal.entries[-1].error == frames[-1].error
    assert journal.frame == frames[-1].index
