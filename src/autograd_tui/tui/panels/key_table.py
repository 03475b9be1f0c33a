"""The table of keys in the help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autograd_tui.text.key_table import key_lines
from autograd_tui.text.line import Line, wrapped
from autograd_tui.tui.panels.panel import Panel


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
