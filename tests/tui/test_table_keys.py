"""The table of parameters: its cursor, layers that open, order, search, and what Selected shows of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual import events

from app_screen import Screen, running, screen
from autograd_tui.core.command import parse
from autograd_tui.text.numbers import number
from autograd_tui.tui import main_screen
from autograd_tui.tui.app import AutogradApp
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.panels.table import RowPanel
from handmade_session import MadeSession
from picture_frames import LAYERS, layers_frames
from suite_options import examples

MODEL = """
import torch
from torch import nn
from autograd_tui import Parts, scenario

class Net(nn.Module):
    def __init__(self, names, size):
        super().__init__()
        for name in names:
            *path, last = name.split(".")
            inner = self
            for part in path:
                if not hasattr(inner, part):
                    inner.add_module(part, nn.Module())
                inner = getattr(inner, part)
            inner.register_parameter(last, nn.Parameter(torch.randn(size)))

def forward(model, batch):
    return torch.stack([(param ** 2).sum() for param in model.parameters()]).sum()

@scenario("net")
def build(options):
    net = Net({names!r}, {size})
    return Parts(model=net, batch=lambda i: (), forward=forward, optimizer="sgd,lr=0.01,momentum=0.9")
"""
NAMES = ["gate", "stem.weight", *(f"body.{place}.{kind}" for place in range(20) for kind in ("weight", "bias"))]


def written(folder: Path, names: list[str] = NAMES, *, size: int = 3) -> str:
    file = folder / "net.py"
    file.write_text(MODEL.replace("{names!r}", repr(names)).replace("{size}", str(size)))
    return str(file)


def cursor_rows(shown: Screen) -> list[str]:
    """Give the rows that are marked as under the cursor, of the table on screen."""
    panels = [panel for panel in shown.app.main.query(RowPanel) if panel.content_size.area]
    assert len(panels) == 1
    lines = [panels[0].render_line(y).text for y in range(panels[0].content_size.height)]
    return [line[1:].strip() for line in lines if line.startswith("▶")]


async def test_there_is_no_cursor_before_a_key_puts_it_somewhere() -> None:
    async with screen() as shown:
        assert cursor_rows(shown) == []
        await shown.press("down")
        assert cursor_rows(shown)[0].startswith("w ")


async def test_up_and_down_move_the_cursor_and_stop_at_the_ends(tmp_path: Path) -> None:
    async with screen(written(tmp_path)) as shown:
        for key, name in (("down", "gate"), ("down", "stem"), ("down", "body"), ("down", "body"), ("up", "stem")):
            await shown.press(key)
            assert cursor_rows(shown)[0].startswith(name)


async def test_a_count_moves_the_cursor_by_so_many_rows(tmp_path: Path) -> None:
    async with screen(written(tmp_path)) as shown:
        await shown.press("down", "2", "down")
        assert cursor_rows(shown)[0].startswith("body")


async def test_enter_opens_a_layer_and_closes_it(tmp_path: Path) -> None:
    async with screen(written(tmp_path)) as shown:
        await shown.press("down", "down", "enter")
        assert "▾ stem" in shown.text("TablePanel")
        assert " .weight" in shown.text("TablePanel")
        await shown.press("enter")
        assert ".weight" not in shown.text("TablePanel")


async def test_enter_without_a_cursor_says_what_it_would_do() -> None:
    async with screen() as shown:
        await shown.press("enter")
        assert "select a row" in shown.note


async def test_the_parameters_of_an_opened_layer_scroll_into_view(tmp_path: Path) -> None:
    async with screen(written(tmp_path)) as shown:
        await shown.press("down", "3", "down", "enter")
        assert cursor_rows(shown)[0].startswith("▾ body")
        assert "more" in shown.text("TablePanel")
        await shown.press("4", "0", "down")
        assert cursor_rows(shown)[0].startswith(".19.bias")
        assert "↓" not in shown.text("TablePanel")


async def test_a_slash_finds_names_one_after_the_other(tmp_path: Path) -> None:
    async with screen(written(tmp_path)) as shown:
        await shown.press("slash", *"5.b", "enter")
        assert cursor_rows(shown)[0].startswith(".5.bias")
        await shown.press("slash", "enter")
        assert cursor_rows(shown)[0].startswith(".15.bias")
        await shown.press("slash", "enter")
        assert cursor_rows(shown)[0].startswith(".5.bias")


async def test_a_name_that_no_parameter_has_gets_a_sentence_and_stays_to_be_mended(tmp_path: Path) -> None:
    async with screen(written(tmp_path)) as shown:
        await shown.press("slash", *"gatex", "enter")
        assert shown.note == 'no parameter has "gatex" in its name.'
        await shown.press("backspace", "enter")
        assert cursor_rows(shown)[0].startswith("gate")


async def test_the_first_search_needs_a_name(tmp_path: Path) -> None:
    async with screen(written(tmp_path)) as shown:
        await shown.press("slash", "enter")
        assert "give a part of a parameter's name" in shown.note


async def test_a_slash_lists_the_names_that_fit(tmp_path: Path) -> None:
    async with screen(written(tmp_path)) as shown:
        await shown.press("slash", *"5.b")
        assert [row.strip(" ▶").split()[0] for row in shown.text("CompletionList").splitlines()] == [
            "body.5.bias",
            "body.15.bias",
        ]
        await shown.press("down", "enter")
        assert cursor_rows(shown)[0].startswith(".15.bias")


async def test_the_table_is_sorted_in_words(tmp_path: Path) -> None:
    async with screen(written(tmp_path), do="fbs") as shown:
        await shown.press("colon", *"sort", "space", *"values", "enter")
        assert [line.split()[0] for line in shown.text("TablePanel").splitlines()[1:4]] == ["body", "gate", "stem"]
        assert "▼ values" in shown.text("TablePanel")
        assert shown.session.commands() == "fbs"


async def test_the_cursor_stays_on_its_row_where_the_order_changes(tmp_path: Path) -> None:
    async with screen(written(tmp_path), do="fbs") as shown:
        await shown.press("down", "down")
        shown.app.main.state.sort_table("grad")
        shown.app.main.draw()
        await shown.settle()
        assert cursor_rows(shown)[0].startswith("stem")


async def test_an_order_that_is_none_gets_a_sentence(tmp_path: Path) -> None:
    async with screen(written(tmp_path)) as shown:
        await shown.press("colon", *"sort", "space", *"colour", "enter")
        assert shown.note.startswith('"colour" is no column')


async def test_a_small_table_stays_in_the_models_order() -> None:
    async with screen() as shown:
        await shown.press("colon", *"sort", "space", *"grad", "enter")
        assert "stays in the model's order" in shown.note


async def test_a_click_selects_and_one_more_opens(tmp_path: Path) -> None:
    async with screen(written(tmp_path)) as shown:
        await shown.pilot.click("FoldedLayout TablePanel", offset=(8, 3))
        await shown.settle()
        assert cursor_rows(shown)[0].startswith("stem")
        await shown.pilot.click("FoldedLayout TablePanel", offset=(8, 3))
        await shown.settle()
        assert "▾ stem" in shown.text("TablePanel")


async def test_a_click_beside_the_rows_selects_nothing(tmp_path: Path) -> None:
    async with screen(written(tmp_path)) as shown:
        for row in (0, 1, 5, 6):
            await shown.pilot.click("FoldedLayout TablePanel", offset=(8, row))
        await shown.settle()
        assert cursor_rows(shown) == []


async def test_the_wheel_moves_the_cursor(tmp_path: Path) -> None:
    async with screen(written(tmp_path)) as shown:
        panel = shown.app.main.query("FoldedLayout TablePanel").first(RowPanel)
        for by, name in ((1, "gate"), (1, "stem"), (-1, "gate")):
            panel.post_message(RowPanel.Turned(by))
            await shown.settle()
            assert cursor_rows(shown)[0].startswith(name)


async def test_escape_takes_the_cursor_away_and_q_does_so_before_it_quits() -> None:
    async with screen() as shown:
        await shown.press("down", "escape")
        assert cursor_rows(shown) == []
        await shown.press("down", "q")
        assert shown.app.is_running
        await shown.press("q")
        assert not shown.app.is_running


# What Selected shows.


async def test_selected_describes_what_the_cursor_is_on(tmp_path: Path) -> None:
    async with screen(written(tmp_path), do="fb") as shown:
        assert shown.text("SelectedPanel").startswith("body.9.bias   3 · 3 values · float32")  # the largest gradient
        await shown.press("down")
        assert shown.text("SelectedPanel").startswith("gate   3 · 3 values · float32")
        await shown.press("down")
        assert shown.text("SelectedPanel").startswith("stem\n1 parameter ·")


async def test_a_small_model_shows_selected_only_with_a_cursor() -> None:
    async with screen(do="fb") as shown:
        assert not [each for each in shown.app.main.query("SelectedPanel") if each.content_size.area]
        await shown.press("down", "down")
        assert shown.text("SelectedPanel").startswith("b   1 value")


async def test_enter_gives_exact_numbers_until_the_next_command(tmp_path: Path) -> None:
    async with screen(written(tmp_path, size=3000), do="fb") as shown:
        await shown.press("down", "enter")
        assert f"mean {number(shown.session.inspect('gate').value.mean)}" in shown.text("SelectedPanel")
        assert "exact" in shown.text("SelectedPanel")
        assert "~" not in shown.text("SelectedPanel")
        assert shown.session.commands() == "fb"
        await shown.press("f")
        assert "~" in shown.text("SelectedPanel")
        assert "exact" not in shown.text("SelectedPanel")


async def test_looking_back_shows_that_frames_own_numbers_and_the_way_home_the_exact_ones(tmp_path: Path) -> None:
    async with screen(written(tmp_path, size=3000), do="fb") as shown:
        await shown.press("down", "enter")
        await shown.press("left")
        assert "exact" not in shown.text("SelectedPanel")
        await shown.press("enter")
        assert "escape returns" in shown.note
        await shown.press("escape")
        assert "exact" in shown.text("SelectedPanel")


async def test_quick_keys_there_and_back_keep_the_exact_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_screen, "PATIENCE", float("inf"))  # or escape drops what waits, on a machine under load
    async with screen(do="fbs") as shown:
        for key in ("down", "enter", "left", "enter", "escape"):
            shown.app.post_message(events.Key(key, None))
        await shown.settle()
        await shown.settle()
        assert shown.app.main.state.looking is None
        assert shown.app.main.view.inspection == shown.session.inspect("w")


async def test_exact_numbers_are_no_way_behind_the_veil(tmp_path: Path) -> None:
    async with screen(written(tmp_path, size=3000), do="f") as shown:
        await shown.press("down", "v", "b", "enter")
        assert "behind the veil" in shown.note
        assert "exact" not in shown.text("SelectedPanel")
        await shown.press("space", "enter")
        assert "exact" in shown.text("SelectedPanel")


async def test_exact_numbers_are_of_the_frame_that_quick_keys_lead_to(tmp_path: Path) -> None:
    async with screen(written(tmp_path, size=3000)) as shown:
        await shown.press("down", "f", "b", "enter")
        assert "exact" in shown.text("SelectedPanel")
        assert shown.app.main.view.inspection == shown.session.inspect("gate")
        await shown.press("enter", "s")
        assert shown.app.main.view.inspection is None


async def test_in_a_lecture_hall_enter_puts_selected_in_the_place_of_the_loss(tmp_path: Path) -> None:
    async with screen(written(tmp_path), do="fb", size=(80, 24)) as shown:
        await shown.press("down")
        assert "fresh" in shown.text("LossPanel")
        await shown.press("enter")
        assert shown.text("SelectedPanel").startswith("gate")
        await shown.press("escape")
        assert "fresh" in shown.text("LossPanel")


# Buffers.


async def test_buffers_are_shown_where_a_model_has_some() -> None:
    async with screen("resnet18", do="f", image_size=64) as shown:
        assert shown.text("BuffersPanel").startswith("forward changed all 60")
        assert "0 → 1" in shown.text("BuffersPanel")
    async with screen(do="f") as shown:
        assert not [each for each in shown.app.main.query("BuffersPanel") if each.content_size.area]


# Any keys at all.

paths = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(".".join)
models = st.lists(paths, min_size=1, max_size=5, unique=True).map(
    lambda found: [f"{path}.p{place}" for place, path in enumerate(found * 4)]
)
words = ["sort grad", "sort name", "sort model", "/a", "/p1", "/q"]
keys = st.sampled_from(["up", "down", "enter", "9", "space", "left", *words])
sizes = st.sampled_from([(120, 40), (100, 30), (80, 24), (60, 15), (40, 8)])


@examples(6)
@given(models, st.lists(keys, max_size=12), sizes)
def test_any_keys_leave_the_cursor_in_sight(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], pressed: list[str], size: tuple[int, int]
) -> None:
    async def run() -> None:
        async with screen(written(tmp_path_factory.mktemp("any"), names), do="fbs", size=size) as shown:
            for key in pressed:
                if key in words:
                    shown.app.main.prompt_actions.run(key)
                    await shown.settle()
                else:
                    await shown.press(key)
                assert len(cursor_rows(shown)) == (shown.app.main.view.table.cursor is not None)

    asyncio.run(run())


@pytest.mark.parametrize("size", [(100, 30), (120, 40), (80, 24)], ids=str)
async def test_what_stands_on_a_frame_is_not_cut(size: tuple[int, int]) -> None:
    session = MadeSession(LAYERS, layers_frames())
    async with running(AutogradApp(lambda _: session, parse(""), title="layers"), size) as shown:
        for panel in shown.app.main.query(Panel):
            if panel.content_size.area and panel.has_class("framed"):
                texts = str(panel.border_title or ""), str(panel.border_subtitle or "")
                assert max(map(len, texts)) <= panel.content_size.width - 2, texts
