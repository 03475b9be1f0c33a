"""Sizes that follow each other faster than the screens lay themselves out."""

from __future__ import annotations

from collections import Counter

import pytest
from textual import events
from textual.geometry import Size
from textual.message import Message
from textual.screen import Screen as TextualScreen

from app_screen import Screen, screen
from autograd_tui.tui.layouts import Layout, TraceLayout
from autograd_tui.tui.panels.text_panels import NotePanel

SIZES = [Size(80, 24), Size(120, 40), Size(60, 15), Size(120, 40)]
MOST_RESIZES = 40  # of one screen, for as many sizes


async def resize(shown: Screen, sizes: list[Size]) -> int:
    """Tell every screen all sizes, one right behind the other, and count how often one is told any until it is calm."""
    told: Counter[str] = Counter()

    async def count(self: TextualScreen[None], event: Message) -> None:
        if isinstance(event, events.Resize):
            told[type(self).__name__] += 1
            if told[type(self).__name__] > 2 * MOST_RESIZES:
                return  # they would take turns for ever
        await handled(self, event)

    handled = TextualScreen._on_message
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TextualScreen, "_on_message", count)
        for size in sizes:
            event = events.Resize(size, size)
            shown.app.post_message(event)
            for each in shown.app.screen_stack:
                each.post_message(event)
                each.post_message(events.Callback(callback=lambda: None))  # or one size would take the place of another
        for _ in range(20):
            await shown.pilot.pause()
    return max(told.values())


@pytest.mark.parametrize("keys", ["", "i question_mark", "i colon"])
async def test_sizes_that_come_at_once_are_taken_once_by_every_screen(keys: str) -> None:
    async with screen() as shown:
        await shown.press(*keys.split())
        assert await resize(shown, SIZES) <= MOST_RESIZES
        assert shown.app.size == SIZES[-1]
        assert all(each.size == SIZES[-1] for each in shown.app.screen_stack[1:])
        assert [type(each).__name__ for each in shown.app.main.query(Layout)] == ["WideLayout"]
        if keys.startswith("i"):
            await shown.press(*["escape"] * (len(keys.split()) - 1))
            assert [type(each).__name__ for each in shown.app.screen.query(TraceLayout)] == ["WideTraceLayout"]


async def test_a_note_that_a_narrower_terminal_wraps_leaves_no_empty_row_over_the_panels() -> None:
    async with screen(size=(55, 20)) as shown:
        await shown.press("p")
        note = shown.app.main.query_one(NotePanel)
        await shown.resize(31, 30)
        assert note.region.height == 2
        await shown.press("f")
        assert note.region.height == 1
