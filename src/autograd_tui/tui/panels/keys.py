"""The last row: the keys that matter."""

from __future__ import annotations

from autograd_tui.text.line import Line, length
from autograd_tui.tui.panels.panel import Panel

KEYS = (
    ("space", "next"),
    ("f b s z", "phases"),
    ("n", "iteration"),
    ("r", "run"),
    ("← →", "look"),
    ("v", "veil"),
    (":", "command"),
    ("?", "keys"),
    ("q", "quit"),
)


class KeysPanel(Panel):
    """As many as fit."""

    def lines(self, width: int, height: int) -> list[Line]:
        """Draw them; they never change."""
        line: Line = []
        for key, word in KEYS:
            pair: Line = [(f" {key}", "strong"), (f" {word} ", "dim")]
            if length(line) + length(pair) <= width:
                line += pair
        return [line]
