"""A picture of the fit, for one input feature."""

from __future__ import annotations

from autograd_tui.engine.values.frame import Frame
from autograd_tui.text.fit import fit_lines
from autograd_tui.text.line import Line
from autograd_tui.text.veil import Veil
from autograd_tui.tui.panels.panel import Panel


class FitPanel(Panel):
    """Truth o, prediction *, both @."""

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw the points."""
        return fit_lines(frame, width, height)

    def cover(self, veil: Veil, width: int, height: int) -> list[Line]:
        """Leave out what is hidden: where it stands would tell."""
        return self.draw(veil.known, width, height)
