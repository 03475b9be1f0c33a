"""What Textual is spared: rows that nothing has changed are not put together again."""

from __future__ import annotations

from app_screen import screen
from autograd_tui.tui.panels.code import CodePanel


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
