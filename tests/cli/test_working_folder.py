"""Code of a scenario that goes to another folder takes no name of ours with it, nor does one that is removed."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from autograd_tui.cli import running as cli_running
from autograd_tui.core.errors import Refused
from autograd_tui.engine.open_session import open_session
from autograd_tui.export.live_export import export_live
from autograd_tui.journal.reader import read_journal
from program import Run

WANDERER = """
import os
from pathlib import Path
import torch
from autograd_tui import File, Parts, scenario

def go(place):
    if place == {place!r}:
        os.chdir({elsewhere!r})

go("import")

@scenario("wanderer", points=File())
def build(options):
    own = float(Path("own.csv").read_text()) if {place!r} != "import" else 1.0  # from where the program was started
    go("build")
    x = torch.full((1, 1), own + float(Path(options.points or {elsewhere!r} + "/one").read_text()))

    def forward(model, batch):
        go("forward")
        return model(x).sum()

    return Parts(model=torch.nn.Linear(1, 1), batch=lambda i: (), forward=forward)
"""
PLAIN = """
import os
from pathlib import Path
import torch
model = torch.nn.Linear(1, 1)
inputs = torch.full((1, 1), float(Path("own.csv").read_text()))
targets = torch.ones(1, 1)
loss = torch.nn.functional.mse_loss
optimizer = "sgd,lr=0.1"
os.chdir({elsewhere!r})
"""
REMOVES = """
import os
import torch
from autograd_tui import Parts, scenario

@scenario("removes")
def build(options):
    def forward(model, batch):
        if os.path.isdir("../gone"):
            os.rmdir("../gone")
        return model(torch.ones(1, 1)).sum()

    return Parts(model=torch.nn.Linear(1, 1), batch=lambda i: (), forward=forward)
"""
PLACES = ["import", "build", "forward"]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with data of a scenario's own, beside one to go to."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    start, elsewhere = tmp_path / "start", tmp_path / "elsewhere"
    for each in (start, elsewhere):
        each.mkdir()
    (elsewhere / "one").write_text("1")
    (start / "own.csv").write_text("2")
    (start / "points.csv").write_text("3")
    (start / "plain.py").write_text(PLAIN.format(elsewhere=str(elsewhere)))
    for place in PLACES:
        (start / f"{place}.py").write_text(WANDERER.format(place=place, elsewhere=str(elsewhere)))
    torch.save({"weight": torch.ones(1, 1), "bias": torch.ones(1)}, start / "state.pt")
    monkeypatch.chdir(start)
    return start


def left(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


@pytest.mark.parametrize("place", PLACES)
def test_all_names_are_meant_from_where_the_program_was_started(
    run: Run, start: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def done(*words: str) -> list[str]:
        monkeypatch.chdir(start)
        found = run(*words)
        assert found.code == 0, found.err
        return found.out

    named = ["--option", "points=points.csv", "--state", "state.pt", "--memory", "1"]  # going back builds it anew
    done(f"{place}.py", "--headless", "--do", "fbsz*2 @0 fbsz", "--journal", "run.journal", *named)
    again = ["run.journal", "--scenario", f"{place}.py", "--allow-files"]
    done("resume", *again, "--headless", "--do", "f")
    assert done("replay", *again, "--headless", "--check") == [f"{start}/run.journal: all 14 lines agree."]
    done("export", *again, "--to", "run.csv")
    assert {"run.journal", "run.csv"} <= set(left(start))
    assert left(start.parent / "elsewhere") == ["one"]


@pytest.mark.parametrize("name", ["build.py", "forward.py", "import.py", "plain.py"])
def test_an_export_beside_a_run_opens_it_from_where_that_was_opened(start: Path, name: str) -> None:
    session = open_session(name, **({} if name == "plain.py" else {"points": "points.csv"}))  # type: ignore[arg-type]
    list(session.run_all("fbsz f"))
    there = Path.cwd()
    assert there == start.parent / "elsewhere"
    assert export_live(Path("run.csv"), session, lambda: False, folder=str(start)) == "written: run.csv"
    assert (start / "run.csv").exists()
    assert Path.cwd() == there
    with pytest.raises(Refused, match=r"^run\.csv exists: give another name"):
        export_live(Path("run.csv"), session, lambda: False, folder=str(start))


def test_the_line_that_repeats_a_run_names_files_as_the_user_did(start: Path) -> None:
    session = open_session("forward.py", points="points.csv", state="state.pt")
    session.run("f")
    assert session.command_line() == "autograd-tui forward.py --state state.pt --option points=points.csv --do f"


def test_another_scenario_is_opened_from_where_the_program_was_started(start: Path) -> None:
    first = open_session("build.py")
    options = argparse.Namespace(no_journal=True)
    there = Path.cwd()
    with pytest.raises(Refused, match="there is no file"):
        cli_running._open_another("none.py", options, str(start))
    assert Path.cwd() == there  # the first one goes on as it was
    first.run("f")
    assert cli_running._open_another("forward.py", options, str(start)).run("f").loss is not None


@pytest.mark.parametrize("already", [False, True])
def test_a_folder_that_is_removed_raises_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, already: bool
) -> None:
    (tmp_path / "removes.py").write_text(REMOVES)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    if already:
        (tmp_path / "gone").rmdir()
    words = ["--headless", "--do", "fbsz*2 @0 f", "--memory", "1", "--journal", f"{tmp_path}/run.journal"]
    done = run(f"{tmp_path}/removes.py", *words)
    assert done.code == 0, done.err
    said = "autograd-tui: this folder has been removed: names of files are meant from / now."
    assert (said in done.err) is already
    assert not (tmp_path / "gone").exists()
    assert len(read_journal(tmp_path / "run.journal").entries) == 10
