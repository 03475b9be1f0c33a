"""The keys that matter: in the last row, and as the table in help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from textual import events

from autograd_tui.core.capabilities import LIVE, Capabilities
from autograd_tui.core.command import Phase
from autograd_tui.text.styled_text import Line, length, wrapped
from autograd_tui.tui.panels.panel import Panel


def key_lines(rows: Sequence[tuple[str, str]], width: int) -> list[Line]:
    """Write each key before what it does, which goes on under itself where the row is full."""
    key_width = max((len(keys) for keys, _ in rows), default=0) + 2
    lines: list[Line] = []
    for keys, does in rows:
        first, *rest = wrapped(does, width - key_width) or [[]]
        lines.append([(f"{keys:<{key_width}}", "strong"), *first])
        lines += [[(" " * key_width, ""), *line] for line in rest]
    return lines


KEYS = (  # how long each stays where room is short: the greater, the longer
    ("space", "next", 11),
    ("f b s z", "phases", 10),
    ("n", "iteration", 7),
    ("i", "inside", 6),
    ("r", "run", 5),
    ("← →", "look", 3),
    ("l", "lr", 4),
    ("o", "optimizer", 0),
    ("v", "veil", 1),
    (":", "words", 2),
    ("?", "keys", 9),
    ("q", "quit", 8),
)

RUN_KEYS = ("f b s z", "i", "l", "o", "v", ":")  # of no use where the user cannot choose what runs
SCRIPT_UNUSED = ("o", "v")  # of no use where a script runs, whose optimizer is its own
ADVANCE_KEYS = ("space", "n", "r")  # where nothing runs at all

SCRIPT_WORDS = {"f b s z": "run to"}  # in place of what they do where the user chooses

INSIDE = (
    ("space", "next", 9),
    ("← →", "walk", 8),
    ("n", "of this module", 3),
    ("p", "check", 6),
    ("/", "find", 4),
    ("enter", "opens", 2),
    ("e", "picture", 1),
    (":", "words", 0),
    ("?", "keys", 5),
    ("i", "out", 7),
)


class KeysPanel(Panel):
    """As many as fit, without those that the session has no use for; a click on one presses it."""

    DRAWN_FROM: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, id: str, keys: Sequence[tuple[str, str, int]] = KEYS, can: Capabilities = LIVE) -> None:
        super().__init__(id=id)
        unused = {*(() if can.run else RUN_KEYS), *(() if can.advance else ADVANCE_KEYS)}
        unused |= {*(SCRIPT_UNUSED if can.script else ())}
        words = SCRIPT_WORDS if can.script else {}
        self._keys = [(key, words.get(key, word), worth) for key, word, worth in keys if key not in unused]

    def lines(self, width: int, height: int) -> list[Line]:
        """Draw them."""
        return [_row(self.fitting(width))]

    def useful(self) -> list[tuple[str, str, int]]:
        """Return the keys that there is a use for."""
        return list(self._keys)

    def fitting(self, width: int) -> list[tuple[str, str, int]]:
        """Return the keys that a row of `width` columns has room for."""
        kept = self.useful()
        while kept and length(_row(kept)) - 1 > width:  # the blank behind the last one needs no room
            kept.remove(min(kept, key=lambda key: key[2]))
        return kept

    def on_click(self, event: events.Click) -> None:
        """Post which key was clicked; a word is its key, one beside several keys all of them."""
        column = event.x
        for keys, word, _ in self.fitting(self.content_size.width):
            if column < len(f" {keys} {word} "):
                labels = keys.split()
                index = keys[: max(column - 1, 0)].count(" ")
                self.post_message(self.KeysClicked([labels[index]] if column <= len(keys) else labels))
                return
            column -= len(f" {keys} {word} ")


class InsideKeysPanel(KeysPanel):
    """Those inside a phase; in a script's forward no gradient can be checked, since those are of no parameter."""

    DRAWN_FROM = ("trace_position",)

    def __init__(self, *, id: str, is_script: bool = False) -> None:
        super().__init__(id=id, keys=INSIDE)
        self._is_script = is_script

    def useful(self) -> list[tuple[str, str, int]]:
        """Return the keys that there is a use for where the trace is looked at."""
        position = self.view.trace_position
        checks = not (self._is_script and position is not None and position.trace.phase is Phase.FORWARD)
        return [each for each in self._keys if checks or each[0] != "p"]


def _row(keys: list[tuple[str, str, int]]) -> Line:
    return [span for key, word, _ in keys for span in ((f" {key}", "strong"), (f" {word} ", "dim"))]


class KeyTablePanel(Panel):
    """A sentence, where there is one, over the keys and what they do."""

    DEFAULT_CSS = "KeyTablePanel { height: auto; }"

    def __init__(self, sentence: str, rows: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._sentence, self._rows = sentence, rows

    def show(self, sentence: str, rows: Sequence[tuple[str, str]]) -> None:
        """Show other keys."""
        self._sentence, self._rows = sentence, rows
        self.refresh(layout=True)
        self.redraw()

    def get_content_height(self, *room: Any) -> int:
        """Answer the layout, which gives the width last."""
        return len(self.lines(room[-1], 0))

    def lines(self, width: int, height: int) -> list[Line]:
        """Draw all rows, whether or not there is a frame yet."""
        sentence = [*wrapped(self._sentence, width, style="dim"), []] if self._sentence else []
        return [*sentence, *key_lines(self._rows, width)]
