"""The loss surface on the screen: asked for in words, measured behind the keys, chosen from with the mouse."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app_screen import Screen, running, screen
from autograd_tui.core.command import Commands, parse
from autograd_tui.core.history import History
from autograd_tui.core.loss_surface import LossSurface
from autograd_tui.engine import surface_slice
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.text.loss_map import GUTTER, map_lines
from autograd_tui.text.styled_text import Line
from autograd_tui.tui.app import AutogradApp
from autograd_tui.tui.panels import surface
from autograd_tui.tui.panels.surface import SurfacePanel
from handmade_session import MadeSession
from picture_frames import LINE, line_frames, line_surface

# Eight parameters, so that it is shown by layers; each forward waits as long as it is told.
MODEL = """
import time
import torch
from torch import nn
from autograd_tui import Parts, scenario

class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(3, 3) for _ in range(8)))
    def forward(self, x):
        time.sleep(WAIT)
        return self.layers(x)

@scenario("deep")
def deep(options):
    x, y = torch.rand(4, 3), torch.rand(4, 3)
    return Parts(model=Deep(), batch=lambda i: (x, y), loss=nn.functional.mse_loss, optimizer="sgd,lr=0.1")
"""


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop at the first grid."""
    monkeypatch.setattr(surface_slice, "BUDGET_SECONDS", 0.0)


def write(folder: Path, *, wait: float = 0.0) -> str:
    file = folder / "deep.py"
    file.write_text(MODEL.replace("WAIT", str(wait)))
    return str(file)


async def say(shown: Screen, words: str) -> None:
    """Type words at the prompt, without waiting for what they lead to."""
    await shown.pilot.press("escape", "colon", *("space" if each == " " else each for each in words), "enter")


def title(shown: Screen) -> str:
    return str(shown.app.main.query_one(SurfacePanel).border_title)


def is_shown(shown: Screen) -> bool:
    return any(each.content_size.area for each in shown.app.main.query(SurfacePanel))


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (200, 60)], ids=str)
async def test_the_plane_of_a_larger_model_comes_when_asked_and_goes_again(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    async with screen(write(tmp_path), do="fbs", size=size) as shown:
        assert not is_shown(shown)
        await say(shown, "surface")
        await shown.settle()
        assert title(shown).startswith("Loss at frame 3  last step → random ↑")
        drawn = shown.text("SurfacePanel")
        assert all(mark in drawn for mark in "▀@X")
        assert "last step" in drawn
        await say(shown, "surface layers.0.weight[1,2] layers.7.bias[0]")
        await shown.settle()
        assert title(shown).startswith("Loss at frame 3  layers.0.weight[1,2]")
        await say(shown, "surface off")
        await shown.settle()
        assert not is_shown(shown)


async def test_keys_are_answered_while_the_surface_is_measured_and_escape_gives_it_up(tmp_path: Path) -> None:
    async with screen(write(tmp_path, wait=0.05), do="fbs") as shown:
        await say(shown, "surface")
        await shown.until(lambda: "measuring the loss" in shown.note)
        assert "of 99 points, escape gives it up" in shown.note
        await shown.pilot.press("z")
        await shown.until(lambda: shown.app.main.view.frame is not None and shown.app.main.view.frame.index == 4)
        assert not shown.app.main.trainer.status.idle
        await shown.until(lambda: is_shown(shown) and shown.app.main.view.surface is not None)
        surface = shown.app.main.view.surface
        assert surface is not None
        assert (surface.frame, surface.rows) == (3, 9)
        assert 1 <= surface.measured_rows < 9
        await shown.until(lambda: "measuring the loss" in shown.note)
        await shown.pilot.press("escape")
        await shown.settle()
        assert "the surface was given up after" in shown.note
        assert not is_shown(shown)


async def test_what_cannot_be_measured_is_refused_in_a_sentence(tmp_path: Path) -> None:
    async with screen(write(tmp_path), do="f") as shown:
        for words, why in [
            ("surface", "there is no step yet"),
            ("surface layers.0.weight", "needs two values"),
            ("surface layers.0.weight layers.0.bias", "has 9 values: name one of them"),
            ("surface a b", 'no parameter "a"'),
        ]:
            await say(shown, words)
            await shown.settle()
            assert why in shown.note


async def test_where_there_is_no_room_for_a_surface_that_is_said_and_a_larger_terminal_shows_it(tmp_path: Path) -> None:
    async with screen(write(tmp_path), do="fbs", size=(60, 15)) as shown:
        await say(shown, "surface")
        await shown.until(lambda: "no room for it here" in shown.note)
        assert not is_shown(shown)
        await shown.resize(120, 40)
        assert is_shown(shown)


async def test_a_click_on_the_map_shows_the_frame_of_the_nearest_point() -> None:
    async with screen(do="fbsz*5") as shown:
        rows = shown.text("SurfacePanel").splitlines()
        row, found = next((y, found) for y, line in enumerate(rows) if (found := re.search(r"[2-9]", line[GUTTER:])))
        column, iteration = found.start() + GUTTER, int(found[0])
        panel = shown.app.main.query_one(SurfacePanel)
        await shown.pilot.click(panel, offset=(column + 2, row + 1))  # beside the frame and its padding
        await shown.settle()
        frame = shown.app.main.view.frame
        assert frame is not None
        assert (frame.iteration, frame.phase) == (iteration - 1, "step")  # the iteration begins there
        assert "o later" in title(shown)
        assert "o" in shown.text("SurfacePanel")[GUTTER:]


async def test_a_branch_that_was_left_stays_on_the_map_with_what_differs() -> None:
    async with screen(do="fbsz*5") as shown:
        await say(shown, "@4 lr=0.15 fbsz*3")
        await shown.settle()
        assert "lr 0.1" in shown.text("SurfacePanel")
        assert "·" in shown.text("SurfacePanel")


async def test_where_the_way_is_not_followed_no_point_of_it_is_called_the_present_one() -> None:
    path = History().path
    path.insert(0, 0, 2.0, 6.0)
    surface = replace(line_surface(), path=path, frame=0, is_followed=False)
    session = MadeSession(LINE, line_frames()[:1], surface=surface)
    async with running(AutogradApp(lambda _: session, parse(""), title="the line"), (200, 60)) as shown:
        await shown.settle()
        assert "@ then" in title(shown)
        assert "now" not in title(shown)


async def test_the_loss_is_measured_when_the_session_is_on_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, surface = list[bool](), Session.surface

    def measure(session: Session, **options: Any) -> LossSurface | None:
        shown.append(app.main.trainer.drawn.is_set() and app.main.state.latest is not None)
        return surface(session, **options)

    monkeypatch.setattr(Session, "surface", measure)
    monkeypatch.setattr("autograd_tui.tui.trainer_thread.DRAWN_SECONDS", 60.0)
    app = AutogradApp(lambda _: open_session("linear"), Commands(), title="linear")
    async with running(app, (120, 40)) as opened:
        await opened.until(lambda: len(shown) > 0)
    assert all(shown)


async def test_the_map_is_drawn_anew_by_the_keys_alone_that_move_what_is_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def drawing(*of: Any, **how: Any) -> list[Line]:
        drawn.append(of)
        return map_lines(*of, **how)

    monkeypatch.setattr(surface, "map_lines", drawing)
    async with screen(do="fbsz") as shown:
        await shown.until(lambda: is_shown(shown))
        for key, times in (("f", 0), ("b", 0), ("s", 1), ("z", 0), ("left", 0), ("f", 0)):
            await shown.press("end")
            drawn.clear()
            await shown.press(key)
            assert len(drawn) == times, key


async def test_the_title_names_only_what_is_drawn() -> None:
    async with screen(do="fbsz") as shown:
        panel = shown.app.main.query_one(SurfacePanel)
        assert "  @ now  X lowest" in str(panel.border_title)
        assert "@" in shown.text("SurfacePanel")
        shown.app.main.prompt_actions.run("w=nan")
        await shown.settle()
        assert "@" not in shown.text("SurfacePanel")
        assert "  off the map now  X lowest" in str(panel.border_title)


@pytest.mark.parametrize("do", ["f", "fb", "fbs", "fbsz"])
async def test_the_table_says_of_each_phase_where_the_loss_is_lowest(do: str) -> None:
    async with screen(do=do) as shown:
        assert "lowest" in shown.text("ParametersPanel").splitlines()[0]
