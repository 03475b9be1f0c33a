"""What is shown first: what is being opened, until the panels are there."""

from __future__ import annotations

from typing import ClassVar

from rich.segment import Segment
from textual.strip import Strip

from autograd_tui.text.styled_text import printable
from autograd_tui.tui.rendering import SizedScreen


class OpeningScreen(SizedScreen):
    """The main screen without its panels: its rows above and below, and the note. It lies below all other screens."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"opening--row"}
    DEFAULT_CSS = """
    OpeningScreen { background: $background; }
    OpeningScreen .opening--row { background: $panel; }
    """

    def __init__(self, sentence: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._sentence = sentence

    def render_line(self, y: int) -> Strip:
        """Return one row, for the compositor."""
        width, height = self.size
        if y in (0, height - 1):
            return Strip.blank(width, self.get_component_rich_style("opening--row"))
        if y == height - 2:
            sentence = Segment(f" {printable(self._sentence)}", self.get_component_rich_style("panel--accent"))
            return Strip(Segment.adjust_line_length([sentence], width, self.rich_style), width)
        return Strip.blank(width, self.rich_style)
