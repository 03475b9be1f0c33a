"""What Textual is spared: rows that nothing has changed are not put together again."""

from __future__ import annotations

import pytest

from app_screen import Screen, screen
from autograd_tui.tui.panels.code import CodePanel
from autograd_tui.tui.panels.panel import Panel


async def test_a_frame_around_a_panel_whose_rows_change_stays_the_same_rows() -> None:
    async with screen(do="f") as shown:
        panel = shown.app.main.query_one(CodePanel)
        rows = panel.render_lines(panel.outer_size.region)
        text = shown.text("CodePanel")
        await shown.press("b")
        assert shown.text("CodePanel") != text
        assert panel.render_lines(panel.outer_size.region) is rows


async def test_a_panel_in_another_theme_has_other_rows() -> None:
    async with screen() as shown:
        panel = shown.app.main.query_one(CodePanel)
        rows = panel.render_lines(panel.outer_size.region)
        shown.app.theme = "textual-light"
        await shown.settle()
        assert panel.render_lines(panel.outer_size.region) != rows


async def test_a_panel_in_ascii_has_other_rows() -> None:
    async with screen() as shown:
        panel = shown.app.main.query_one(CodePanel)
        rows = panel.render_lines(panel.outer_size.region)
        shown.app.ascii_only = True
        await shown.settle()
        assert panel.render_lines(panel.outer_size.region) != rows


async def test_a_panel_that_was_not_told_to_be_on_the_screen_shows_each_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    for told in ("on_show", "on_resize"):  # Textual leaves both out where a panel's region was asked for early
        monkeypatch.setattr(Panel, told, lambda _: None)
    async with screen() as shown:
        await shown.press("f")
        assert "▶ loss = mse" in _page(shown)
        panel = shown.app.main.query_one(CodePanel)
        for display in (False, True):
            panel.display = display
            await shown.settle()
        await shown.press("b")
        assert "▶ loss.backward()" in _page(shown)


def _page(shown: Screen) -> str:
    return "\n".join(strip.text for strip in shown.app.screen._compositor.render_strips())
