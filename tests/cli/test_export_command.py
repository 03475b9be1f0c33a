"""The command line of an export says what was written, and refuses in one sentence."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from autograd_tui.cli import export as cli_export
from autograd_tui.cli.export import add_export_arguments, run_export
from autograd_tui.core.errors import Refused
from autograd_tui.engine.open_session import open_session


def export(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_export_arguments(parser)
    session = open_session("linear")
    list(session.run_all("fbsz"))
    reopen = lambda: open_session("linear")  # noqa: E731
    return run_export(parser.parse_args(words), session.about.config, session.log(), reopen)


def test_it_writes_the_file_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export("--to", str(tmp_path / "run.py")) == 0
    assert "iteration 1" in (tmp_path / "run.py").read_text()
    assert capsys.readouterr().err == f"autograd-tui: written: {tmp_path / 'run.py'}\n"


def test_a_long_export_says_how_far_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_export, "PROGRESS_INTERVAL", 0.0)
    export("--to", str(tmp_path / "run.jsonl"))
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "autograd-tui: frame 1 of 4"
    assert said[-2:] == ["autograd-tui: frame 4 of 4", f"autograd-tui: written: {tmp_path / 'run.jsonl'}"]


def test_force_writes_over_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run.py"
    path.write_text("mine")
    with pytest.raises(Refused, match="--force writes over it"):
        export("--to", str(path))
    export("--to", str(path), "--force")
    assert path.read_text() != "mine"


@pytest.mark.parametrize("size", ["120", "120x", "ax40", "5x5", "9999x40"])
def test_a_size_that_makes_no_sense_is_refused(size: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=f"--size {size}"):
        export("--to", str(tmp_path / "run.svg"), "--size", size)


def test_a_size_that_no_terminal_has_is_refused_with_the_range(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="--size 100000x100000: columns and rows must lie between 20 and 500"):
        export("--to", str(tmp_path / "run.svg"), "--size", "100000x100000")


def test_a_size_and_a_frame_are_those_of_the_picture(tmp_path: Path) -> None:
    export("--to", str(tmp_path / "run.svg"), "--size", "60x24", "--frame", "2", "--theme", "light")
    assert "frame&#160;2&#160;of&#160;2" in (tmp_path / "run.svg").read_text()


def test_an_unknown_theme_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="theme"):
        export("--to", str(tmp_path / "run.svg"), "--theme", "lihgt")
