"""What is wrong in a phase."""

from __future__ import annotations

from autograd_tui.engine.values.trace import Trace
from autograd_tui.text.inside.health import health_lines
from autograd_tui.text.inside.walk import Walk
from autograd_tui.text.line import Line, one_line, wrapped
from autograd_tui.tui.panels.chain_rule import cut
from autograd_tui.tui.panels.walk import SidePanel


class HealthPanel(SidePanel):
    """The first NaN or infinity, dead units, gradients that vanish; what the recorder could not see."""

    DEFAULT_CSS = "HealthPanel { height: auto; max-height: 6; }"

    def __init__(self, *, title: str = "") -> None:
        super().__init__(title=title)
        self._told: tuple[Trace | None, int, list[Line]] = (None, 0, [])  # wherever the walk is in a trace

    def rows_wanted(self) -> int:
        """Take a row for each line."""
        width = self.content_size.width or self.app.size.width // 3
        return len(self._lines_of(self.walk.trace, width)) if self.walk is not None else 1

    def draw_walk(self, walk: Walk, width: int, height: int) -> list[Line]:
        """Draw what there is room for."""
        return cut(self._lines_of(walk.trace, width), height)

    def _lines_of(self, trace: Trace, width: int) -> list[Line]:
        if self._told[:2] != (trace, width):
            notes = [row for note in trace.notes for row in wrapped(one_line(note), width, style="dim")]
            self._told = trace, width, [*health_lines(trace, width), *notes]
        return self._told[2]
