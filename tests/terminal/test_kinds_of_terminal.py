"""The program on terminals that can show less."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from autograd_tui.tui.preferences import Preferences, load_preferences, save_preferences
from pseudo_terminal import Terminal, terminal
from suite_options import some

CHOSEN = Path("autograd-tui") / "screen.json"  # in the configuration folder


def rendition(shown: Terminal) -> set[str]:
    """Give what the program has asked for in colours and letters, each with its own parameters."""
    found = set()
    for sequence in re.findall(r"\x1b\[([\d;:]*)m", shown.bytes.decode(errors="replace")):
        found |= {"".join(part) for part in re.findall(r"([34]8;(?:5|2;\d+;\d+);)?(\d+)", sequence)}
    return found


def see_everything(shown: Terminal) -> None:
    """Lead the program through a step, an error, a refusal, help and the prompt, and out again."""
    shown.wait_for("frame 0 of 0")
    for keys, text in (("fbs", "frame 3 of 3"), ("B", "raised"), ("s", "would move twice"), ("?", "escape closes")):
        shown.type(keys)
        shown.wait_for(text)
    shown.type("q")
    shown.wait(lambda: "escape closes" not in shown.text, "the end of help")
    shown.type("l")
    shown.wait_for("usually from")
    shown.type("\x1b")
    shown.wait(lambda: "usually from" not in shown.text, "the end of the prompt")
    shown.type("\x03")
    shown.wait_for("once more quits")  # at once, or when the loss is no longer measured
    shown.type("\x03")
    shown.end()


def test_no_color_lets_no_colour_through() -> None:
    with terminal("linear", NO_COLOR="1") as shown:
        see_everything(shown)
        assert "1" in rendition(shown), "bold"
        assert "7" in rendition(shown), "reverse"
        assert rendition(shown) <= {"0", "1", "3", "4", "7", "22", "24", "27"}


def test_an_empty_no_color_is_none() -> None:
    with terminal("linear", NO_COLOR="") as shown:
        shown.wait_for("frame 0 of 0")
        assert any(each.startswith("38;2;") for each in rendition(shown))


@pytest.mark.parametrize("term", some(["linux", "xterm", "vt220"], 1))
def test_sixteen_colours_are_the_terminals_own(term: str) -> None:
    with terminal("linear", TERM=term, COLORTERM="") as shown:
        see_everything(shown)
        colours = {each for each in rendition(shown) if int(each.split(";")[-1]) >= 30}
        assert colours <= {"31", "35", "39", "49"}, "red, magenta and what the terminal uses by itself"


def test_256_colours_are_used_where_there_are_no_more() -> None:
    with terminal("linear", COLORTERM="") as shown:
        see_everything(shown)
        assert any(each.startswith("38;5;") for each in rendition(shown))
        assert not any(each.startswith(("38;2;", "48;2;")) for each in rendition(shown))


def test_a_theme_that_the_terminal_chose_is_not_remembered(tmp_path: Path) -> None:
    save_preferences(tmp_path / CHOSEN, Preferences(theme="nord"))
    with terminal("linear", TERM="xterm", COLORTERM="", XDG_CONFIG_HOME=str(tmp_path)) as shown:
        shown.wait_for("frame 0 of 0")
        shown.type("fy")
        shown.wait_for("log scale")
        shown.type("q")
        shown.end()
    assert load_preferences(tmp_path / CHOSEN) == Preferences(theme="nord", log_scale=True)


def test_what_the_command_line_chooses_is_remembered(tmp_path: Path) -> None:
    with terminal("linear", "--theme", "light", "--ascii", XDG_CONFIG_HOME=str(tmp_path)) as shown:
        shown.wait_for("frame 0 of 0")
        shown.type("q")
        shown.end()
    assert load_preferences(tmp_path / CHOSEN) == Preferences(theme="textual-light", ascii_only=True)


@pytest.mark.parametrize(("locale", "ascii_only"), [("C", True), ("C.UTF-8", False)])
def test_ascii_is_drawn_where_the_locale_knows_nothing_else(locale: str, ascii_only: bool) -> None:
    with terminal("linear", "--do", "fbs", LC_ALL=locale) as shown:
        shown.wait_for("frame 3 of 3")
        assert shown.text.isascii() is ascii_only


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_that_cannot_place_text_is_refused_in_a_sentence(term: str) -> None:
    with terminal("linear", TERM=term) as shown:
        said = shown.end()
        assert said.startswith(f'autograd-tui: TERM="{term}" names no terminal')
        assert said.count("\n") == 1
        assert shown.exit_code == 2


@pytest.mark.parametrize(("width", "height"), some([(20, 5), (1, 1), (500, 200)], 2))
def test_a_terminal_of_any_size_is_drawn_on_and_left_in_order(width: int, height: int) -> None:
    with terminal("linear", width=width, height=height) as shown:
        shown.wait(lambda: bool(shown.bytes), "the first paint")
        shown.type("fbszf")
        shown.type("q")
        assert "autograd-tui linear" in shown.end().replace("\r\n", "")
        assert shown.exit_code == 0


@pytest.mark.parametrize("home", some(["/dev/null/nowhere", None], 1))
def test_no_home_folder_is_no_reason_to_stop(home: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    with terminal("linear", **({} if home is None else {"HOME": home})) as shown:  # type: ignore[arg-type]
        shown.wait_for("frame 0 of 0")
        shown.type("f")
        shown.wait_for("frame 1 of 1")
        shown.type("q")
        shown.end()
        assert shown.exit_code == 0


@pytest.mark.parametrize("kind", some(["folder", "loop", "secret"], 1))
def test_choices_that_cannot_be_read_or_kept_are_as_if_never_made(tmp_path: Path, kind: str) -> None:
    file = tmp_path / CHOSEN
    file.parent.mkdir()
    if kind == "folder":
        file.mkdir()
    elif kind == "loop":
        file.symlink_to(file)
    else:
        file.write_text("{}")
        file.chmod(0)
    with terminal("linear", "--theme", "light", XDG_CONFIG_HOME=str(tmp_path)) as shown:
        shown.wait_for("frame 0 of 0")
        shown.type("q")
        assert "Traceback" not in shown.end()
        assert shown.exit_code == 0
