from __future__ import annotations

import pytest

from app_screen import Screen, screen
from autograd_tui.tui.panels.code import CodePanel
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.panels.text_panels import ConsolePanel


def visible(shown: Screen) -> list[str]:
    panels = shown.app.main.query("Layout Panel").results(Panel)
    return [type(each).__name__ for each in panels if each.content_size.area and each.region.area]


async def test_tab_chooses_a_panel_and_a_shows_it_alone() -> None:
    async with screen(do="fb") as shown:
        before = visible(shown)
        await shown.press("tab")
        chosen = shown.app.main.focused
        await shown.press("tab", "shift+tab")
        assert shown.app.main.focused is chosen
        await shown.press("a")
        assert visible(shown) == ["PhasesPanel", type(chosen).__name__]
        await shown.press("a")
        assert visible(shown) == before


@pytest.mark.parametrize("scenario", ["linear", "resnet18"])
@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
async def test_every_panel_can_be_alone(scenario: str, size: tuple[int, int]) -> None:
    async with screen(scenario, do="fbs", size=size) as shown:
        panels = [each for each in shown.app.main.layout_shown.query(Panel) if each.can_focus and each.region.area]
        for panel in panels:
            await shown.press("tab")
            assert shown.app.main.focused is panel
            await shown.press("a")
            assert visible(shown) == ["PhasesPanel", type(panel).__name__]
            assert panel.region.width == size[0]
            await shown.press("escape")


@pytest.mark.parametrize(("size", "rows"), [((120, 40), 2), ((80, 24), 2), ((60, 15), 1)])
async def test_the_phases_stay_over_a_panel_that_is_alone(size: tuple[int, int], rows: int) -> None:
    async with screen(do="fb", size=size) as shown:
        main = shown.app.main
        main.zoom(main.layout_shown.query_one(ConsolePanel))
        await shown.press("s")
        assert "STEP" in shown.text("PhasesPanel")
        assert main.query_one("PhasesPanel").region.height == rows
        assert main.query_one("ConsolePanel").region.height > size[1] - 7


async def test_a_without_a_chosen_panel_says_how_to_choose_one() -> None:
    async with screen() as shown:
        await shown.press("a")
        assert "tab chooses a panel" in shown.note


async def test_keys_still_run_while_a_panel_is_alone() -> None:
    async with screen() as shown:
        await shown.press("tab", "a", "space", "space", "left", "escape", "escape")
        assert shown.session.commands() == "fb"


async def test_another_size_shows_all_panels_again() -> None:
    async with screen(do="f") as shown:
        await shown.press("tab", "a")
        await shown.resize(80, 24)
        assert len(visible(shown)) > 3


async def test_a_chosen_panel_stays_chosen_at_another_size() -> None:
    async with screen(do="f") as shown:
        await shown.press("shift+tab")
        chosen = type(shown.app.main.focused)
        await shown.resize(80, 24)
        assert type(shown.app.main.focused) is chosen
        assert shown.app.main.layout_shown in (shown.app.main.focused or shown.app.main).ancestors


async def test_a_chosen_panel_that_another_size_has_no_room_for_leaves_none_chosen() -> None:
    async with screen(do="f") as shown:
        await shown.press("tab")
        await shown.resize(60, 15)
        assert shown.app.main.focused is None


async def test_a_row_that_says_the_same_is_not_drawn_anew() -> None:
    async with screen(do="fb") as shown:
        panel = shown.app.main.query_one(CodePanel)
        before = [panel.render_line(y) for y in range(panel.content_size.height)]
        await shown.press("s")
        after = [panel.render_line(y) for y in range(panel.content_size.height)]
        assert [one is other for one, other in zip(before, after, strict=True)].count(False) == 2


async def test_what_a_model_prints_stands_in_the_console() -> None:
    async with screen() as shown:
        assert "ConsolePanel" not in visible(shown)
        shown.app.main.output.take_in(b"one\ntwo\n")
        await shown.until(lambda: "ConsolePanel" in visible(shown))
        assert "one\ntwo" in shown.text("ConsolePanel")


async def test_the_console_comes_at_any_size_when_asked_for() -> None:
    async with screen(size=(80, 24)) as shown:
        await shown.press("colon", *"console", "enter")
        assert "no whole line has been printed" in shown.note
        await shown.press("escape")
        shown.app.main.output.take_in("".join(f"line {place}\n" for place in range(300)).encode())
        await shown.until(lambda: len(shown.app.main.view.printed) > 100)
        await shown.press("colon", *"console", "enter")
        assert visible(shown) == ["PhasesPanel", "ConsolePanel"]
        assert shown.text("ConsolePanel").endswith("line 299")
        await shown.press("escape")
        assert "ConsolePanel" not in visible(shown)


async def test_thousands_of_printed_lines_ask_for_few_looks() -> None:
    async with screen() as shown:
        looks: list[int] = []
        shown.app.main.watch(
            shown.app.main, "view", lambda old, new: looks.extend([1] * (old.printed is not new.printed)), init=False
        )
        for place in range(5000):
            shown.app.main.output.take_in(f"{place}\n".encode())
        await shown.until(lambda: shown.app.main.view.printed[-1:] == ("4999",))
        assert len(looks) <= 6


async def test_a_click_on_a_phase_runs_it() -> None:
    async with screen() as shown:
        panel = next(each for each in shown.app.main.query("PhasesPanel") if each.region.area)
        await shown.pilot.click(panel, offset=(4, 0))
        await shown.settle()
        assert shown.session.commands() == "f"


async def test_a_click_on_the_plot_looks_at_that_iteration() -> None:
    async with screen(do="fbsz*9") as shown:
        panel = next(each for each in shown.app.main.query("LossPanel") if each.region.area)
        await shown.pilot.click(panel, offset=(panel.region.width - 3, 3))
        await shown.settle()
        assert "frame 33 of 36" in shown.text("StatusPanel")


async def test_another_scenario_opens_in_words_and_the_old_ones_line_is_kept() -> None:
    async with screen(do="fb") as shown:
        await shown.press("colon", *"model", "space", *"resnet18", "enter")
        main = shown.app.main
        await shown.until(lambda: main.view.about is not None and main.view.about.title == "resnet18")
        await shown.press("f")
        assert "resnet18" in shown.text("StatusPanel")
        assert shown.app.main.trainer.runner.earlier_command_lines == ["autograd-tui linear --do fb"]
        assert shown.session.commands() == "f"


async def test_where_there_is_no_panel_to_choose_both_keys_say_so() -> None:
    async with screen(size=(60, 15)) as shown:
        for key in ("a", "tab"):
            await shown.press(key)
            assert shown.note == "no panel can be chosen in so small a terminal: make it larger"
        await shown.pilot.resize_terminal(80, 24)
        await shown.until(lambda: shown.note == "")


@pytest.mark.parametrize("size", [(80, 24), (60, 15)])
@pytest.mark.parametrize("scenario", ["linear", "spiral"])
async def test_code_and_sentences_begin_in_one_column(scenario: str, size: tuple[int, int]) -> None:
    async with screen(scenario, do="f", size=size) as shown:
        code, sentences = (shown.app.main.query_one(name) for name in ("CodePanel", "ExplanationPanel"))
        assert code.content_region.x == sentences.content_region.x == 1
