"""The keys of the main screen and of the trace screen; help and the README's table are made from these."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from textual import events
from textual.binding import Binding, BindingType

LABELS = {  # of keys, as people write them, where Textual has another name
    "colon": ":",
    "comma": ",",
    "full_stop": ".",
    "greater_than_sign": ">",
    "left_square_bracket": "[",
    "less_than_sign": "<",
    "plus": "+",
    "question_mark": "?",
    "equals_sign": "=",
    "right_square_bracket": "]",
    "slash": "/",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "minus": "-",
    "right": "→",
    "pagedown": "page down",
    "pageup": "page up",
}


def key_labelled(label: str) -> events.Key:
    """Return the key that the screen shows under a label, as a terminal would send it."""
    prefix, _, label = label.rpartition("+") if len(label) > 1 else ("", "", label)
    name = next((name for name, shown in LABELS.items() if shown == label), label)
    if prefix:
        return events.Key(f"{prefix}+{name}", None)
    typed = " " if name == "space" else label if len(label) == 1 and label not in "↑↓←→" else None
    return events.Key(name, typed)


NAMED_KEYS = (
    "space",
    "enter",
    "escape",
    "tab",
    "y",
    "/",
    "[",
    "]",
    "↑",
    "↓",
    "←",
    "→",
)  # in what is written on a panel's frame


def clicked_on_frame(text: str, column: int) -> list[str]:
    """Return the labels of the keys that are meant by a click on a panel's frame, where `text` names some.

    Its parts stand apart by commas, dots or blanks: "enter opens · / finds", "shift+← → reads values". A click on what
    follows several keys means all of them. A part that is a word for the prompt is given as it is, ":sort update".
    """
    start = 0
    for part in re.split(r"(   | · |, )", text):  # the separators too
        end = start + len(part)
        if not start <= column < end:
            start = end
            continue
        if part.startswith(":"):
            return [part]
        keys: list[tuple[int, str]] = []  # where each ends
        modifier = ""
        for token in re.finditer(r"\S+", part):
            pressed = token[0].removeprefix("shift+")
            if pressed not in NAMED_KEYS:
                break
            modifier = "shift+" if pressed != token[0] else modifier
            keys.append((start + token.end(), modifier + pressed))
        return next(([label] for end, label in keys if column < end), [label for _, label in keys])
    return []


_TRACE_KEYS = [
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
    Binding("p", "check_gradient", id="inside-check", tooltip="check the gradient at hand by finite differences"),
    Binding("e", "export", id="inside-export", tooltip="write a picture of the screen"),
    Binding("question_mark", "help", id="inside-help", tooltip="the keys that matter; again: all keys, then all words"),
    Binding("i", "out", id="inside-out", tooltip="out of the phase"),
    Binding("escape,q", "leave", id="inside-leave", tooltip="leave the innermost: dialog, cursor, phase"),
    Binding("ctrl+c", "interrupt", id="inside-stop", tooltip="stop what runs; once more: interrupt it; then quit"),
]

# Those that need no recording, by their keys: the first of them give up what was typed while it is awaited.
LEAVING = ("ctrl+c", "escape", "q")
AT_ONCE = (*LEAVING, "i", "colon", "slash", "question_mark", "e")

INSIDE_KEYS: list[BindingType] = [replace(key, priority=True) for key in _TRACE_KEYS]

# Those that matter, by their ids: a row each in the first help, with words of its own where several stand together.
FIRST_INSIDE_KEYS: dict[str, str] = {
    "inside-on": "",
    "inside-back inside-next": "the operation before, after",
    "inside-module": "",
    "inside-first inside-last": "the first and the last operation",
    "inside-up inside-down inside-open": "choose a row of the tree, and open it",
    "inside-find": "",
    "inside-check": "",
    "inside-out": "",
}


_MAIN_KEYS = [
    Binding("space,pagedown", "run('next')", id="next", tooltip="the next phase; pauses a run"),
    Binding("f", "phase('f')", id="forward", tooltip="forward"),
    Binding("b", "phase('b')", id="backward", tooltip="backward; refused without a graph to go back through"),
    Binding("s", "phase('s')", id="step", tooltip="step; refused without a gradient that no step has used yet"),
    Binding("z", "phase('z')", id="zero_grad", tooltip="zero_grad"),
    Binding("F,shift+f", "phase('F')", id="force-forward", tooltip="forward, which is never refused: as f"),
    Binding("B,shift+b", "phase('B')", id="force-backward", tooltip="backward, also where b is refused"),
    Binding("S,shift+s", "phase('S')", id="force-step", tooltip="step, also where s is refused"),
    Binding("Z,shift+z", "phase('Z')", id="force-zero_grad", tooltip="zero_grad, which is never refused: as z"),
    Binding("i", "inside", id="inside", tooltip="inside the next phase, or that of the frame looked at, and out"),
    Binding("n", "run('iteration')", id="iteration", tooltip="to the end of this iteration"),
    *(Binding(digit, f"count({digit})", id=f"digit-{digit}") for digit in "0123456789"),
    Binding("r", "run('run')", id="run", tooltip="run, and pause"),
    Binding("plus,equals_sign", "speed('faster')", id="faster", tooltip="run faster, in the end at full speed"),
    Binding("minus", "speed('slower')", id="slower", tooltip="run slower, down to one command a second"),
    Binding("left,pageup", "look(-1)", id="back", tooltip="look at the frame before"),
    Binding("right", "look(1)", id="on", tooltip="look at the frame after"),
    Binding("comma", "look_alike(-1)", id="back-alike", tooltip="look at the same phase one iteration before"),
    Binding("full_stop", "look_alike(1)", id="on-alike", tooltip="look at the same phase one iteration after"),
    Binding("less_than_sign,home", "look_at(0)", id="first", tooltip="look at the first frame"),
    Binding("greater_than_sign,end", "look_at(-1)", id="newest", tooltip="look at the newest frame"),
    Binding("u", "undo", id="undo", tooltip="undo the last command; @ and its number brings it back"),
    Binding("up", "select(-1)", id="up", tooltip="select the row above"),
    Binding("down", "select(1)", id="down", tooltip="select the row below"),
    Binding("enter", "open", id="open", tooltip="open or close the layer selected; measure the parameter exactly"),
    Binding("slash", "prompt('/')", id="find", tooltip="find a parameter by a part of its name"),
    Binding("v", "veil", id="veil", tooltip="the veil: space runs and hides, space again shows; v takes it away"),
    Binding("colon", "prompt('')", id="prompt", tooltip="a command in words, such as lr=0.01 or w=3"),
    Binding("l", "prompt('lr=')", id="learning-rate", tooltip="set the learning rate, usually 1e-1 to 1e-5"),
    Binding("o", "prompt('optimizer=')", id="optimizer", tooltip="start another optimizer"),
    Binding("g", "prompt('@')", id="go", tooltip="go to a frame"),
    Binding("shift+left", "plot_cursor(-1)", id="plot-back", tooltip="read the plot's values, one point back"),
    Binding("shift+right", "plot_cursor(1)", id="plot-on", tooltip="read the plot's values, one point on"),
    Binding("shift+up", "plot_zoom('in')", id="plot-in", tooltip="plot half as many iterations"),
    Binding("shift+down", "plot_zoom('out')", id="plot-out", tooltip="plot twice as many iterations, up to all"),
    Binding("left_square_bracket", "sample(-1)", id="sample-before", tooltip="the outputs of the image before"),
    Binding("right_square_bracket", "sample(1)", id="sample-after", tooltip="the outputs of the image after"),
    Binding("y", "log_scale", id="log-scale", tooltip="the loss on a log scale, and back"),
    Binding("tab", "panel(1)", id="next-panel", tooltip="choose the next panel"),
    Binding("shift+tab", "panel(-1)", id="previous-panel", tooltip="choose the panel before"),
    Binding("a", "zoom", id="zoom", tooltip="the chosen panel alone, and back"),
    Binding(
        "e",
        "export",
        id="export",
        tooltip="write a picture and the line that repeats the run; where a watchpoint fired, a repro",
    ),
    Binding("ctrl+p", "prompt('theme ')", id="theme", tooltip="choose a theme"),
    Binding("question_mark", "help", id="help", tooltip="the keys that matter; again: all keys, then all words"),
    Binding("escape", "leave", id="leave", tooltip="leave the innermost: dialog, run, count, looking back, cursor"),
    Binding("q", "quit", id="quit", tooltip="the same, and at the top quit"),
    Binding("ctrl+c", "interrupt", id="stop", tooltip="stop the run; once more: interrupt the phase; then quit"),
]

# All with priority, so that they are taken in the order in which they arrive, whatever has the focus.
KEYS: list[BindingType] = [replace(key, priority=True) for key in _MAIN_KEYS]

# Those that matter, by their ids: a row each in the first help, with words of its own where several stand together.
FIRST_KEYS: dict[str, str] = {
    "next": "",
    "forward backward step zero_grad": "one phase; b and s are refused out of turn",
    "force-forward force-backward force-step force-zero_grad": "the same; B and S even out of turn",
    "iteration run": "to the end of this iteration; run, and pause",
    "inside": "inside a phase, one operation a key",
    "back on undo": "look before, after; undo the last command",
    "learning-rate optimizer": "learning rate; another optimizer",
    "prompt": "a command in words: a list says which",
    "veil": "hide new numbers until the next space",
    "quit": "leave the innermost, at the top the program",
}

# The same where a script runs: what its keys do, "" where they do what they do elsewhere.
SCRIPT_FIRST_KEYS: dict[str, str] = {
    "next": "let the script go on to its next stop; hold one that runs",
    "forward backward step zero_grad": "run on to its next forward, backward, step, zero_grad",
    "iteration run": "to the end of this iteration; run, and pause",
    "inside": "record what comes next, and walk it one operation a key",
    "back on undo": "look before, after; return to the stop before",
    "learning-rate": "",
    "prompt": "a command in words: a list says which",
    "export": "",
    "quit": "leave the innermost, at the top the program",
}
SCRIPT_TOOLTIPS = {
    "next": "let the script go on to its next stop; hold one that runs",
    "forward": "run on to the script's next forward",
    "backward": "run on to the script's next backward",
    "step": "run on to the script's next step",
    "zero_grad": "run on to the script's next zero_grad",
    "inside": "inside what the script does next, or that of the frame looked at, and out",
    "back-alike": "look at the same call one iteration before",
    "on-alike": "look at the same call one iteration after",
    "undo": "return to the stop before; @ and its number brings it back",
    "learning-rate": "set the learning rate at this stop; the script may set it too",
    "export": "write a picture and the line that starts the script again; where a watchpoint fired, a repro",
    "stop": "hold the script at its next stop; once more: raise KeyboardInterrupt in it; then quit",
}
NOT_OF_SCRIPTS = ("force-forward", "force-backward", "force-step", "force-zero_grad", "veil", "optimizer")

_NAMED = re.compile(r"(ctrl|alt|super)\+.+|f\d+|backspace|delete|insert")  # not a shift that comes alone


def unbound(key: events.Key) -> str | None:
    """Name a key that came as far as the screen, since nothing is bound to it; None for what nobody typed as one."""
    if key.is_printable:
        return key.character
    return key.key if _NAMED.fullmatch(key.key) else None


def is_bound(key: events.Key, bindings: Iterable[BindingType]) -> bool:
    """Return whether a key is one of these."""
    return any(isinstance(each, Binding) and key.key in each.key.split(",") for each in bindings)
