"""What the model has printed."""

from __future__ import annotations

from textual.reactive import var

from autograd_tui.text.line import Line, wrapped
from autograd_tui.tui.panels.panel import Panel


class ConsolePanel(Panel):
    """The last lines, the newest at the bottom."""

    printed: var[tuple[str, ...]] = var(())

    def watch_printed(self) -> None:
        """Show what came in."""
        self.redraw()

    def lines(self, width: int, height: int) -> list[Line]:
        """Draw as many as fit, whether or not there is a frame."""
        rows = [row for line in self.printed[-height:] for row in wrapped(line, width) or [[]]]
        return rows[-height:]
