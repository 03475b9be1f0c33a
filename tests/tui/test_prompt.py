from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual import events
from textual.geometry import Region

from app_screen import Screen, screen
from autograd_tui.tui.prompt import CompletionList, Prompt, PromptLine
from suite_options import examples

SIZES = [(120, 40), (80, 24), (60, 15)]


def typed(shown: Screen) -> str:
    return shown.app.main.query_one(PromptLine).value


def candidates(shown: Screen) -> list[str]:
    """Give the rows of the list; none where it is closed."""
    panel = shown.app.main.query_one(CompletionList)
    is_open = shown.app.main.query_one(Prompt).is_open and panel.display
    return shown.text("CompletionList").split("\n") if is_open else []


def marked(shown: Screen) -> str:
    return next(row for row in candidates(shown) if row.startswith("▶")).split()[1]


async def burst(shown: Screen, *keys: str) -> None:
    """Put keys in the app's queue all at once, and wait for what they ask for; a long one is pasted."""
    post(shown, *keys)
    await shown.settle()


def post(shown: Screen, *keys: str) -> None:
    for key in keys:
        if len(key) > 1 and key not in ("enter", "escape", "tab", "up", "down", "left", "backspace", "colon"):
            shown.app.post_message(events.Paste(key))
        else:
            character = ":" if key == "colon" else key if len(key) == 1 else None
            shown.app.post_message(events.Key(key, character))


async def test_an_empty_prompt_lists_what_can_be_said() -> None:
    async with screen() as shown:
        await shown.press("colon")
        assert candidates(shown)[0].split() == ["▶", "fbsz", "forward,", "backward,", "step,", "zero_grad"]
        assert candidates(shown)[-1].endswith("of 28")


@pytest.mark.parametrize(
    ("key", "first"),
    [("l", "1e-1  the largest"), ("o", "sgd "), ("g", "0  the first: before any command"), ("ctrl+p", "light ")],
)
async def test_a_prompt_opened_with_words_lists_at_once_what_goes_on_from_them(key: str, first: str) -> None:
    async with screen() as shown:
        await shown.press(key)
        assert candidates(shown)[0].startswith(f"▶ {first}")


async def test_the_list_follows_what_is_typed() -> None:
    async with screen() as shown:
        await shown.press("colon", *"lr")
        assert [row.split()[0] for row in candidates(shown)] == ["▶"]
        await shown.press(*"=1e-4")
        assert candidates(shown) == ["▶ 1e-4  smaller steps, late in training"]
        await shown.press("5")
        assert candidates(shown) == []
        await shown.press("backspace")
        assert len(candidates(shown)) == 1


async def test_tab_completes_with_the_first_candidate() -> None:
    async with screen() as shown:
        await shown.press("colon", *"op", "tab", *"rm", "tab", "enter")
        assert shown.session.commands() == "optimizer=rmsprop"


async def test_tab_completes_the_last_word_alone() -> None:
    async with screen() as shown:
        await shown.press("colon", *"fb", "space", *"lr=1e-3", "space", *"und", "tab")
        assert typed(shown) == "fb lr=1e-3 undo"


async def test_tab_does_nothing_where_nothing_fits() -> None:
    async with screen() as shown:
        await shown.press("colon", *"xyz", "tab")
        assert typed(shown) == "xyz"


async def test_down_and_up_move_the_mark_and_go_round() -> None:
    async with screen() as shown:
        await shown.press("l", "down")
        assert marked(shown) == "1e-2"
        await shown.press("up", "up")
        assert marked(shown) == "1e-5"
        await shown.press("down")
        assert marked(shown) == "1e-1"


async def test_enter_submits_what_is_typed_where_no_candidate_was_chosen() -> None:
    async with screen() as shown:
        await shown.press("colon", *"fbs", "enter")
        assert shown.session.commands() == "fbs"


async def test_enter_submits_the_candidate_that_was_chosen() -> None:
    async with screen() as shown:
        await shown.press("l", "down", "down", "enter")
        assert shown.session.commands() == "lr=0.001"
        assert not shown.app.main.query_one(Prompt).is_open


async def test_enter_on_the_beginning_of_a_word_goes_on_from_it() -> None:
    async with screen() as shown:
        await shown.press("colon", "down", "down", "down", "enter")
        assert typed(shown) == "lr="
        assert len(candidates(shown)) == 5


async def test_typing_on_forgets_the_choice() -> None:
    async with screen() as shown:
        await shown.press("colon", *"optimizer=ada", "down", *"m", "enter")
        assert shown.session.commands() == "optimizer=adam"


async def test_escape_closes_the_list_with_the_prompt() -> None:
    async with screen() as shown:
        await shown.press("l", "down", "escape")
        assert candidates(shown) == []
        assert not shown.app.main.query_one(Prompt).is_open
        await shown.press("f")
        assert shown.session.commands() == "f"


async def test_ctrl_c_in_the_prompt_is_answered_as_everywhere() -> None:
    async with screen() as shown:
        await shown.press("colon", "f")
        assert candidates(shown)
        await shown.press("ctrl+c")
        assert "once more quits" in shown.note
        assert not candidates(shown)  # which would lie over the note
        assert typed(shown) == "f"
        await shown.press("ctrl+c")
        assert shown.app.return_code == 130


async def test_up_in_an_empty_prompt_brings_back_what_was_submitted() -> None:
    async with screen() as shown:
        await shown.press("colon", *"lr=0.5", "enter", "colon", *"fb", "enter", "colon", "up")
        assert typed(shown) == "fb"
        await shown.press("up")
        assert typed(shown) == "lr=0.5"
        await shown.press("down", "down")
        assert typed(shown) == ""
        await shown.press("up", "up", "enter")
        assert shown.session.commands() == "lr=0.5 fb lr=0.5"


async def test_up_in_a_prompt_that_was_left_among_earlier_words_begins_at_the_newest() -> None:
    async with screen() as shown:
        await shown.press("colon", "f", "enter", "colon", "b", "enter", "colon", "up", "up", "escape", "colon", "up")
        assert typed(shown) == "b"


@pytest.mark.parametrize("size", SIZES)
async def test_a_click_takes_the_candidate_under_the_mouse(size: tuple[int, int]) -> None:
    async with screen(size=size) as shown:
        await shown.press("o")
        await shown.pilot.click(CompletionList, offset=(6, 2))
        await shown.settle()
        assert typed(shown) == "optimizer=adam"
        await shown.press("enter")
        assert shown.session.commands() == "optimizer=adam"


@pytest.mark.parametrize("y", [0, 7, 8])
async def test_a_click_on_the_edge_of_the_list_takes_nothing(y: int) -> None:
    async with screen(size=(60, 15)) as shown:
        await shown.press("o")
        await shown.pilot.click(
            CompletionList, offset=(6, min(y, shown.app.main.query_one(CompletionList).size.height))
        )
        await shown.settle()
        assert typed(shown) == "optimizer="


async def test_a_click_beside_the_prompt_leaves_keys_to_it() -> None:
    async with screen() as shown:
        await shown.press("colon")
        await shown.pilot.click("StatusPanel")
        await shown.press(*"fb", "enter")
        assert shown.session.commands() == "fb"


def regions(shown: Screen) -> dict[str, Region]:
    main = shown.app.main
    fixed = [each for each in main.query("Panel") if not isinstance(each, CompletionList) and each.region.area]
    return {f"{type(each).__name__}{each.id}": each.region for each in fixed}


@pytest.mark.parametrize("scenario", ["linear", "resnet18"])
async def test_nothing_moves_when_the_prompt_opens(scenario: str) -> None:
    async with screen(scenario, do="fb") as shown:
        for size in SIZES:
            await shown.resize(*size)
            before = regions(shown)
            await shown.press("colon")
            assert regions(shown) == before
            await shown.press("l", "escape")
            assert regions(shown) == before


@pytest.mark.parametrize("size", [*SIZES, (40, 10), (20, 4)])
async def test_the_list_stands_whole_right_above_the_prompt(size: tuple[int, int]) -> None:
    async with screen(do="fbs", size=size) as shown:
        width, height = size
        panel, prompt = shown.app.main.query_one(CompletionList), shown.app.main.query_one(Prompt)
        for text in ["", "lr=", "optimizer=", "optimizer=adam,", "@", "theme ", "w="]:
            shown.app.main.action_prompt(text)
            await shown.settle()
            assert prompt.region == Region(0, height - 1, width, 1)
            assert panel.region.bottom == height - 1
            assert Region(0, 0, width, height).contains_region(panel.region)
            on_top, _ = shown.app.main.get_widget_at(panel.region.x + 2, panel.region.y + 1)
            assert panel in on_top.ancestors_with_self
            assert width < 60 or "…" not in shown.text("CompletionList")


async def test_the_marked_candidate_is_always_in_sight() -> None:
    async with screen() as shown:
        for size in SIZES:
            await shown.resize(*size)
            await shown.press("colon")
            for key in [*["down"] * 21, *["up"] * 3]:
                await shown.press(key)
                assert sum(row.startswith("▶") for row in candidates(shown)) == 1
            await shown.press("escape")


@pytest.mark.parametrize("size", SIZES)
async def test_what_is_not_understood_is_said_whole_right_above_the_prompt(size: tuple[int, int]) -> None:
    async with screen(size=size) as shown:
        for word in ["xyzzy", "forwrd", "speed 0", "model " + "x" * 80, "sort x"]:
            await burst(shown, "colon", word, "enter")
            assert typed(shown) == word
            assert candidates(shown) == []
            assert shown.text("NotePanel").split() == shown.note.split()
            note = shown.app.main.query_one("NotePanel")
            assert note.region.bottom == size[1] - 1
            assert shown.app.main.get_widget_at(1, note.region.y)[0] is note
            await shown.press("escape")


async def test_words_that_were_not_understood_can_be_mended_with_the_list() -> None:
    async with screen() as shown:
        await shown.press("colon", *"optimiser=adam", "enter")
        assert shown.note == '"optimiser=adam" is not understood: the nearest is optimizer=adam.'
        await shown.press("ctrl+u", *"opt", "tab", *"adam", "enter")
        assert shown.session.commands() == "optimizer=adam"


@pytest.mark.parametrize("key", ["up", "down"])
async def test_an_arrow_behind_words_that_were_refused_brings_the_list_back(key: str) -> None:
    async with screen() as shown:
        await shown.press("colon", *"lr", "enter", key)
        assert "learning rate" in shown.text("CompletionList")


async def test_a_burst_of_words_and_keys_keeps_its_order() -> None:
    async with screen() as shown:
        await burst(shown, *"flx", "backspace", *"0.5", "enter", "b", "colon", *"w=3", "enter", "s")
        assert shown.session.commands() == "f lr=0.5 b w=3 s"


async def test_keys_before_a_quick_escape_are_words_and_those_behind_it_keys() -> None:
    async with screen() as shown:
        await burst(shown, "colon", *"bbb", "escape", *"fb", "colon", "z", "escape", "s")
        assert shown.session.commands() == "fbs"


async def test_completion_in_a_burst_takes_what_fits_at_that_moment() -> None:
    async with screen() as shown:
        await burst(shown, "colon", *"op", "tab", *"ad", "down", "tab", "enter", "f", "l", "down", "down", "enter", "b")
        assert shown.session.commands() == "optimizer=adamw f lr=0.001 b"


async def test_what_is_pasted_stands_where_it_was_pasted() -> None:
    async with screen() as shown:
        await burst(shown, "colon", "f", "b lr=0.25\nz", *"*", "backspace", "enter", "z")
        assert shown.session.commands() == "fb lr=0.25 z"


async def test_a_line_that_is_too_long_is_not_taken_but_what_was_there_before_it_stays() -> None:
    async with screen() as shown:
        await burst(shown, "colon", "f", "b" * 10_000)
        assert shown.note == "a line of more than 10,000 characters is not taken"
        await burst(shown, "b", "enter")
        assert shown.session.commands() == "fb"


KEYS = st.sampled_from([*"fblr=01,@ w", "tab", "up", "down", "enter", "left", "backspace", "escape", "colon"])


@examples(12)
@given(st.lists(KEYS, max_size=25))
async def test_random_keys_never_break_the_prompt(keys: list[str]) -> None:
    async with screen(size=(60, 15)) as shown:
        post(shown, "colon", *keys)
        await shown.pilot.pause()  # a run that they began may go on for ever
        await shown.pilot.pause()
        if not shown.app.is_running:
            assert shown.app.return_code == 0  # they have chosen quit, the last word of the list
            return
        assert sum(row.startswith("▶") for row in candidates(shown)) == bool(candidates(shown))


@pytest.mark.parametrize(("word", "theme"), [("light", "textual-light"), ("ansi", "ansi-dark"), ("nord", "nord")])
async def test_a_theme_can_be_said(word: str, theme: str) -> None:
    async with screen() as shown:
        await burst(shown, "colon", f"theme {word}", "enter")
        assert shown.app.theme == theme


async def test_an_unknown_theme_is_answered_with_the_nearest() -> None:
    async with screen() as shown:
        await burst(shown, "colon", "theme drak", "enter")
        assert shown.note == '"drak" is no theme: the nearest is dark.'


async def test_a_number_of_iterations_can_be_said() -> None:
    async with screen() as shown:
        await burst(shown, "colon", "run 3", "enter")
        assert shown.session.commands() == "fbsz*3"


async def test_a_run_until_a_loss_can_be_said() -> None:
    async with screen() as shown:
        await burst(shown, "colon", "run loss<1", "enter")
        assert shown.session.frame.loss is not None
        assert 0.9 < shown.session.frame.loss < 1


async def test_a_speed_can_be_said() -> None:
    async with screen() as shown:
        await burst(shown, "colon", "speed 4", "enter")
        assert shown.app.main.trainer.speed == 4
        assert shown.note == "r runs at 4 commands a second"
        await burst(shown, "colon", "speed full", "enter")
        assert shown.app.main.trainer.speed is None


async def test_the_scale_of_the_loss_can_be_said() -> None:
    async with screen() as shown:
        await burst(shown, "colon", *"log", "enter")
        assert shown.app.main.view.log_scale
        await burst(shown, "colon", *"linear", "enter")
        assert not shown.app.main.view.log_scale


async def test_export_in_words_makes_a_picture_without_the_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with screen(do="fbs") as shown:
        await shown.press("colon", *"export", "enter")
        await shown.settle()
        assert "written: " in shown.note
    assert ["export" in path.read_text() for path in tmp_path.glob("*.svg")] == [False]


async def test_help_and_quit_can_be_said() -> None:
    async with screen() as shown:
        await shown.press("colon", *"help", "enter")
        assert shown.app.screen is not shown.app.main
        await shown.press("escape", "colon", *"quit", "enter")
        assert shown.app.return_code == 0


async def test_files_here_are_offered_as_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("")
    monkeypatch.chdir(tmp_path)
    async with screen() as shown:
        await burst(shown, "colon", "model m")
        assert candidates(shown) == ["▶ mine.py  your own, where it holds a @scenario or a model"]
