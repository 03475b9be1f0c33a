"""An export is whole or not there, in the form that its ending names, and over nothing without being told."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.stats_reader import StatsReader, TensorGroup
from autograd_tui.export.formats import FORMATS, PictureOptions, export_file, frame_rows


@pytest.fixture(scope="module")
def run() -> tuple[Session, list[Frame]]:
    session = open_session("linear", optimizer="adam")
    first = session.frame
    return session, [first, *session.run_all("fbB lr=0.5 szfbsz")]


def export(path: Path, session: Session, *, overwrite: bool = False, looks: PictureOptions | None = None) -> str:
    reopen = lambda: open_session("linear", optimizer="adam")  # noqa: E731
    return export_file(path, session.about.config, session.log(), reopen, overwrite=overwrite, options=looks)


def test_an_unknown_ending_is_refused_with_those_there_are(run: tuple[Session, list[Frame]], tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"\.py, \.csv, \.jsonl, \.svg, \.html, \.tb, \.pt are known"):
        export(tmp_path / "run.docx", run[0])


@pytest.mark.parametrize("ending", FORMATS)
def test_what_is_there_is_not_written_over(ending: str, run: tuple[Session, list[Frame]], tmp_path: Path) -> None:
    path = tmp_path / f"run{ending}"
    path.write_text("mine")
    with pytest.raises(Refused, match="exists: --force writes over it"):
        export(path, run[0])
    assert path.read_text() == "mine"


def test_it_is_written_over_when_told(run: tuple[Session, list[Frame]], tmp_path: Path) -> None:
    path = tmp_path / "run.py"
    path.write_text("mine")
    export(path, run[0], overwrite=True)
    assert "loss.backward()" in path.read_text()


@pytest.mark.parametrize("target", ["mine.py", "folder/../mine.py", "link.py", "hard.py", "mine.pt", "link.pt"])
@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"scenario": "mine.py:net"}, "the scenario's own file"),
        ({"arguments": {"state": "mine.py"}}, "the file given as state"),
        ({"own": {"image": "mine.py"}}, "the file given as image"),
    ],
)
def test_no_file_that_the_run_is_made_of_is_written_over_though_told(
    target: str,
    fields: dict[str, Any],
    what: str,
    run: tuple[Session, list[Frame]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A repro, `.pt`, writes a script beside it."""
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("mine.py").write_text("mine")
    Path("link.py").symlink_to("mine.py")
    Path("hard.py").hardlink_to("mine.py")
    config = replace(run[0].about.config, **fields)
    with pytest.raises(Refused, match=f"py is {what}, which is never written over: give another name"):
        export_file(Path(target), config, run[0].log(), lambda: pytest.fail("it is run"), overwrite=True)
    assert {each.read_text() for each in Path().glob("*.*")} == {"mine"}


def test_the_journal_that_tells_the_run_is_not_written_over(run: tuple[Session, list[Frame]], tmp_path: Path) -> None:
    journal = tmp_path / "run.csv"
    journal.write_text("a journal")
    with pytest.raises(Refused, match="is the run's journal, which is never written over"):
        export_file(journal, run[0].about.config, run[0].log(), lambda: run[0], overwrite=True, journal=journal)
    assert journal.read_text() == "a journal"


def test_the_script_beside_a_repro_is_written_over_only_when_told(
    run: tuple[Session, list[Frame]], tmp_path: Path
) -> None:
    (tmp_path / "fault.py").write_text("mine")
    with pytest.raises(Refused, match=r"fault\.py exists: --force writes over it"):
        export_file(tmp_path / "fault.pt", run[0].about.config, run[0].log(), lambda: pytest.fail("it is run"))
    assert [each.read_text() for each in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("ending", [".csv", ".tb"])
def test_a_link_is_written_over_and_what_it_leads_to_stays(
    ending: str, run: tuple[Session, list[Frame]], tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "there").write_text("mine")
    link = tmp_path / f"run{ending}"
    for leads_to in ("there", "nowhere"):
        link.symlink_to(leads_to)
        with pytest.raises(Refused, match="exists: --force writes over it"):
            export(link, run[0])
        export(link, run[0], overwrite=True)
        assert not link.is_symlink()
        link.unlink() if link.is_file() else shutil.rmtree(link)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("there", "mine")]


def test_a_pipe_in_the_way_is_named(run: tuple[Session, list[Frame]], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.csv")
    with pytest.raises(Refused, match=r"run\.csv is a pipe, and no file: give another name"):
        export(tmp_path / "run.csv", run[0], overwrite=True)


def test_a_folder_with_other_things_is_left_alone(run: tuple[Session, list[Frame]], tmp_path: Path) -> None:
    (tmp_path / "run.tb").mkdir()
    (tmp_path / "run.tb" / "thesis.txt").write_text("mine")
    with pytest.raises(Refused, match="a folder with other things"):
        export(tmp_path / "run.tb", run[0], overwrite=True)


def test_a_full_disk_leaves_nothing_half_written(
    run: tuple[Session, list[Frame]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: BinaryIO, frames: object) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("autograd_tui.export.formats.write_csv", full)
    with pytest.raises(Refused, match=r"run\.csv could not be written: No space left on device\."):
        export(tmp_path / "run.csv", run[0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.usefixtures("full_disk")
def test_no_form_of_export_is_a_traceback_on_a_full_disk(
    ending: str, run: tuple[Session, list[Frame]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Refused, match=r"run\.\w+ could not be written: File too large\.") as refused:
        export(tmp_path / f"run{ending}", run[0])
    assert "\n" not in str(refused.value)
    assert (list(tmp_path.iterdir()), *capfd.readouterr()) == ([], "", "")


def test_a_folder_that_is_not_there_is_named(run: tuple[Session, list[Frame]], tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no folder"):
        export(tmp_path / "nowhere" / "run.py", run[0])


def test_json_lines_are_the_frames(run: tuple[Session, list[Frame]], tmp_path: Path) -> None:
    export(tmp_path / "run.jsonl", run[0])
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    wanted = [json.loads(json.dumps(frame.plain())) for frame in run[1]]
    assert [line | {"seconds": 0} for line in lines] == [frame | {"seconds": 0} for frame in wanted]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_last_row_about_a_number_says_what_it_is_at_each_frame(
    run: tuple[Session, list[Frame]], tmp_path: Path
) -> None:
    session, frames = run
    export(tmp_path / "run.csv", session)
    rows = table(tmp_path / "run.csv")
    for frame in frames:
        known = {
            (row["tensor"], row["kind"], row["stat"]): float(row["value"])
            for row in rows
            if int(row["frame"]) <= frame.index and row["stat"] != "raised"
        }
        for name, grad in zip(frame.params.layout.names, frame.grads, strict=True):
            assert known[name, "parameter", "value 0"] == frame.params.named(name).values[0]  # type: ignore[index, union-attr]
            assert known[name, "gradient", "backwards"] == (grad.backwards if grad else 0)
            assert grad is None or known[name, "gradient", "value 0"] == grad.values[0]  # type: ignore[index]
        for row in frame.optimizer_state:
            assert known[row.name, "state", "norm"] == row.norm


def test_each_row_of_the_table_tells_its_frame(run: tuple[Session, list[Frame]], tmp_path: Path) -> None:
    session, frames = run
    export(tmp_path / "run.csv", session)
    heads = {tuple(list(row.values())[:5]) for row in table(tmp_path / "run.csv")}
    assert heads == {
        (
            str(frame.index),
            str(frame.command or ""),
            str(frame.iteration),
            "" if frame.loss is None else repr(frame.loss),
            repr(frame.learning_rate),
        )
        for frame in frames
    }


def test_the_table_says_what_was_raised(run: tuple[Session, list[Frame]], tmp_path: Path) -> None:
    export(tmp_path / "run.csv", run[0])
    (raised,) = [row for row in table(tmp_path / "run.csv") if row["stat"] == "raised"]
    assert raised["command"] == "B"
    assert raised["value"].startswith("RuntimeError: Trying to backward through the graph a second time")


def test_tensorboard_reads_losses_and_histograms(run: tuple[Session, list[Frame]], tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    export(tmp_path / "run.tb", run[0])
    read = events.EventAccumulator(str(tmp_path / "run.tb"), {"histograms": 0}).Reload()  # all of them
    losses = [(frame.iteration, frame.loss) for frame in run[1] if frame.phase == "forward"]
    assert [(each.step, each.value) for each in read.Scalars("loss")] == losses
    assert [each.value for each in read.Scalars("learning rate")] == pytest.approx([0.1, 0.5])
    assert len(read.Histograms("parameter/w")) == 4  # at the start, when lr was set, after each of two steps


def test_without_tensorboard_one_sentence_says_what_to_install(
    run: tuple[Session, list[Frame]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(Refused, match="pip install tensorboard"):
        export(tmp_path / "run.tb", run[0])
    assert list(tmp_path.iterdir()) == []


def test_a_picture_shows_the_frame_asked_for(run: tuple[Session, list[Frame]], tmp_path: Path) -> None:
    export(tmp_path / "run.svg", run[0], looks=PictureOptions(frame=1, size=(80, 24)))
    drawn = (tmp_path / "run.svg").read_text()
    assert "frame&#160;1&#160;of&#160;1" in drawn
    assert "http" not in drawn.replace("http://www.w3.org/2000/svg", "").replace("https://www.textualize.io", "")


def test_a_picture_of_a_frame_that_is_not_there_is_refused(run: tuple[Session, list[Frame]], tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no frame 99: the newest is frame 10"):
        export(tmp_path / "run.svg", run[0], looks=PictureOptions(frame=99))


@pytest.mark.parametrize("ending", ["svg", "html"])
def test_a_screen_shows_what_the_model_has_learned(ending: str, tmp_path: Path) -> None:
    session = open_session("transformer")
    for _ in session.run_all("fbsz*2"):
        pass
    reopen = lambda: open_session("transformer")  # noqa: E731
    export_file(tmp_path / f"run.{ending}", session.about.config, session.log(), reopen)
    drawn = (tmp_path / f"run.{ending}").read_text().replace("&#160;", " ")
    assert "after 2 steps" in drawn
    assert "written  " in drawn
    assert "is being taken" not in drawn


@pytest.mark.parametrize("sampled_range", [True, False])
def test_the_table_marks_what_is_of_a_sample(sampled_range: bool, run: tuple[Session, list[Frame]]) -> None:
    tensors = {"small": torch.ones(3), "large": torch.arange(2000.0)}
    group = TensorGroup(tensors, sampled_range=sampled_range)
    frame = replace(run[1][0], params=StatsReader().read({"params": group})["params"])
    marked = [(name, stat) for name, _, stat, _ in frame_rows(frame, run[1][0]) if "sampled" in stat]
    assert marked == [("large", "sampled"), ("large", "range_sampled")][: 1 + sampled_range]
