from __future__ import annotations

from itertools import product

import pytest
from textual import events
from textual.binding import Binding
from textual.containers import VerticalScroll

from app_screen import Screen, screen
from autograd_tui.core.command import COMMAND_BY_LETTER, Phase
from autograd_tui.core.phase_order import refusal
from autograd_tui.engine.open_session import open_session
from autograd_tui.text.prompt.word_table import COMMANDS, WORDS, word_rows
from autograd_tui.tui.help_screen import WORDS_RULE, HelpScreen, first_rows, key_rows
from autograd_tui.tui.keys import FIRST_KEYS, KEYS
from autograd_tui.tui.panels.footer import KeyTablePanel
from autograd_tui.tui.screen_state import Note
from autograd_tui.tui.trace_screen import TraceScreen

SIZES = [(120, 40), (80, 24), (60, 15)]


def box(shown: Screen) -> VerticalScroll:
    assert isinstance(shown.app.screen, HelpScreen)
    return shown.app.screen.query_one(VerticalScroll)


def words(shown: Screen) -> list[str]:
    """Give all words of the table, whether they are in sight or not."""
    panel = shown.app.screen.query_one(KeyTablePanel)
    return " ".join(panel.render_line(y).text for y in range(panel.size.height)).split()


@pytest.mark.parametrize("size", SIZES)
async def test_the_first_help_shows_the_ten_keys_that_matter_without_scrolling(size: tuple[int, int]) -> None:
    async with screen(size=size) as shown:
        await shown.press("question_mark")
        rows = first_rows(KEYS, FIRST_KEYS)
        assert len(rows) == 10
        assert not box(shown).show_vertical_scrollbar
        assert shown.app.screen.query_one(KeyTablePanel).size.height >= len(rows) + 2
        text = " ".join(words(shown))
        assert all(" ".join(f"{keys} {does}".split()) in text for keys, does in rows)


@pytest.mark.parametrize("size", SIZES)
async def test_the_second_help_shows_every_key_whole(size: tuple[int, int]) -> None:
    async with screen(size=size) as shown:
        await shown.press("question_mark", "question_mark")
        assert words(shown) == " ".join(f"{keys} {does}" for keys, does in key_rows(KEYS)).split()
        panel, room = shown.app.screen.query_one(KeyTablePanel), box(shown).content_region
        assert panel.region.width <= room.width


async def test_the_second_help_scrolls_to_its_end() -> None:
    async with screen(size=(60, 15)) as shown:
        await shown.press("question_mark", "question_mark")
        await shown.press("down")
        assert box(shown).scroll_target_y == 1
        await shown.press("end")
        assert box(shown).scroll_target_y == box(shown).max_scroll_y > 0


@pytest.mark.parametrize(
    ("keys", "row"), [("?? down down", 2), ("? down ?", 0), ("?? down ? down", 1), ("?? end home pagedown up", 12)]
)
async def test_keys_typed_before_a_page_is_there_scroll_it(keys: str, row: int) -> None:
    async with screen(size=(60, 15)) as shown:
        for key in keys.replace("??", "? ?").split():
            shown.app.post_message(events.Key("question_mark" if key == "?" else key, "?" if key == "?" else None))
        await shown.settle()
        await shown.settle()
        assert box(shown).scroll_target_y == row


async def test_a_key_that_leaves_closes_the_help_and_does_nothing_else() -> None:
    async with screen() as shown:
        for times, key in product([1, 2, 3], ["escape", "q", "space", "enter"]):
            await shown.press(*["question_mark"] * times)
            assert shown.app.screen is not shown.app.main
            await shown.press(key)
            assert shown.app.screen is shown.app.main, (times, key)
            assert shown.session.newest == 0, (times, key)
            assert shown.app.is_running, (times, key)


async def test_ctrl_c_stops_what_runs_from_within_the_help_and_once_more_quits() -> None:
    async with screen() as shown:
        await shown.pilot.press("r", "question_mark", "ctrl+c")
        await shown.settle()
        assert shown.app.screen is shown.app.main
        assert shown.app.main.trainer.status.idle
        assert shown.app.main.state.interrupted
        await shown.pilot.press("question_mark", "ctrl+c")
        assert shown.app.return_code == 130


@pytest.mark.parametrize("keys", ["colon", "i question_mark"])
async def test_ctrl_c_twice_quits_from_every_screen(keys: str) -> None:
    async with screen() as shown:
        await shown.press(*keys.split())
        await shown.pilot.press("ctrl+c", "ctrl+c")
        assert shown.app.return_code == 130


@pytest.mark.parametrize("size", SIZES)
async def test_the_third_help_shows_every_word_whole(size: tuple[int, int]) -> None:
    async with screen(size=size) as shown:
        await shown.press("question_mark", "question_mark", "down", "question_mark")
        rows = word_rows(*COMMANDS, "screen")
        assert words(shown) == f"{WORDS_RULE} {' '.join(f'{syntax} {does}' for syntax, does in rows)}".split()
        assert all(word.syntax in dict(rows) for word in WORDS.values())
        panel, room = shown.app.screen.query_one(KeyTablePanel), box(shown).content_region
        assert panel.region.width <= room.width
        assert box(shown).scroll_target_y == 0


@pytest.mark.parametrize("size", SIZES)
async def test_help_and_a_word_says_its_line(size: tuple[int, int]) -> None:
    async with screen(size=size) as shown:
        await shown.press("colon", *"help run", "enter")
        assert shown.app.screen is shown.app.main
        assert shown.note == str(WORDS["run"])
        await shown.press("i", "colon", *"help @3", "enter")
        assert isinstance(shown.app.screen, TraceScreen)
        assert shown.app.screen.view.note == Note(str(WORDS["@"]))


async def test_a_fourth_question_mark_closes_the_help() -> None:
    async with screen() as shown:
        await shown.press(*["question_mark"] * 4)
        assert shown.app.screen is shown.app.main


def test_every_key_that_matters_is_one_of_all() -> None:
    ids = [binding.id for binding in KEYS]  # type: ignore[union-attr]
    assert {each for together in FIRST_KEYS for each in together.split()} <= set(ids)


def test_the_keys_say_of_exactly_those_phases_that_they_are_refused_which_ever_are() -> None:
    session = open_session("linear")
    frames = [session.frame]
    for letters in product("FBSZ", repeat=3):
        frames += [*session.run_all(" ".join(letters))]
    refused = {
        phase.value for phase in Phase if any(refusal(frame, COMMAND_BY_LETTER[phase.letter]) for frame in frames)
    }
    phases = {binding.id: binding.tooltip for binding in KEYS if isinstance(binding, Binding)}
    assert refused == {phase.value for phase in Phase if "refused" in phases[phase.value]}
    assert refused == {phase.value for phase in Phase if "is refused" in phases[f"force-{phase.value}"]}
    assert all(Phase(each).letter in FIRST_KEYS["forward backward step zero_grad"].split() for each in refused)
