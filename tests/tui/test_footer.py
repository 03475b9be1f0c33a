"""The keys in the last row, and what a mouse that clicks them does."""

from __future__ import annotations

from itertools import pairwise

import pytest

from app_screen import Screen, screen
from autograd_tui.tui.help_screen import HelpScreen
from autograd_tui.tui.keys import INSIDE_KEYS, KEYS, clicked_on_frame, is_bound, key_labelled
from autograd_tui.tui.panels import footer
from autograd_tui.tui.panels.footer import KeysPanel
from autograd_tui.tui.panels.loss import LossPanel
from autograd_tui.tui.panels.panel import FRAME_INDENT
from autograd_tui.tui.panels.phases import PhasesPanel
from autograd_tui.tui.panels.table import SelectedPanel, TablePanel
from autograd_tui.tui.trace_screen import TraceScreen


def row(shown: Screen) -> str:
    return shown.app.screen.query_one(KeysPanel).render_line(0).text


async def click(shown: Screen, text: str, by: int = 0) -> None:
    """Click the footer `by` columns behind the place where `text` begins."""
    await shown.pilot.click(KeysPanel, offset=(row(shown).index(text) + by, 0))
    await shown.settle()


@pytest.mark.parametrize(
    ("width", "there"),
    [
        (120, "space n i r l o v : ? q ← f b s z"),
        (80, "space n i r l ? q f b s z"),
        (60, "space n ? q f b s z"),
    ],
)
async def test_the_footer_shows_the_keys_that_matter_most(width: int, there: str) -> None:
    async with screen(size=(width, 24)) as shown:
        assert set(there.split()) <= set(row(shown).split())


def test_every_key_in_the_footer_is_bound() -> None:
    for keys, bindings in ((footer.KEYS, KEYS), (footer.INSIDE, INSIDE_KEYS)):
        assert all(is_bound(key_labelled(label), bindings) for labels, _, _ in keys for label in labels.split())


def test_a_wider_footer_keeps_what_a_narrower_one_shows() -> None:
    for keys in (footer.KEYS, footer.INSIDE):
        panel = KeysPanel(id="keys", keys=keys)
        shown = [{key for key, _, _ in panel.fitting(width)} for width in range(130)]
        assert all(less <= more for less, more in pairwise(shown))


async def test_a_click_on_a_key_or_its_word_presses_it() -> None:
    async with screen() as shown:
        await click(shown, "space")
        await click(shown, "next", 3)
        assert shown.session.commands() == "fb"
        await click(shown, "s z")
        await click(shown, "s z", 2)
        assert shown.session.commands() == "fbsz"
        await click(shown, "←")
        assert shown.app.main.state.looking == 3
        await click(shown, "→")
        assert shown.app.main.state.looking is None
        await click(shown, "lr")
        assert shown.app.main.prompt.is_open


async def test_a_click_on_a_word_of_several_keys_asks_for_one_of_them() -> None:
    async with screen() as shown:
        await click(shown, "phases")
        assert shown.session.newest == 0
        assert "f, b, s, z: click the key itself" in shown.note


async def test_clicks_inside_a_phase_walk_and_lead_out() -> None:
    async with screen() as shown:
        await click(shown, "inside")
        inside = shown.app.screen
        assert isinstance(inside, TraceScreen)
        await shown.until(lambda: inside.trace_position is not None)
        await click(shown, "next")
        assert inside.trace_position is not None
        assert inside.trace_position.index == 1
        await click(shown, "out")
        assert shown.app.screen is shown.app.main


@pytest.mark.parametrize(
    ("text", "word", "keys"),
    [
        ("~ from a sample · enter opens · / finds · :sort update", "opens", ["enter"]),
        ("~ from a sample · enter opens · / finds · :sort update", "/", ["/"]),
        ("~ from a sample · enter opens · / finds · :sort update", "update", [":sort update"]),
        ("~ from a sample · enter opens · / finds · :sort update", "sample", []),
        ("The largest gradient   ↑ ↓ choose another", "↓", ["↓"]),
        ("The largest gradient   ↑ ↓ choose another", "another", ["↑", "↓"]),
        ("The largest gradient   ↑ ↓ choose another", "largest", []),
        ("shift+← → reads values, shift+↑ ↓ zooms", "→", ["shift+→"]),
        ("Loss over w → b ↑   @ now   X lowest   o later", "o", []),
    ],
)
def test_what_a_click_on_a_panels_frame_means(text: str, word: str, keys: list[str]) -> None:
    assert clicked_on_frame(text, text.index(word)) == keys


def test_a_key_with_a_modifier_is_pressed_as_a_terminal_sends_it() -> None:
    assert key_labelled("shift+←").key == "shift+left"
    assert key_labelled("+").key == "plus"


async def test_a_click_on_a_frame_presses_the_key_that_it_names() -> None:
    async with screen("resnet18", do="fb", image_size=32, batch_size=2) as shown:
        selected = shown.app.main.query_one(SelectedPanel)
        title = str(selected.border_title)
        await shown.pilot.click(offset=(selected.region.x + 3 + title.index("↓"), selected.region.y))
        await shown.settle()
        assert shown.app.main.view.table.cursor is not None
        table = shown.app.main.query_one(TablePanel)
        hint = str(table.border_subtitle)
        left = table.region.right - 3 - len(hint)
        await shown.pilot.click(offset=(left + hint.index("update"), table.region.bottom - 1))
        await shown.settle()
        assert shown.app.main.prompt._line.value == "sort update"


async def test_a_mouse_turns_the_pages_of_the_help_and_closes_it() -> None:
    async with screen() as shown:
        await click(shown, "keys")
        help_screen = shown.app.screen
        assert isinstance(help_screen, HelpScreen)
        box = help_screen.query_one("#help")
        text = str(box.border_subtitle)
        left = box.region.right - 3 - len(text)
        await shown.pilot.click(offset=(left + text.index("all"), box.region.bottom - 1))
        await shown.settle()
        assert box.border_title == "all keys"
        text = str(box.border_subtitle)
        left = box.region.right - 3 - len(text)
        await shown.pilot.click(offset=(left + text.index("closes") + 5, box.region.bottom - 1))
        await shown.settle()
        assert shown.app.screen is shown.app.main
        await click(shown, "keys")
        await shown.pilot.click(offset=(0, 0))
        await shown.settle()
        assert shown.app.screen is shown.app.main


async def test_a_click_on_the_title_of_the_plot_changes_its_scale_and_on_the_words_of_space_runs() -> None:
    async with screen(do="fbsz") as shown:
        plot = shown.app.main.query_one(LossPanel)
        column = str(plot.border_title).index("y log") + FRAME_INDENT
        await shown.pilot.click(offset=(plot.region.x + column, plot.region.y))
        await shown.settle()
        assert "log scale   y linear" in str(plot.border_title)
        phases = shown.app.main.query_one(PhasesPanel)
        row = phases.render_line(0).text
        await shown.pilot.click(PhasesPanel, offset=(row.index("space: ") + 2, 0))
        await shown.settle()
        assert shown.session.commands() == "fbsz f"
