"""Where the walk inside a phase is."""

from __future__ import annotations

from textual.reactive import var

from autograd_tui.text.inside.walk import Walk
from autograd_tui.text.inside.where import where_lines
from autograd_tui.text.line import Line
from autograd_tui.tui.panels.walk import WalkPanel


class WherePanel(WalkPanel):
    """The phases over the operation at hand."""

    DEFAULT_CSS = "WherePanel { height: 2; }"

    unkept: var[str] = var("")  # a mark

    def watch_unkept(self) -> None:
        """Mark a run that is not kept."""
        self.redraw()

    def draw_walk(self, walk: Walk, width: int, height: int) -> list[Line]:
        """Draw two rows."""
        return where_lines(walk, width, unkept=self.unkept)
