"""The journal of a script's run that went back, took another way, and returned to the first one: read back."""

from __future__ import annotations

import csv
import json
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from autograd_tui.cli.program import main
from autograd_tui.core.command import parse_one
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.phase_order import Goal
from autograd_tui.engine.script.script_session import ScriptSession
from autograd_tui.journal.entry import frame_digest
from autograd_tui.journal.followed_session import FollowedSession
from autograd_tui.journal.interrupted import journal_summary
from autograd_tui.journal.reader import Journal, read_journal
from autograd_tui.journal.writer import JournalWriter

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="scripts go back on Linux alone")

LOOP = """
import torch
torch.manual_seed(0)
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for number in range(30):
    loss = (model(torch.randn(4, 3)) - 1).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""


@dataclass
class Kept:
    path: Path
    stands: list[tuple[str, int, str]] = field(default_factory=list)  # what was asked, the frame, the calls up to it
    log: str = ""  # all calls of the branch that it ended on
    frames: list[Frame] = field(default_factory=list)  # where it stood then
    followed: list[Frame] = field(default_factory=list)
    entries: list[int] = field(default_factory=list)  # lines of the journal by then
    stored: list[Frame] = field(default_factory=list)
    notice: str = ""

    @property
    def journal(self) -> Journal:
        return read_journal(self.path)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    folder = tmp_path_factory.mktemp("back")
    (folder / "train.py").write_text(LOOP)
    session = ScriptSession((str(folder / "train.py"),), on_output=lambda _: None)
    made = Kept(folder / "train.journal")
    session.observer = writer = JournalWriter(made.path, session.about, private=True)
    following: FollowedSession | None = None

    def show(frame: Frame) -> None:
        writer.on_shown(frame, session.newest, session.history)

    def stand(asked: str) -> None:
        nonlocal following
        writer.on_free_run_end()
        writer.on_idle()
        following = following or FollowedSession(made.path)
        following.refresh()
        made.followed.append(following.frame)
        made.frames.append(session.frame)
        made.stands.append((asked, session.frame.index, str(session.log().up_to(session.frame.index))))
        made.log = str(session.log())
        made.entries.append(len(made.journal.entries))

    def ask(*words: str) -> None:
        for word in words:
            show(session.run(session.next_command() if word == "next" else parse_one(word)))
        stand(" ".join(words))

    ask(*["next"] * 14)
    ask("undo")
    ask("@7")
    ask("next")  # of those that were there before
    ask("lr=0")
    ask(*["next"] * 5)
    ask("undo", "undo")
    ask("branch=1")
    ask("undo")
    ask("branch=2")
    for frame in session.run_free(session.end_of(4), bool, every=30.0):
        show(frame)
    stand("four iterations")
    ask("@5")
    with suppress(Refused):  # since it has ended
        for frame in session.run_free(Goal(), bool, every=30.0):
            show(frame)
    stand("to the end")
    ask("@20")
    made.stored = session.stored_frames()
    session.close(in_order=True)
    assert following is not None
    following.refresh()
    made.notice = following.notice
    return made


def test_the_journal_is_whole_and_ends_where_the_script_stood(kept: Kept) -> None:
    journal = kept.journal
    assert journal.damage is None
    assert (journal.frame, journal.left is not None) == (20, True)
    assert journal.entries[-1].command == "@20"
    assert str(journal.log(journal.branch_tip)) == kept.log


def test_each_line_knows_the_way_to_it(kept: Kept) -> None:
    """What the journal says up to a line is what the session knew then."""
    journal = kept.journal
    for (asked, index, log), lines, frame in zip(kept.stands, kept.entries, kept.frames, strict=True):
        entry = journal.entries[lines - 1]
        assert journal.end_frames[lines - 1] == index, asked
        assert str(journal.log(entry)) == log, asked
        assert entry.digest == frame_digest(frame), asked


def test_who_follows_stands_where_the_script_does(kept: Kept) -> None:
    for (asked, *_), frame, followed in zip(kept.stands, kept.frames, kept.followed, strict=True):
        assert followed.same(frame), asked
        assert followed.script == frame.script, asked
    assert kept.notice.startswith("the terminal that led this script has left it")


def test_sessions_and_exports_read_it(kept: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert " script " in journal_summary(kept.path)
    for name in ("run.jsonl", "run.csv"):
        assert main(["export", str(kept.path), "--to", str(tmp_path / name)]) == 0, capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    with (tmp_path / "run.csv").open(newline="") as file:
        rows = {int(row["frame"]) for row in csv.DictReader(file)}
    indices = [line["index"] for line in lines]
    assert indices == sorted(set(indices))
    assert rows == set(indices)
    by_index = {frame.index: frame for frame in kept.stored}
    for line in lines:
        if line["index"] in by_index:
            assert line["loss"] == by_index[line["index"]].plain()["loss"]
            assert line["params"] == by_index[line["index"]].plain()["params"]
