"""The screen in every theme and on every kind of terminal: all of it can be read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from itertools import product

import pytest
from textual.color import Color
from textual.theme import BUILTIN_THEMES

from app_screen import Screen, screen
from autograd_tui.text.picture_lines import LEVELS, SIDE_LEVELS
from autograd_tui.tui import terminal
from autograd_tui.tui.panels.loss import LossPanel
from autograd_tui.tui.preferences import Preferences
from autograd_tui.tui.screen_state import Note
from autograd_tui.tui.terminal import Terminal, nearest_of_256
from autograd_tui.tui.themes import USUAL, contrast, luminance, ramp_color, ramp_style, readable, side_color, unchanged
from screen_cells import cells, words
from suite_options import some

ANSI = [name for name, theme in BUILTIN_THEMES.items() if theme.ansi]
THEMES = [name for name in BUILTIN_THEMES if name not in ANSI]
MOST = ("textual-dark", "textual-light")  # the usual ones have more than the least contrast
RED, MAGENTA = 1, 5
SMALL = {"image_size": 32, "batch_size": 2}


STATES = {  # the keys that lead from one to the next
    "nothing has run": "",
    "forward": "f",
    "backward": "b",
    "step, the loss is old": "s",
    "zero_grad": "z",
    "a refusal": "b",
    "gradients summed and used": "f b F b s",
    "an error": "B",
    "looking back": "left left",
    "a count": "escape 5",
    "the prompt with a hint": "escape l",
    "the empty prompt": "escape colon",
    "words without meaning": "x enter",
    "help": "escape question_mark",
    "the end of it": "escape",
}
IN_SHORT = {
    "step, the loss is old": "f b s",
    "an error": "B",
    "looking back": "left",
    "the empty prompt": "escape colon",
    "help": "escape question_mark",
    "the end of it": "escape",
}
NOTES = ("", "dim", "strong", "accent", "now", "up", "positive", "negative", "warn", "error")


async def states(shown: Screen, keys: Mapping[str, str]) -> AsyncIterator[str]:
    """Lead a new screen through what it can look like, and name each."""
    for state, pressed in keys.items():
        await shown.press(*pressed.split())
        yield state
    for style in NOTES:
        shown.app.main.say(Note("a note", style))
        yield f"a note, {style}"


async def faults(theme: str, least: float, *, terminal: Terminal | None = None) -> list[str]:
    """Give what cannot be read."""
    found = []
    size, keys = ((120, 40), STATES) if theme in MOST else ((80, 24), IN_SHORT)
    async with screen(preferences=Preferences(theme=theme), terminal=terminal, size=size) as shown:
        async for state in states(shown, keys):
            faint = [cell for cell in words(shown.app) if cell.contrast < least]
            if faint:
                text = "".join(cell.character for cell in faint)
                found.append(f"{state}: {text[:60]} at {min(cell.contrast for cell in faint):.2f}")
    return found


@pytest.mark.parametrize("theme", some([*MOST, *(each for each in THEMES if each not in MOST)], 5))
async def test_all_text_stands_out_in_every_theme(theme: str) -> None:
    assert not await faults(theme, 7.0 if theme in MOST else 4.5)


@pytest.mark.parametrize("theme", some([*MOST, "nord"], 1))
async def test_all_text_stands_out_where_there_are_256_colours(theme: str) -> None:
    assert not await faults(theme, 7.0 if theme in MOST else 4.5, terminal=Terminal(colors=256))


@pytest.mark.parametrize("theme", some(THEMES, 8))
def test_text_stands_out_in_every_theme_of_256_colours(theme: str) -> None:
    variables = BUILTIN_THEMES[theme].to_color_system().generate()
    made = readable(BUILTIN_THEMES[theme], variables, shown=nearest_of_256)
    grounds = [nearest_of_256(Color.parse(variables[name])) for name in ("background", "surface", "panel")]
    for name, color in made.items():
        if name.startswith("text-") or name == "foreground":
            text = nearest_of_256(Color.parse(color))
            assert min(contrast(text, ground) for ground in grounds) >= 4.5, name


@pytest.mark.parametrize("theme", some(["textual-light", "nord", "solarized-dark"], 1))
async def test_textuals_own_colours_would_not_pass(theme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_what_textual_lacks(*given: object, **options: object) -> dict[str, str]:
        ours = readable(*given, **options)  # type: ignore[arg-type]
        return {name: ours[name] for name in ours if name not in given[1]}  # type: ignore[operator]

    monkeypatch.setattr(terminal, "readable", only_what_textual_lacks)
    assert await faults(theme, 7.0 if theme in MOST else 4.5)


@pytest.mark.parametrize("shown", [unchanged, nearest_of_256], ids=["all colours", "256"])
@pytest.mark.parametrize("dark", [True, False], ids=["dark", "light"])
def test_a_map_is_brighter_or_darker_from_level_to_level_and_its_marks_stand_out(
    dark: bool, shown: Callable[[Color], Color]
) -> None:
    ramp = [ramp_color(level, dark=dark, shown=shown) for level in range(LEVELS)]
    assert [shown(color) for color in ramp] == ramp
    lights = [luminance(color) for color in ramp]
    assert lights == sorted(lights, reverse=not dark)
    assert len(set(lights)) >= 6
    for level in range(-1, LEVELS):
        style = ramp_style("mark", str(level), dark=dark, shown=shown)
        assert style.color is not None
        assert style.bgcolor is not None
        text, ground = (shown(Color(*color.get_truecolor())) for color in (style.color, style.bgcolor))
        assert contrast(text, ground) >= 7.0, level


@pytest.mark.parametrize("shown", [unchanged, nearest_of_256], ids=["all colours", "256"])
@pytest.mark.parametrize("dark", [True, False], ids=["dark", "light"])
def test_the_two_sides_of_a_plane_have_hues_of_their_own_and_marks_stand_out_on_both(
    dark: bool, shown: Callable[[Color], Color]
) -> None:
    sides = [side_color(level, dark=dark, shown=shown) for level in range(SIDE_LEVELS)]
    assert len(set(sides)) == SIDE_LEVELS
    assert sides[0].b > sides[0].r
    assert sides[-1].r > sides[-1].b
    for kind, level in product(("side", "wrong"), range(-1, SIDE_LEVELS)):
        style = ramp_style(kind, str(level), dark=dark, shown=shown)
        assert style.color is not None
        assert style.bgcolor is not None
        text, ground = (shown(Color(*color.get_truecolor())) for color in (style.color, style.bgcolor))
        assert contrast(text, ground) >= 7.0, level


@pytest.mark.parametrize("theme", ANSI)
async def test_the_terminals_own_colours_are_those_that_read_on_black_and_on_white(theme: str) -> None:
    async with screen(preferences=Preferences(theme=theme), size=(80, 24)) as shown:
        async for state in states(shown, STATES):
            for cell in words(shown.app):
                assert {color.number for color in cell.colors} <= {None, RED, MAGENTA}, (state, cell)
                assert not any(color.triplet for color in cell.colors), (state, cell)
                assert not cell.style.dim, (state, cell)
                assert cell.style.bgcolor is None or cell.style.bgcolor.is_default, (state, cell)


@pytest.mark.parametrize("theme", THEMES)
def test_what_is_old_is_not_red_and_no_error_where_there_are_256_colours(theme: str) -> None:
    themes = BUILTIN_THEMES | {each.name: each for each in USUAL}
    variables = themes[theme].to_color_system().generate()
    made = readable(themes[theme], variables, shown=nearest_of_256)
    old, error = (nearest_of_256(Color.parse(made[f"text-{kind}"])) for kind in ("warning", "error"))
    assert old != error
    assert max(old.rgb) - min(old.rgb) < 40 or 15 < old.hsl.h * 360 < 345
    assert max(error.rgb) - min(error.rgb) >= 40


@pytest.mark.parametrize("theme", [*MOST, "ansi-dark"])
async def test_red_is_for_errors_and_signs_alone_and_old_is_not_red(theme: str) -> None:
    async with screen(do="fbs", preferences=Preferences(theme=theme)) as shown:
        panel = shown.app.main.query_one(LossPanel)
        looks = {name: panel._look(name).color for name in ("up", "warn", "error", "positive", "negative")}
        assert looks["warn"] != looks["error"]
        if theme in MOST:
            hues = {name: Color(*color.get_truecolor()).hsl.h * 360 for name, color in looks.items() if color}
            assert 100 < hues["up"] < 160  # green: new
            assert 15 < hues["warn"] < 45  # orange: old
            assert min(hues["positive"], 360 - hues["positive"]) < 12  # red
            assert 195 < hues["negative"] < 225  # blue
        drawn = "".join(cell.character for cell in words(shown.app) if cell.style.color == looks["error"])
        assert set(drawn) <= set("▲█▉▊▋▌▍▎▏")


@pytest.mark.parametrize("terminal", [Terminal(colorless=True), Terminal()], ids=["without colours", "ansi"])
async def test_the_phase_that_ran_is_reversed_where_colours_cannot_mark_it(terminal: Terminal) -> None:
    theme = "textual-dark" if terminal.colorless else "ansi-dark"
    async with screen(do="f", preferences=Preferences(theme=theme), terminal=terminal) as shown:
        marked = "".join(cell.character for cell in words(shown.app) if cell.style.reverse)
        assert marked.startswith("▌FORWARD▐")


@pytest.mark.parametrize("theme", some(["textual-dark", "textual-light", "ansi-dark"], 1))
async def test_no_color_leaves_none(theme: str) -> None:
    async with screen(preferences=Preferences(theme=theme), terminal=Terminal(colorless=True)) as shown:
        async for state in states(shown, STATES):
            assert not any(cell.colors for cell in cells(shown.app)), state


@pytest.mark.parametrize("size", some([(120, 40), (80, 24), (60, 15)], 1), ids=str)
@pytest.mark.parametrize("scenario", ["linear", "resnet18"])
async def test_in_ascii_every_character_is(scenario: str, size: tuple[int, int]) -> None:
    options = SMALL if scenario == "resnet18" else {}
    async with screen(scenario, size=size, preferences=Preferences(ascii_only=True), **options) as shown:  # type: ignore[arg-type]
        async for state in states(shown, STATES):
            text = "".join(cell.character for cell in cells(shown.app))
            assert text.isascii(), (state, {one for one in text if not one.isascii()})
            assert len(text) == size[0] * size[1] or state == "help"


async def test_another_theme_is_drawn_whole_at_once() -> None:
    async with screen(do="fbs") as shown:
        for theme in ("textual-light", "textual-dark", "textual-light"):
            shown.app.theme = theme
            await shown.settle()
            assert all(cell.contrast >= 7.0 for cell in words(shown.app))


async def test_the_characters_change_at_once() -> None:
    async with screen(do="fbs") as shown:
        for ascii_only in (True, False, True):
            shown.app.ascii_only = ascii_only
            await shown.settle()
            assert all(cell.character.isascii() for cell in cells(shown.app)) is ascii_only
