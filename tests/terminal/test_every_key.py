"""Every key of the table, typed as a terminal sends it, does on screen what it says."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from textual.binding import Binding, BindingType

from autograd_tui.tui.keys import INSIDE_KEYS, KEYS
from pseudo_terminal import Terminal, terminal, with_seconds

SENT = {  # what a terminal sends for a key that is no character
    "space": " ",
    "enter": "\r",
    "escape": "\x1b",
    "tab": "\t",
    "shift+tab": "\x1b[Z",
    "up": "\x1b[A",
    "down": "\x1b[B",
    "right": "\x1b[C",
    "left": "\x1b[D",
    **{
        f"shift+{name}": f"\x1b[1;2{letter}"
        for name, letter in zip(("up", "down", "right", "left"), "ABCD", strict=True)
    },
    "home": "\x1b[H",
    "end": "\x1b[F",
    "pageup": "\x1b[5~",
    "pagedown": "\x1b[6~",
    "ctrl+c": "\x03",
    "ctrl+p": "\x10",
    # as where a terminal speaks kitty's keyboard protocol
    "shift+f": "\x1b[102;2u",
    "shift+b": "\x1b[98;2u",
    "shift+s": "\x1b[115;2u",
    "shift+z": "\x1b[122;2u",
    "plus": "+",
    "minus": "-",
    "equals_sign": "=",
    "comma": ",",
    "full_stop": ".",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "slash": "/",
    "colon": ":",
    "question_mark": "?",
}


class Row(NamedTuple):
    """A key, and what comes on screen by it, or goes."""

    key: str
    comes: str = ""
    goes: str = ""


ROWS = [  # typed from top to bottom, in one program; a line's end after a frame's number: only the first row has that
    Row("space", "▌FORWARD▐"),
    Row("pagedown", "▌BACKWARD▐"),
    Row("s", "▌STEP▐"),
    Row("z", "▌ZERO_GRAD▐"),
    Row("f", "▌FORWARD▐"),
    Row("b", "▌BACKWARD▐"),
    Row("f", "iteration 2   frame 7"),
    Row("s", "▌STEP▐"),
    Row("s", "would move twice"),
    Row("S", "frame 9 of 9"),
    Row("B", "frame 10 of 10"),
    Row("B", "raised"),
    Row("Z", "▌ZERO_GRAD▐"),
    Row("F", "▌FORWARD▐"),
    Row("shift+b", "▌BACKWARD▐"),
    Row("shift+s", "▌STEP▐"),
    Row("shift+z", "▌ZERO_GRAD▐"),
    Row("shift+f", "▌FORWARD▐"),
    Row("n", "frame 20 of 20"),
    # Looking, and going, back.
    Row("left", "frame 19 of 20\n"),
    Row("pageup", "frame 18 of 20\n"),
    Row("right", "frame 19 of 20\n"),
    Row("comma", "frame 15 of 20\n"),
    Row("full_stop", "frame 19 of 20\n"),
    Row("less_than_sign", "frame 0 of 20\n"),
    Row("greater_than_sign", "frame 20 of 20\n"),
    Row("home", "frame 0 of 20\n"),
    Row("end", "frame 20 of 20\n"),
    Row("left", "escape returns"),
    Row("escape", goes="escape returns"),
    Row("u", "gone back to frame 19"),
    # Counts.
    *(Row(digit, "12345"[: int(digit)] + "_") for digit in "12345"),
    Row("escape", goes="12345_"),
    *(Row(digit, "67890"[: int(digit) - 5] + "_") for digit in "6789"),
    Row("0", "67890_"),
    Row("escape", goes="67890_"),
    # Running.
    Row("minus", "r runs at 100 commands a second"),
    *(Row("minus", f"r runs at {pace} command") for pace in (50, 20, 10, 5, 2)),
    Row("minus", "r runs at 1 command a second"),
    Row("r", "running at 1 command a second"),
    Row("plus", "running at 2 commands a second"),
    Row("equals_sign", "running at 5 commands a second"),
    Row("minus", "running at 2 commands a second"),
    Row("r", goes="running at"),
    Row("r", "running at"),
    Row("space", goes="running at"),
    # The table.
    Row("down", "▶ w"),
    Row("down", "▶ b"),
    Row("up", "▶ w"),
    Row("enter", "exact"),
    Row("escape", goes="▶ w"),
    # Words.
    Row("slash", "a part of a parameter's name"),
    Row("escape", goes="a part of a parameter's name"),
    Row("colon", "words for the screen"),
    Row("escape", goes="words for the screen"),
    Row("l", "usually from 1e-1 down to 1e-5"),
    Row("escape", goes="usually from 1e-1 down to 1e-5"),
    Row("o", "options go behind a comma"),
    Row("escape", goes="options go behind a comma"),
    Row("g", "frame to return to"),
    Row("escape", goes="frame to return to"),
    Row("ctrl+p", "for a projector"),
    Row("escape", goes="for a projector"),
    # The screen.
    Row("tab", "┏━ Code"),
    Row("tab", "┏━ What happened"),
    Row("shift+tab", "┏━ Code"),
    Row("a", goes="╭─ Data"),
    Row("a", "╭─ Data"),
    Row("escape", goes="┏━ Code"),
    Row("v", "the veil is drawn"),
    Row("v", "the veil is gone"),
    Row("y", "log scale"),
    Row("y", goes="log scale"),
    Row("shift+left", "enter shows the frame"),
    Row("shift+up", " from "),
    Row("shift+down", goes="   from "),
    Row("escape", goes="enter shows the frame"),
    Row("shift+right", "enter shows the frame"),
    Row("escape", goes="enter shows the frame"),
    Row("left_square_bracket", "no outputs of another sample"),
    Row("1", "1_"),
    Row("right_square_bracket", "no outputs of another sample"),
    Row("question_mark", "the keys that matter"),
    Row("question_mark", "all keys ─"),
    Row("escape", goes="all keys ─"),
    Row("e", "written: "),
    Row("i", "inside frame"),
    Row("i", goes="inside frame"),
    Row("ctrl+c", "once more quits"),
    Row("1", "1_"),
    Row("q", goes="1_"),
]
INSIDE_ROWS = [  # the backward behind the first forward
    Row("i", "operation 1 of 7"),
    Row("space", "operation 2 of 7"),
    Row("pagedown", "operation 3 of 7"),
    Row("right", "operation 4 of 7"),
    Row("left", "operation 3 of 7"),
    Row("pageup", "operation 2 of 7"),
    Row("n", "operation 3 of 7"),
    Row("end", "operation 7 of 7"),
    Row("home", "operation 1 of 7"),
    Row("greater_than_sign", "operation 7 of 7"),
    Row("less_than_sign", "operation 1 of 7"),
    Row("down", "operation 2 of 7"),
    Row("up", "operation 1 of 7"),
    Row("enter", "the whole graph is open"),
    Row("p", "dLoss/d(mean 5): agrees"),
    Row("slash", "a part of an operation's"),
    Row("escape", goes="a part of an operation's"),
    Row("colon", "words for the screen"),
    Row("escape", goes="words for the screen"),
    Row("e", "written: "),
    Row("question_mark", "the keys that matter"),
    Row("question_mark", "all keys ─"),
    Row("escape", goes="all keys ─"),
    Row("ctrl+c", "once more quits"),
    Row("i", goes="operation 1 of 7"),
    Row("i", "parameter 1 of 2"),
    Row("q", goes="parameter 1 of 2"),
]


def type_and_look(shown: Terminal, row: Row) -> None:
    """Type a key; what comes by it was not there before, what goes by it was."""

    def stands(text: str) -> bool:
        return bool(text) and text in shown.text

    shown.wait(lambda: not stands(row.comes) and row.goes in shown.text, f"a screen without what {row} does")
    shown.type(SENT.get(row.key, row.key))
    shown.wait(lambda: row.comes in shown.text and not stands(row.goes), f"what {row} does")


def test_each_key_does_on_screen_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where `e` writes its picture
    program = with_seconds("session_screen.READ_SECONDS", 0.1)  # or two rows would wait until a note has been read
    with terminal("linear", program=program) as shown:
        shown.wait_for("frame 0 of 0")
        for row in ROWS:
            type_and_look(shown, row)
        shown.type("q")
        assert "autograd-tui linear --do" in shown.end()
        assert shown.exit_code == 0


def test_each_key_inside_does_on_screen_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with terminal("linear", "--do", "f") as shown:
        shown.wait_for("frame 1 of 1")
        for row in INSIDE_ROWS:
            type_and_look(shown, row)
        shown.type("q")
        assert "autograd-tui linear --do fbs" in shown.end()


@pytest.mark.parametrize(("keys", "rows"), [(KEYS, ROWS), (INSIDE_KEYS, INSIDE_ROWS)], ids=["main", "inside"])
def test_every_name_of_every_key_is_typed(keys: list[BindingType], rows: list[Row]) -> None:
    names = {name for each in keys if isinstance(each, Binding) for name in each.key.split(",")}
    assert names == {row.key for row in rows}
