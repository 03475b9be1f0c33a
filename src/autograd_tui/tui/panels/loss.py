"""The loss, with its age, and how it went."""

from __future__ import annotations

from textual.reactive import var

from autograd_tui.engine.frame import Frame
from autograd_tui.engine.history import History
from autograd_tui.text.line import Line, length
from autograd_tui.text.numbers import number
from autograd_tui.text.plot import plot_columns, plot_lines
from autograd_tui.tui.panels.panel import Panel


class LossPanel(Panel):
    """The number, then a live plot over the iterations."""

    history: var[History | None] = var(None)  # set before the frame, which then draws both

    log_scale: var[bool] = var(False)

    def watch_log_scale(self) -> None:
        """Draw the other scale."""
        self.redraw()

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw the number on the first row, the plot below."""
        first: Line = [("none yet", "dim")]
        if frame.loss is not None:
            age = "  fresh" if not frame.old else "  old: a parameter has moved since"
            age = age if len(age) + 8 <= width else "  old"
            first = [(number(frame.loss), "dim" if frame.old else "strong"), (age, "warn" if frame.old else "up")]
        for name, value in frame.metrics:
            metric = f"   {name} {number(value)}"
            if length(first) + len(metric) <= width:
                first.append((metric, "dim" if frame.old else ""))
        self.retitle("Loss   log scale" if self.log_scale else "Loss")
        if self.history is None:
            return [first]
        losses = self.history.loss
        changes = [point.iteration for point in self.history.learning_rate.points()[1:]]
        plot = plot_lines(
            losses.thinned(plot_columns(width)),
            width,
            height - 1,
            shown=losses.at(frame.index),
            changes=changes,
            log_scale=self.log_scale,
        )
        return [first, *plot]
