"""What each parameter's `.grad` is while the walk goes on."""

from __future__ import annotations

from autograd_tui.text.inside.grad_lines import filling, grad_lines, summary
from autograd_tui.text.inside.walk import Walk
from autograd_tui.text.line import Line
from autograd_tui.tui.panels.walk import SidePanel


class WalkGradsPanel(SidePanel):
    """A row a parameter in the order in which they have their turn."""

    def rows_wanted(self) -> int:
        """Take a row for each."""
        return len(filling(self.walk.trace)) if self.walk is not None else 1

    def draw_walk(self, walk: Walk, width: int, height: int) -> list[Line]:
        """Draw those around the one at hand."""
        self.retitle(f".grad   {summary(walk)}".rstrip())
        return grad_lines(walk, width, height)
