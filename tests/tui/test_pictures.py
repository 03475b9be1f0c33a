"""The picture of what a model has learned, on the screen."""

from __future__ import annotations

from pathlib import Path

import pytest

from app_screen import Screen, screen
from autograd_tui.engine import picture_taker
from autograd_tui.tui.panels.batch import PicturePanel

SIZES = [(200, 60), (120, 40), (80, 24)]
TITLES = {
    "spiral": "o spiral 0   x spiral 1   ",
    "lstm": "o truth   x predicted   * continued   ",
    "transformer": "bold: as truth   ",
}


@pytest.fixture(autouse=True)
def with_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a picture take as long as a busy machine needs; one that takes too long is a test of its own."""
    monkeypatch.setattr(picture_taker, "MAX_SECONDS", 100)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("scenario", TITLES)
async def test_a_small_network_shows_what_it_has_learned(scenario: str, size: tuple[int, int]) -> None:
    async with screen(scenario, size=size) as shown:
        panel = shown.app.main.query_one(PicturePanel)
        await shown.until(lambda: bool(shown.app.main.view.pictures))
        await shown.settle()
        assert panel.content_size.height >= 5
        if (scenario, size) != ("spiral", (80, 24)):  # where which class is which needs the room
            assert str(panel.border_title).endswith(("before the first step", "step 0"))
        before = shown.text("PicturePanel")
        assert len([line for line in before.splitlines() if line.strip()]) >= 3
        await shown.press("1", "0", "n")
        if size[0] > 80 or scenario == "spiral":
            assert TITLES[scenario].rstrip() in str(panel.border_title)
        if (scenario, size) != ("spiral", (80, 24)):
            assert str(panel.border_title).endswith(("after 10 steps", "step 10"))


async def test_a_picture_of_text_takes_the_rows_that_it_has_and_no_more() -> None:
    async with screen("transformer", size=(200, 60)) as shown:
        panel = shown.app.main.query_one(PicturePanel)
        await shown.until(lambda: bool(shown.app.main.view.pictures))
        await shown.settle()
        rows = shown.text("PicturePanel").splitlines()
        assert panel.content_size.height == len(rows)
        assert rows[0].strip()
        assert rows[-1].strip()


async def test_beside_a_picture_in_a_lecture_halls_size_the_table_has_every_layer() -> None:
    async with screen("transformer", size=(80, 24), do="fb") as shown:
        table = shown.text("TablePanel")
        assert all(layer in table for layer in ("layer", "characters", "positions", "layers", "head"))


MINE = """
import time
from torch import nn, ones
from autograd_tui import Parts, scenario

@scenario("mine")
def mine(options):
    x = ones(4, 1)
    def my_rows(model):
        LINE
    return Parts(model=nn.Linear(1, 1), batch=lambda i: (x, 2 * x), loss=nn.functional.mse_loss, picture=my_rows)
"""


def written(tmp_path: Path, line: str) -> str:
    source = tmp_path / "mine.py"
    source.write_text(MINE.replace("LINE", line))
    return str(source)


def first_row(shown: Screen) -> str:
    """Return the first row of the picture."""
    return shown.text("PicturePanel").splitlines()[0]


async def test_a_users_rows_are_shown_under_the_name_of_the_function(tmp_path: Path) -> None:
    async with screen(written(tmp_path, "return ['[bold]one', '\\x1b[2Jtwo']")) as shown:
        assert shown.text("PicturePanel").splitlines()[:2] == ["[bold]one", "two"]
        assert shown.app.main.query_one(PicturePanel).border_title == "My rows   before the first step"


@pytest.mark.parametrize("line", ["raise ValueError('[mine]')", "return None", "print('x' * 500)", "1 / 0"])
async def test_what_goes_wrong_in_it_is_a_sentence_and_training_goes_on(tmp_path: Path, line: str) -> None:
    async with screen(written(tmp_path, line), do="fbsz") as shown:
        assert shown.text("PicturePanel").startswith("picture= ")
        await shown.press("n")
        assert shown.session.frame.steps == 2
        assert not shown.app.main.view.printed


async def test_a_key_interrupts_one_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_taker, "MAX_SECONDS", 0.05)
    async with screen(written(tmp_path, "while True: pass")) as shown:
        assert "picture= was interrupted: it had not ended after 0.05" in shown.text("PicturePanel")
        monkeypatch.setattr(picture_taker, "MAX_SECONDS", 1_000)
        for steps in (1, 2, 3):
            await shown.pilot.press("n")
            await shown.until(lambda steps=steps: shown.session.frame.steps == steps, seconds=20)  # type: ignore[misc]
        await shown.until(lambda: shown.note.startswith("the picture is drawn: "), seconds=20)
        await shown.pilot.press("ctrl+c")
        await shown.settle()
        assert shown.app.is_running
        assert shown.app.main.trainer.status.idle


async def test_looking_back_shows_that_frames_picture(tmp_path: Path) -> None:
    async with screen(written(tmp_path, "return f'{model.weight.item():.6f}'")) as shown:
        first = first_row(shown)
        await shown.press("n", "n")
        assert first_row(shown) != first
        await shown.press("<")
        assert first_row(shown) == first
        await shown.press(">")
        assert first_row(shown) != first


async def test_one_of_a_later_frame_says_so(tmp_path: Path) -> None:
    async with screen(written(tmp_path, "return 'x'"), do="fbsz*3") as shown:
        await shown.press("<")
        title = str(shown.app.main.query_one(PicturePanel).border_title)
        assert title == "My rows   after 3 steps, not 0"


async def test_the_veil_hides_the_picture_of_what_it_hides(tmp_path: Path) -> None:
    async with screen(written(tmp_path, "return f'{model.weight.item():.6f}'"), do="fb") as shown:
        before = first_row(shown)
        await shown.press("v", "s")
        assert first_row(shown) == before
        await shown.press("space")
        assert first_row(shown) != before


async def test_a_model_without_one_has_no_panel_for_it() -> None:
    async with screen("linear") as shown:
        assert not shown.app.main.query_one(PicturePanel).display
        assert not shown.app.main.view.pictures


async def test_another_scenario_has_its_own(tmp_path: Path) -> None:
    async with screen("spiral") as shown:
        assert "▀" in shown.text("PicturePanel")
        await shown.press(":", *"model lstm", "enter")
        await shown.settle()
        assert "▀" not in shown.text("PicturePanel")
        await shown.press(":", *"model linear", "enter")
        await shown.settle()
        assert not shown.app.main.query_one(PicturePanel).display
