"""A run of a script is exported from the frames that are stored; nothing is run again for it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from autograd_tui.cli.program import main
from autograd_tui.core.command import Phase
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History
from autograd_tui.core.run_config import RunConfig
from autograd_tui.core.session_protocol import SessionInfo, StoredFramesSession
from autograd_tui.export.stored_run import StoredRun, export_from_session, export_stored
from autograd_tui.journal.frame_stream import frames_path
from autograd_tui.journal.writer import JournalWriter
from handmade_scripts import FOLDER, accumulated, history_of, simple

ABOUT = SessionInfo(
    "train.py",
    "cpu",
    0,
    RunConfig(f"{FOLDER}train.py", script=("train.py",)),
    listing={"setup": (), **{phase.value: () for phase in Phase}},
)


class Stored(StoredFramesSession):
    def __init__(self, frames: list[Frame], *, newest: int | None = None) -> None:
        self.about, self.history, self._stored = ABOUT, history_of(frames), frames
        self.newest = frames[-1].index if newest is None else newest

    def stored_frames(self) -> list[Frame]:
        return self._stored


def export(session: Stored, path: Path) -> str:
    return export_from_session(path, session, lambda: False)


def test_the_frames_that_are_stored_are_the_lines_of_a_file(tmp_path: Path) -> None:
    frames, path = accumulated(), tmp_path / "run.jsonl"
    assert export(Stored(frames), path) == f"written: {path}"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["index"] for line in lines] == [frame.index for frame in frames]
    assert "clip" in [line["command"] for line in lines]


def test_frames_that_are_not_there_are_counted(tmp_path: Path) -> None:
    frames, path = simple(), tmp_path / "run.csv"
    session = Stored([frames[2], *frames[4:6]], newest=999)
    sentence = "of 1,000 frames 3 are in it: those that are stored, from frame 2 to frame 5"
    assert export(session, path) == f"written: {path}; {sentence}"
    with path.open(newline="") as file:
        assert {int(row["frame"]) for row in csv.DictReader(file)} == {2, 4, 5}


def test_screens_are_drawn_of_what_is_stored(tmp_path: Path) -> None:
    frames = simple()[1:6]
    run = StoredRun(ABOUT, frames, history_of(frames), frames[-1].index)
    assert export_stored(tmp_path / "run.svg", run) == ""
    assert "optimizer.step" in (tmp_path / "run.svg").read_text().replace("&#160;", " ")
    note = export_stored(tmp_path / "run.html", run)
    assert note == "of 6 frames 5 are in it: those that are stored, from frame 1 to frame 5"
    assert "frame 3 of 5" in (tmp_path / "run.html").read_text()


def test_a_sample_of_screens_ends_with_the_last() -> None:
    frames = [replace(simple()[1], index=index) for index in range(10)]
    sample, note = StoredRun(ABOUT, frames, History(), 9).sample(4)
    assert sample == [1, 4, 6, 9]
    assert note == "4 of 10 screens are kept, evenly spaced."


def test_tensorboard_gets_the_losses_that_no_frame_has(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    frames = simple()
    history = History()
    for iteration in range(1, 50):
        history.loss.append(4 * iteration - 2, iteration, 1 / iteration)
    export_stored(tmp_path / "run.tb", StoredRun(ABOUT, frames, history, 400))
    read = events.EventAccumulator(str(tmp_path / "run.tb")).Reload()
    assert [event.step for event in read.Scalars("loss")] == list(range(1, 50))


@pytest.mark.parametrize("name", ["run.py", "run.pt", "run"])
def test_what_needs_the_run_itself_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused):
        export(Stored(simple()), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run.csv").write_text("mine")
    with pytest.raises(Refused, match=r"run\.csv exists: give another name"):
        export(Stored(simple()), tmp_path / "run.csv")
    assert (tmp_path / "run.csv").read_text() == "mine"


def kept(path: Path) -> None:
    """Keep a run of a script in a journal, with the frames that a screen drew."""
    writer, history = JournalWriter(path, ABOUT, private=True), History()
    for frame in simple():
        history.append(frame)
        if frame.index:
            writer.on_command(str(frame.command), frame)
        writer.on_shown(frame, frame.index, history)
        writer.on_idle()
    writer.close(in_order=True)


def test_a_journal_of_a_script_is_exported_from_the_frames_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, to = tmp_path / "train.journal", tmp_path / "run.jsonl"
    kept(path)
    assert main(["export", str(path), "--to", str(to)]) == 0
    lines = [json.loads(line)["index"] for line in to.read_text().splitlines()]
    last = simple()[-1].index
    assert lines == list(range(1, last + 1))
    sentence = f"of {last + 1} frames {last} are in it: those that are stored, from frame 1 to frame {last}"
    assert capsys.readouterr().err == f"autograd-tui: written: {to}; {sentence}\n"
    frames_path(path).unlink()
    assert main(["export", str(path), "--to", str(tmp_path / "again.jsonl")]) == 2
    assert f"there is no {frames_path(path)}" in capsys.readouterr().err
    assert not (tmp_path / "again.jsonl").exists()
