"""A run is exported from the screen while its session stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from app_screen import Screen, screen
from autograd_tui.export.formats import FORMATS
from autograd_tui.text.prompt.word_table import EXPORT_ENDINGS

GOES = """
import os
import torch
from autograd_tui import Parts, scenario

@scenario("goes")
def build(options):
    def forward(model, batch):
        os.chdir({elsewhere!r})
        return model(torch.ones(1, 1)).sum()

    return Parts(model=torch.nn.Linear(1, 1), batch=lambda i: (), forward=forward)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def say(shown: Screen, words: str) -> None:
    shown.app.main.prompt_actions.run(words)
    await shown.settle()


async def test_a_script_of_the_run_is_written_and_named() -> None:
    async with screen(do="fbszf") as shown:
        await say(shown, "export run.py")
        assert shown.note == "written: run.py"
        assert Path("run.py").read_text().count("loss.backward()") == 1


async def test_typed_at_the_prompt_it_is_written_too() -> None:
    async with screen(do="fbsz") as shown:
        await shown.press(*":export", "space", *"run", "full_stop", *"csv", "enter")
        assert Path("run.csv").read_text().startswith("frame,command,iteration,loss,lr,tensor,kind,stat,value")


@pytest.mark.parametrize(("name", "do"), [("run.py", "fbsz fb"), ("run.jsonl", "fbsz fb"), ("run.html", "f")])
async def test_training_goes_on_as_if_nothing_had_been_exported(name: str, do: str) -> None:
    async with screen(do=do) as shown, screen(do=do) as alone:
        await say(shown, f"export {name}")
        assert Path(name).exists()
        for each in (shown, alone):
            await say(each, "bsz fbsz f" if do == "f" else "sz fbsz f")
        assert shown.session.frame.same(alone.session.frame)


async def test_what_is_there_is_not_written_over() -> None:
    """The file may be the scenario's own, beside a repro, or a link that leads nowhere."""
    for name in ("run.py", "run.svg"):
        Path(name).write_text("mine")
    for name in ("link.csv", "link.svg"):
        Path(name).symlink_to("nowhere")
    async with screen() as shown:
        for name in ("run.py", "run.svg", "run.pt", "link.csv", "link.svg"):
            await say(shown, f"export {name}")
            await shown.settle()
            assert shown.note == f"{name.replace('.pt', '.py')} exists: give another name."
    assert [each.read_text() for each in Path().glob("run.*")] == ["mine", "mine"]
    assert not Path("nowhere").exists()


async def test_a_picture_is_of_this_screen() -> None:
    async with screen(do="fb") as shown:
        await say(shown, "export run.svg")
        assert shown.note == "written: run.svg"
        assert "frame&#160;2&#160;of&#160;2" in Path("run.svg").read_text()


async def test_an_ending_that_nothing_is_written_in_is_refused_at_once() -> None:
    async with screen() as shown:
        await say(shown, "export run.doc")
        assert shown.note == '"export run.doc" needs one of these endings: .py, .csv, .jsonl, .svg, .html, .tb, .pt.'


def test_the_words_know_every_form_that_there_is() -> None:
    assert sorted(EXPORT_ENDINGS) == sorted(FORMATS)


async def test_what_a_model_that_goes_to_another_folder_lets_be_written_is_written_where_the_program_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, elsewhere = tmp_path / "start", tmp_path / "elsewhere"
    start.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(start)
    (start / "goes.py").write_text(GOES.format(elsewhere=str(elsewhere)))
    async with screen("goes.py", do="fbsz f") as shown:
        assert Path.cwd() == elsewhere
        for name in ("run.csv", "run.svg", "repro.pt"):
            await say(shown, f"export {name}")
            assert shown.note.startswith(f"written: {name}")
        await shown.press("e")
        assert shown.note.startswith("written: autograd-tui_")
        assert "goes.py" in str(shown.app.main.prompt_actions.offer("model ")[1])
    assert sorted(each.suffix for each in start.iterdir()) == [".csv", ".pt", ".py", ".py", ".svg", ".svg", ".txt"]
    assert list(elsewhere.iterdir()) == []
