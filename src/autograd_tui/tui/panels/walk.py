"""The base of the panels inside a phase: they draw a walk, as others draw a frame."""

from __future__ import annotations

from textual.reactive import var

from autograd_tui.text.inside.walk import Walk
from autograd_tui.text.line import Line
from autograd_tui.tui.panels.panel import Panel


class WalkPanel(Panel):
    """Draws the walk it is given: a panel overrides `draw_walk`."""

    walk: var[Walk | None] = var(None)

    def draw_walk(self, walk: Walk, width: int, height: int) -> list[Line]:
        """Give the rows to show; those beyond `height` are not seen."""
        raise NotImplementedError

    def watch_walk(self) -> None:
        """Show another place."""
        self._make_room()
        self.redraw()

    def lines(self, width: int, height: int) -> list[Line]:
        """Give the rows as they stand, nothing before there is a walk."""
        return [] if self.walk is None else self.draw_walk(self.walk, width, height)


class SidePanel(WalkPanel):
    """Stands aside where there is nothing to show."""

    def __init__(self, *, title: str = "") -> None:
        super().__init__(title=title)
        self.display = False

    def watch_walk(self) -> None:
        """Show another place, or nothing."""
        wanted = self.walk is not None and self.rows_wanted() > 0
        if wanted != self.display:
            self.display = wanted
        super().watch_walk()
