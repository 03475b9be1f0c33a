"""How rows are shared out, and that no panel is cut while another is empty, at any size."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app_screen import Screen, screen
from autograd_tui.tui.arrangement import Wish, share_rows
from autograd_tui.tui.panels.loss import LossPanel
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.panels.table import TablePanel

SIZES = [(80, 24), (100, 30), (120, 40), (200, 60)]


@st.composite
def wishes(draw: st.DrawFn) -> Wish:
    least, wanted, most, full = sorted(draw(st.lists(st.integers(1, 30), min_size=4, max_size=4)))
    return Wish(least, wanted, most, full, draw(st.integers(0, 3)), draw(st.booleans()))


@given(st.lists(wishes(), max_size=6), st.integers(0, 80))
def test_rows_are_shared_out_so_that_none_is_over_while_a_panel_wants_it(asked: list[Wish], height: int) -> None:
    rows = share_rows(asked, height)
    assert sum(rows) <= height
    shown = [(wish, count) for wish, count in zip(asked, rows, strict=True) if count]
    assert all(count >= wish.least for wish, count in shown)
    if sum(rows) < height:
        assert all(count >= wish.full for wish, count in shown)
        assert not any(wish.share for wish, _ in shown)


@given(st.lists(wishes(), max_size=6), st.integers(0, 80))
def test_no_picture_grows_before_texts_have_what_they_can_use(asked: list[Wish], height: int) -> None:
    shown = [(wish, count) for wish, count in zip(asked, share_rows(asked, height), strict=True) if count]
    if any(wish.share and count > wish.most for wish, count in shown):
        assert all(count >= wish.most for wish, count in shown)


@given(st.lists(wishes().filter(lambda wish: not wish.optional), max_size=6), st.integers(0, 80))
def test_what_matters_most_is_shown_first(asked: list[Wish], height: int) -> None:
    rows = share_rows(asked, height)
    left = height
    for wish, count in zip(asked, rows, strict=True):
        assert bool(count) is (wish.least <= left)
        left -= wish.least if count else 0


BATCH_NORM = """
import torch
from torch import nn
from autograd_tui import Parts, scenario

@scenario("small")
def build(options):
    batch = torch.ones(4, 2), torch.ones(4, 2)
    return Parts(model=nn.BatchNorm1d(2), batch=lambda i: batch, loss=nn.functional.mse_loss)
"""


def visible(shown: Screen) -> dict[str, Panel]:
    panels = shown.app.main.query("Layout Panel").results(Panel)
    return {type(each).__name__: each for each in panels if each.content_size.area}


@pytest.mark.parametrize("scenario", ["linear", "resnet18"])
async def test_a_larger_terminal_shows_no_panel_less(scenario: str) -> None:
    async with screen(scenario, do="fbs", size=SIZES[0]) as shown:
        before: set[str] = set()
        for size in SIZES:
            await shown.resize(*size)
            now = {name.replace("Compact", "") for name in visible(shown)}
            assert before <= now
            before = now


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_the_loss_is_plotted_in_four_rows_at_least(size: tuple[int, int]) -> None:
    async with screen(do="fbsz*5 f", size=size) as shown:
        panel = visible(shown)["LossPanel"]
        assert isinstance(panel, LossPanel)
        assert sum("┤" in row or "│" in row for row in shown.text("LossPanel").splitlines()) >= 4


async def test_in_a_lecture_hall_all_seven_layers_of_resnet18_are_seen() -> None:
    async with screen("resnet18", do="fb", size=(80, 24), image_size=32, batch_size=2) as shown:
        assert isinstance(visible(shown)["TablePanel"], TablePanel)
        rows = [row.split()[0] for row in shown.text("TablePanel").splitlines()]
        assert rows == ["layer", "conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc", "all"]


async def test_what_is_not_there_has_no_frame() -> None:
    async with screen() as shown:
        assert not {"LossPanel", "OutputPanel", "SelectedPanel"} & visible(shown).keys()
    async with screen(data="fresh") as shown:
        assert not {"LossPanel", "DataPanel", "ScatterPanel", "OutputPanel", "SelectedPanel"} & visible(shown).keys()
        await shown.press("f")
        assert {"LossPanel", "DataPanel", "ScatterPanel"} <= visible(shown).keys()


async def test_the_console_has_the_rows_of_a_column_without_pictures_and_three_beside_one() -> None:
    async with screen(size=(200, 60)) as shown:
        shown.app.main.output.take_in("".join(f"line {place}\n" for place in range(100)).encode())
        await shown.until(lambda: "ConsolePanel" in visible(shown))
        assert visible(shown)["ConsolePanel"].content_size.height > 50
        await shown.press("f")
        assert visible(shown)["ConsolePanel"].content_size.height == 3


async def test_a_long_text_keeps_its_rows_for_three_iterations_and_not_for_ever() -> None:
    async with screen("spiral", do="fb") as shown:
        panel = visible(shown)["ExplanationPanel"]
        await shown.press("s")
        long = panel.content_size.height
        assert len(shown.text("ExplanationPanel").rstrip().splitlines()) == long
        for _ in range(2):
            await shown.press("z", "f", "b", "S", "Z")
            assert panel.content_size.height == long
        await shown.press(*"ZZZZZZZZZZZZ")
        assert len(shown.text("ExplanationPanel").rstrip().splitlines()) == panel.content_size.height < long


async def test_a_wide_screen_has_a_picture_in_the_column_beside_what_is_selected() -> None:
    async with screen("transformer", do="fb", size=(200, 60)) as shown:
        panels = visible(shown)
        assert panels["SelectedPanel"].region.x == panels["TablePanel"].region.x
        assert panels["PicturePanel"].region.x == panels["OutputPanel"].region.x > panels["TablePanel"].region.x


async def test_a_wide_screen_has_no_column_for_a_few_buffers_alone(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(BATCH_NORM)
    async with screen(str(tmp_path / "small.py"), do="f", size=(200, 60)) as shown:
        panels = visible(shown)
        assert panels["BuffersPanel"].region.x == panels["ParametersPanel"].region.x
