"""What the model has printed."""

from __future__ import annotations

from collections.abc import Sequence

from textual.reactive import var

from autograd_tui.text.line import Line, wrapped
from autograd_tui.tui.output import headline, newest_message
from autograd_tui.tui.panels.panel import Panel


class ConsolePanel(Panel):
    """The last lines, the newest at the bottom; of one that is longer than the panel its beginning."""

    printed: var[tuple[str, ...]] = var(())

    def watch_printed(self) -> None:
        """Show what came in."""
        self.redraw()

    def lines(self, width: int, height: int) -> list[Line]:
        """Draw as many as fit, whether or not there is a frame."""
        begins = newest_message(self.printed)
        newest = _rows(self.printed[begins:], width)
        if len(newest) <= height:
            return [*_rows(self.printed[max(begins - height, 0) : begins], width), *newest][-height:]
        first = _rows([headline(self.printed[begins]), *self.printed[begins + 1 :]], width - 2)
        return first if len(first) <= height else [*first[: height - 1], [*first[height - 1], (" …", "")]]


def _rows(lines: Sequence[str], width: int) -> list[Line]:
    return [row for line in lines for row in wrapped(line, width) or [[]]]
