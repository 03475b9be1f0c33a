"""The keys inside a phase; help and the README's table are made from these."""

from __future__ import annotations

from dataclasses import replace

from textual.binding import Binding, BindingType

_KEYS = [
    Binding("space,pagedown", "on", id="inside-on", tooltip="the next operation; behind the last one, out again"),
    Binding("right", "go('next')", id="inside-next", tooltip="the operation after"),
    Binding("left,pageup", "go('back')", id="inside-back", tooltip="the operation before"),
    Binding("n", "go('next_of_module')", id="inside-module", tooltip="the next operation of the same module"),
    Binding("less_than_sign,home", "go('first')", id="inside-first", tooltip="the first operation"),
    Binding("greater_than_sign,end", "go('last')", id="inside-last", tooltip="the last operation"),
    Binding("up", "select(-1)", id="inside-up", tooltip="the row above: of a graph its operation, of a tree the row"),
    Binding("down", "select(1)", id="inside-down", tooltip="the row below"),
    Binding("enter", "open", id="inside-open", tooltip="open or close the module selected; run to the operation"),
    Binding("slash", "find", id="inside-find", tooltip="run to an operation or module by a part of its name"),
    Binding(
        "colon", "words", id="inside-words", tooltip="a command in words; one that runs or changes the run leads out"
    ),
    Binding("p", "prove", id="inside-prove", tooltip="prove the gradient at hand by finite differences"),
    Binding("e", "export", id="inside-export", tooltip="write a picture of the screen"),
    Binding("question_mark", "help", id="inside-help", tooltip="the keys that matter; once more: all keys"),
    Binding("i", "out", id="inside-out", tooltip="out of the phase"),
    Binding("escape,q", "leave", id="inside-leave", tooltip="leave the innermost: dialog, cursor, phase"),
    Binding("ctrl+c", "interrupt", id="inside-stop", tooltip="stop what runs; once more: quit"),
]

# Those that need no recording, by their keys: the first of them give up what was typed while it is awaited.
LEAVING = ("ctrl+c", "escape", "q")
AT_ONCE = (*LEAVING, "i", "colon", "slash", "question_mark", "e")

INSIDE_KEYS: list[BindingType] = [replace(key, priority=True) for key in _KEYS]

# Those that matter, by their ids, as in keys.py.
FIRST_INSIDE_KEYS: dict[str, str] = {
    "inside-on": "",
    "inside-back inside-next": "the operation before, after",
    "inside-module": "",
    "inside-first inside-last": "the first and the last operation",
    "inside-up inside-down inside-open": "choose a row of the tree, and open it",
    "inside-find": "",
    "inside-prove": "",
    "inside-out": "",
}
