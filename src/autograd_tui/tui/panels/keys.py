"""The last row: the keys that matter."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from autograd_tui.text.line import Line, length
from autograd_tui.tui.panels.panel import Panel

KEYS = (  # how long each stays where room is short: the greater, the longer
    ("space", "next", 9),
    ("f b s z", "phases", 8),
    ("n", "iteration", 5),
    ("i", "inside", 4),
    ("r", "run", 2),
    ("← →", "look", 4),
    ("v", "veil", 3),
    (":", "command", 1),
    ("?", "keys", 7),
    ("q", "quit", 6),
)

INSIDE = (
    ("space", "next", 9),
    ("← →", "walk", 8),
    ("n", "of this module", 3),
    ("p", "prove", 6),
    ("/", "find", 4),
    ("enter", "opens", 2),
    ("e", "picture", 1),
    (":", "command", 0),
    ("?", "keys", 5),
    ("i", "out", 7),
)


class KeysPanel(Panel):
    """As many as fit, without those that this terminal has no use for."""

    def __init__(self, *, id: str, keys: Sequence[tuple[str, str, int]] = KEYS, unused: Collection[str] = ()) -> None:
        super().__init__(id=id)
        self._keys = [key for key in keys if key[0] not in unused]

    def lines(self, width: int, height: int) -> list[Line]:
        """Draw them; they never change."""
        kept = list(self._keys)
        while kept and length(_row(kept)) > width:
            kept.remove(min(kept, key=lambda key: key[2]))
        return [_row(kept)]


def _row(keys: list[tuple[str, str, int]]) -> Line:
    return [span for key, word, _ in keys for span in ((f" {key}", "strong"), (f" {word} ", "dim"))]
