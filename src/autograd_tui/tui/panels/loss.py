"""The loss, with its age, and how it went."""

from __future__ import annotations

import math

from textual import events
from textual.message import Message

from autograd_tui.core.frame import Frame
from autograd_tui.text.hidden_results import HiddenResults, cover_hidden
from autograd_tui.text.nonfinite import number_style
from autograd_tui.text.numbers import number
from autograd_tui.text.plot import plot_columns, plot_lines
from autograd_tui.text.styled_text import Line, length
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.screen_state import View

NAMES = {"grad": "|grad|"}  # of what is plotted, where it is not the word for it


class LossPanel(Panel):
    """The number, then a live plot over the iterations."""

    DRAWN_FROM = (*Panel.DRAWN_FROM, "history", "log_scale", "plotted")

    def __init__(self, *, title: str = "") -> None:
        super().__init__(title=title)
        self._kept: tuple[object, list[Line]] = None, []  # the plot drawn last, and what of

    class Clicked(Message):
        """The mouse has chosen a point of the plot."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    def on_click(self, event: events.Click) -> None:
        """Tell which frame the point nearest to the mouse belongs to."""
        offset, history = self.under(event), self.view.history
        series = history.plotted(self.view.plotted) if history else None
        if offset is None or offset.y < 1 or not series:
            return
        first, last = series.iterations[0], series.iterations[-1]
        columns = plot_columns(self.content_size.width)
        wanted = first + (offset.x + columns - self.content_size.width) / max(columns - 1, 1) * (last - first)
        nearest = min(series.points(), key=lambda point: abs(point.iteration - wanted))
        self.post_message(self.Clicked(nearest.index))

    def watch_view(self, old: View, new: View) -> None:
        """Plot anew where the history is another one."""
        if old.history is not new.history:
            self._kept = None, []
        super().watch_view(old, new)

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw the number on the first row, the plot below."""
        self._name_what_is_plotted()
        return [_number_and_age(frame, width), *self._plot(frame.index, width, height - 1)]

    def cover(self, hidden: HiddenResults, width: int, height: int) -> list[Line]:
        """Leave out the newest point where it is hidden."""
        assert self.frame is not None
        self._name_what_is_plotted()
        frame, known = self.frame, hidden.known
        first = cover_hidden([_number_and_age(frame, width)], [_number_and_age(known, width)])
        covers_point = known.grads is not frame.grads if self.view.plotted == "grad" else known.loss != frame.loss
        return [*first, *self._plot(frame.index - covers_point, width, height - 1)]

    def _name_what_is_plotted(self) -> None:
        of = "" if self.view.plotted == "loss" else f"   plot of {NAMES.get(self.view.plotted, self.view.plotted)}"
        scale = (", log" if of else "   log scale") * self.view.log_scale
        changed = self.view.history is not None and len(self.view.history.learning_rate) > 1
        self.retitle("Loss" + of + scale + "   ▲ lr changed" * changed)

    def _plot(self, index: int, width: int, height: int) -> list[Line]:
        """Plot what frames up to `index` measured, that one marked, and those after it where it is an older one."""
        if self.view.history is None:
            return []
        history, shown = self.view.history, self.view.history.plotted(self.view.plotted).at(index)
        asked = (shown, width, height, self.view.log_scale, self.view.plotted, self.view.hidden and index)
        if asked == self._kept[0]:
            return self._kept[1]
        if self.view.hidden is not None:
            history = history.copy()
            history.truncate_after(index)
        changes = [point.iteration for point in history.learning_rate.points()[1:]]
        series = history.plotted(self.view.plotted)
        points, shown = series.thinned(plot_columns(width)), series.at(index)
        if not points and self.view.plotted != "loss":
            return [[(f"no {NAMES.get(self.view.plotted, self.view.plotted)} to plot yet", "dim")]]
        self._kept = (
            asked,
            plot_lines(points, width, height, shown=shown, changes=changes, log_scale=self.view.log_scale),
        )
        return self._kept[1]


def _number_and_age(frame: Frame, width: int) -> Line:
    if frame.loss is None:
        return [("none before the first forward" if frame.loss_params is None else "not one number", "dim")]
    short = "  old" if frame.loss_is_old else "  fresh"
    age = f"{short}: a parameter has moved since" if frame.loss_is_old else short
    if not math.isfinite(frame.loss):
        age = f"{short}, {'not a number' if math.isnan(frame.loss) else 'not finite'}"
    looks = (
        number_style(frame.loss, "dim" if frame.loss_is_old else "strong"),
        number_style(frame.loss, "warn" if frame.loss_is_old else "up"),
    )
    line: Line = [(number(frame.loss), looks[0]), (age if len(age) + 8 <= width else short, looks[1])]
    for name, value in frame.metrics:
        metric = f"   {name} {number(value)}"
        if length(line) + len(metric) <= width:
            line.append((metric, number_style(value, "dim" if frame.loss_is_old else "")))
    return line
