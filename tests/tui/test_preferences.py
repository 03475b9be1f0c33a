from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest

from app_screen import screen
from autograd_tui.core.errors import Refused
from autograd_tui.tui import preferences
from autograd_tui.tui.preferences import Preferences, load_preferences, save_preferences
from autograd_tui.tui.terminal import Terminal
from autograd_tui.tui.themes import theme_named


def test_choices_come_back_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "screen.json"
    save_preferences(file, Preferences(theme="nord", log_scale=True))
    assert load_preferences(file) == Preferences(theme="nord", log_scale=True)


@pytest.mark.parametrize("ascii_only", [True, False, None])
def test_ascii_is_remembered_or_left_to_the_terminal(tmp_path: Path, ascii_only: bool | None) -> None:
    save_preferences(tmp_path / "screen.json", Preferences(ascii_only=ascii_only))
    assert load_preferences(tmp_path / "screen.json").ascii_only is ascii_only


NESTED, HUGE = "[" * 100_000, '{"theme": "' + "x" * 5_000_000


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"theme": 1}', "null", "\x00", NESTED, HUGE])
def test_a_file_that_makes_no_sense_is_as_if_it_were_not_there(tmp_path: Path, text: str) -> None:
    (tmp_path / "screen.json").write_text(text)
    assert load_preferences(tmp_path / "screen.json") == Preferences()


def test_a_folder_in_the_files_place_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    assert load_preferences(tmp_path) == Preferences()
    save_preferences(tmp_path, Preferences(theme="nord"))


def test_bytes_that_are_no_text_are_as_if_they_were_not_there(tmp_path: Path) -> None:
    (tmp_path / "screen.json").write_bytes(bytes(range(256)))
    assert load_preferences(tmp_path / "screen.json") == Preferences()


def test_a_folder_that_cannot_be_written_disturbs_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    save_preferences(tmp_path / "file" / "screen.json", Preferences())


def test_a_full_disk_leaves_what_was_chosen_before(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    save_preferences(tmp_path / "screen.json", Preferences(theme="nord"))
    request.getfixturevalue("full_disk")
    save_preferences(tmp_path / "screen.json", Preferences(theme="gruvbox"))
    assert load_preferences(tmp_path / "screen.json") == Preferences(theme="nord")
    assert len(list(tmp_path.iterdir())) == 1


def test_without_a_home_folder_nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preferences, "user_config_path", Mock(side_effect=RuntimeError))
    save_preferences(preferences.preferences_file(), Preferences(theme="nord"))
    assert load_preferences(preferences.preferences_file()) == Preferences()


async def test_what_is_chosen_on_screen_is_remembered(tmp_path: Path) -> None:
    file = tmp_path / "screen.json"
    async with screen(preferences_file=file) as shown:
        await shown.press("y")
        shown.app.theme = "nord"
        await shown.settle()
    assert load_preferences(file) == Preferences(theme="nord", log_scale=True)


async def test_a_log_scale_that_is_remembered_is_said_at_the_start() -> None:
    async with screen(preferences=Preferences(log_scale=True)) as shown:
        assert "on a log scale, as you left it" in shown.text("NotePanel")
        await shown.press("n")
        assert "log scale" in str(shown.app.main.query("LossPanel").first().border_title)
        await shown.press("v", "f", *"y")
        assert shown.app.main.view.hidden is not None
        assert "log scale" not in str(shown.app.main.query("LossPanel").first().border_title)


async def test_a_theme_that_is_gone_gives_way_to_the_usual_one() -> None:
    async with screen(preferences=Preferences(theme="no such theme")) as shown:
        assert shown.app.theme == Preferences().theme


async def test_a_theme_for_one_run_is_not_remembered(tmp_path: Path) -> None:
    file = tmp_path / "screen.json"
    async with screen(preferences=Preferences(theme="nord"), preferences_file=file, theme="ansi-dark") as shown:
        assert shown.app.theme == "ansi-dark"
        await shown.press("y")
    assert load_preferences(file) == Preferences(theme="nord", log_scale=True)


async def test_characters_are_the_terminals_until_they_are_chosen(tmp_path: Path) -> None:
    file = tmp_path / "screen.json"
    async with screen(preferences_file=file, terminal=Terminal(ascii_only=True)) as shown:
        assert shown.app.ascii_only
        await shown.press("y")
        assert load_preferences(file).ascii_only is None
        await shown.press("colon", *"unicode", "enter")
        assert load_preferences(file).ascii_only is False


@pytest.mark.parametrize(
    ("name", "meant"), [("nrod", "nord"), ("lihgt", "light"), ("Dracula", "dracula"), ("tokyonight", "tokyo-night")]
)
def test_a_theme_that_there_is_not_is_refused_with_the_nearest(name: str, meant: str) -> None:
    with pytest.raises(Refused, match=f'"{name}" is no theme: the nearest is {meant}.'):
        theme_named(name)


def test_a_theme_like_no_other_is_refused_with_all() -> None:
    with pytest.raises(Refused, match=r'"xyz" is no theme: there are dark, light, ansi, .*solarized-dark'):
        theme_named("xyz")


@pytest.mark.parametrize("theme", ["textual-dark", "textual-light", "ansi-dark", "nord", "solarized-light"])
async def test_every_theme_draws_the_screen(theme: str) -> None:
    async with screen(do="fbs", preferences=Preferences(theme=theme)) as shown:
        assert "▶ optimizer.step()" in shown.text("CodePanel")
