"""What is wrong in a phase."""

from __future__ import annotations

from autograd_tui.text.inside.health import health_lines
from autograd_tui.text.inside.walk import Walk
from autograd_tui.text.line import Line
from autograd_tui.tui.panels.walk import WalkPanel


class HealthPanel(WalkPanel):
    """The first NaN or infinity, dead units, gradients that vanish; what the recorder could not see."""

    DEFAULT_CSS = "HealthPanel { height: auto; max-height: 6; }"

    def __init__(self, *, title: str = "") -> None:
        super().__init__(title=title)
        self.display = False
        self._told: tuple[object, list[Line]] = (None, [])  # of one trace, wherever the walk is

    def rows_wanted(self) -> int:
        """Take a row for each line."""
        return len(self._lines_of(self.walk)) if self.walk is not None else 0

    def watch_walk(self) -> None:
        """Stand aside where there is nothing to say."""
        self.display = bool(self.rows_wanted())
        super().watch_walk()

    def draw_walk(self, walk: Walk, width: int, height: int) -> list[Line]:
        """Draw what there is room for."""
        return self._lines_of(walk)

    def _lines_of(self, walk: Walk) -> list[Line]:
        if self._told[0] is not walk.trace:
            self._told = walk.trace, [*health_lines(walk.trace), *([(note, "dim")] for note in walk.trace.notes)]
        return self._told[1]
