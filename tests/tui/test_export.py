"""A run is exported from the screen while its session stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from app_screen import Screen, screen

from autograd_tui.export.file import WRITERS
from autograd_tui.text.screen_word import EXPORTS


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def say(shown: Screen, words: str) -> None:
    shown.app.main.run_words(words)
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
    """The file may be the scenario's own, beside a case, or a link that leads nowhere."""
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
    assert sorted(EXPORTS) == sorted(WRITERS)
