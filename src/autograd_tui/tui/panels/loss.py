"""The loss, with its age, and how it went; or the plot of what else was asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from textual import events
from textual.message import Message

from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History, Point, Series
from autograd_tui.text.explain_script import name_in
from autograd_tui.text.hidden_results import HiddenResults, cover_hidden
from autograd_tui.text.nonfinite import number_style
from autograd_tui.text.numbers import count, number
from autograd_tui.text.plot import MIN_ROWS, Curve, plot_columns, plot_lines, too_many_to_mark
from autograd_tui.text.plot_view import (
    LETTERS,
    PlotView,
    Quantity,
    absolute,
    branch_label,
    kinds_apart,
    nearest,
    quantities,
    series_of,
    smoothed,
    zoomed,
)
from autograd_tui.text.styled_text import Line, length
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.screen_state import View

MAX_BRANCHES = 3  # that are drawn, the newest ones
HINT = "shift+← → reads values, shift+↑ ↓ zooms"  # on the frame
SHORT_HINT = "shift+← → reads values"
CURSOR_HINT = "enter shows the frame, escape leaves"
SHORT_CURSOR_HINT = "enter shows the frame"
STYLES = ("", "accent", "strong", "dim")  # of several curves; their letters tell them apart too


@dataclass(frozen=True, slots=True, eq=False)
class Plotted:
    """A quantity with its values, as far as they may be seen."""

    what: Quantity
    series: Series  # of the iterations that are looked at
    average: Series | None  # the same smoothed
    index: int  # of the frame that is shown
    letter: str  # empty where it is alone
    style: str

    @property
    def shown(self) -> Point | None:
        """The point that the frame shown, or one before it, brought."""
        return self.series.at(self.index)

    def curves(self, columns: int) -> list[Curve]:
        """Return the curve, and the raw values as dots behind an average."""
        raw = self.series.thinned(columns)
        if self.average is None:
            return [Curve(raw, self.style, self.letter, shown=self.shown)]
        average = Curve(self.average.thinned(columns), self.style, self.letter)
        return [average, Curve(raw, "dim", dots=True, shown=self.shown)]


class LossPanel(Panel):
    """The number, then a live plot over the iterations."""

    DRAWN_FROM = (*Panel.DRAWN_FROM, "history", "log_scale", "plot", "branches")

    def __init__(self, *, title: str = "") -> None:
        super().__init__(title=title)
        self._plots: tuple[object, list[Line]] = None, []  # drawn last, and what of
        self._plotted_of: tuple[View | None, list[Plotted]] = None, []  # the view last plotted, and what is in it
        self._series: dict[tuple[Quantity, bool], Series] = {}  # of the history; whether the loss is one of several
        self._branch_series: dict[tuple[int, Quantity], Series] = {}  # of what came after each branch's fork

    class Clicked(Message):
        """The mouse has chosen a point of the plot."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    def on_click(self, event: events.Click) -> None:
        """Post which frame the point nearest to the mouse belongs to."""
        offset, span = self.under(event), self._span(self._plotted())
        if offset is None or offset.y < 1 or span is None:
            return
        columns = plot_columns(self.content_size.width)
        share = (offset.x + columns - self.content_size.width) / max(columns - 1, 1)
        wanted = span[0] + share * (span[1] - span[0])
        points = self._plotted()[0].series.points()
        if points:
            self.post_message(self.Clicked(min(points, key=lambda point: abs(point.iteration - wanted)).index))

    def on_focus(self) -> None:
        """Show what keys do here."""
        self._name_plot()

    def on_blur(self) -> None:
        """Show it no more."""
        self._name_plot()

    def watch_view(self, old: View, new: View) -> None:
        """Plot anew where the history is another one."""
        if old.history is not new.history:
            self._series = {}
            if new.branches:  # what is drawn of them depends on all of the present run
                self._plots = None, []
        if old.about is not new.about or old.branches is not new.branches:
            self._plots = None, []
        if old.about is not new.about:
            self._branch_series = {}
        super().watch_view(old, new)

    # The cursor, and which iterations are looked at.

    def with_cursor_moved(self, by: int) -> PlotView:
        """Return the view with the cursor so many points further, of those that are drawn."""
        view, plotted = self.view.plot, self._plotted()
        if not plotted:
            return view
        points = plotted[0].series.thinned(plot_columns(self.content_size.width))
        iterations = sorted({point.iteration for point in points})
        shown = plotted[0].shown
        here = view.cursor if view.cursor is not None else shown.iteration if shown else None
        if not iterations or here is None:
            return view
        position = max(sum(iteration <= here for iteration in iterations) - 1, 0)
        return replace(view, cursor=iterations[min(max(position + by, 0), len(iterations) - 1)])

    def with_zoom(self, *, inwards: bool) -> PlotView:
        """Return the view of fewer iterations around the cursor or the frame shown, or of more."""
        whole = self._span(self._read(replace(self.view.plot, first=None, last=None)), whole=True)
        plotted = self._plotted()
        if whole is None:
            return self.view.plot
        shown = plotted[0].shown
        cursor = self.view.plot.cursor
        middle = cursor if cursor is not None else shown.iteration if shown else whole[1]
        return zoomed(self.view.plot, inwards=inwards, whole=whole, middle=middle)

    @property
    def index_at_cursor(self) -> int | None:
        """The frame that brought the value at the cursor; None where there is no cursor."""
        cursor, plotted = self.view.plot.cursor, self._plotted()
        point = nearest(plotted[0].series, cursor) if cursor is not None and plotted else None
        return None if point is None else point.index

    # Drawing.

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw the numbers on the first row, the plot below."""
        self._name_plot()
        plotted = self._plotted()
        above = [_number_and_age(frame, width)] if self._is_of_loss else self._readings(plotted, width, height)
        return [*above, *self._drawn(plotted, width, height - len(above))]

    def cover(self, hidden: HiddenResults, width: int, height: int) -> list[Line]:
        """Leave out the newest points where they are hidden."""
        assert self.frame is not None
        self._name_plot()
        plotted = self._plotted()
        if self._is_of_loss:
            above = cover_hidden([_number_and_age(self.frame, width)], [_number_and_age(hidden.known, width)])
        else:
            above = self._readings(plotted, width, height)
        return [*above, *self._drawn(plotted, width, height - len(above))]

    @property
    def _is_of_loss(self) -> bool:
        """Whether the first row is about the loss of the frame."""
        return self.view.plot.names == ("loss",) and self.view.plot.cursor is None

    def _name_plot(self) -> None:
        """Show in the title what is plotted and how, and below it what keys do."""
        view = self.view.plot
        plotted = self._plotted()
        labels = [self._label(each.what) for each in plotted] or list(view.names)
        title = f"Loss{self._which_loss()}" if view.names == ("loss",) else f"Plot of {', '.join(labels)}"
        title += "   log scale" * self.view.log_scale + f"   smooth {view.smoothing:g}" * bool(view.smoothing)
        if view.first is not None or view.last is not None:
            last = "on" if view.last is None else f"to {view.last}"
            title += f"   from {view.first or 0} {last}"
        changes = self._changes()
        if changes and plotted:
            often = too_many_to_mark(changes, plot_columns(self.content_size.width))
            title += "   lr changes often: plot lr" if often else "   ▲ lr changed"
        for each in plotted:
            if few := _few(each.series):
                title += f"   {each.letter}{' ' * bool(each.letter)}at {few}"
                break
        key = "   y linear" if self.view.log_scale else "   y log"
        self.retitle(title + key if len(title + key) <= self.content_size.width - 2 else title)
        hints = (CURSOR_HINT, SHORT_CURSOR_HINT) if view.cursor is not None else (HINT, SHORT_HINT)
        fitting = hints[0] if len(hints[0]) + 4 <= self.content_size.width else hints[1]
        hint = fitting if self.has_focus or view.cursor is not None else ""
        if hint != str(self.border_subtitle or ""):
            self.border_subtitle = hint

    @property
    def _has_several_losses(self) -> bool:
        return self.frame is not None and self.frame.script is not None and self.frame.script.has_several_losses

    def _which_loss(self) -> str:
        """Say which of the losses of an iteration is plotted, where there are several."""
        if not self._has_several_losses:
            return ""
        assert self.frame is not None
        assert self.frame.script is not None
        name = name_in(self.frame.script.last_loss_call)
        return f" {name}" if name else ", the last of each iteration"

    def _label(self, what: Quantity) -> str:
        has_sign = what.kind in ("value", "gradient") and not what.label.startswith("|")
        return f"|{what.label}|" if has_sign and self.view.log_scale else what.label

    def _changes(self) -> list[int]:
        """Return the iterations that are looked at after which a learning rate changed."""
        view, history = self.view.plot, self.view.history
        if history is None:
            return []
        changes = (point.iteration for point in history.learning_rate.points()[1:])
        last = math.inf if view.last is None else view.last
        return [each for each in changes if (view.first or 0) <= each + 1 and each <= last]

    def _plotted(self) -> list[Plotted]:
        """Return what is plotted, without what is hidden."""
        if self._plotted_of[0] is not self.view:
            self._plotted_of = self.view, self._read(self.view.plot)
        return self._plotted_of[1]

    def _read(self, view: PlotView) -> list[Plotted]:
        """Read what a view is of."""
        frame, history = self.frame, self.view.history
        if frame is None or history is None:
            return []
        known = quantities(view.names, frame, list(history.metrics))
        styles = STYLES if len(known) > 1 else ("",)
        plotted = []
        for what, letter, style in zip(known, LETTERS, styles, strict=False):
            key = (what, self._has_several_losses)
            if key not in self._series:
                self._series[key] = self._whole(what, history)
            series, index = self._series[key], frame.index - self._covers(what)
            if self.view.hidden is not None:
                series = series.copy()
                series.truncate_after(index)
            if self.view.log_scale and what.kind in ("value", "gradient"):
                series = absolute(series)
            average = smoothed(series, view.smoothing) if view.smoothing else None
            if view.first is not None or view.last is not None:
                series = series.between(view.first or 0, view.last)
                average = average and average.between(view.first or 0, view.last)
            plotted.append(Plotted(what, series, average, index, letter if len(known) > 1 else "", style))
        return plotted

    def _whole(self, what: Quantity, history: History) -> Series:
        """Return what there is to plot of a quantity: of a script one point an iteration, the last."""
        series = series_of(what, history)
        if self.frame is None or self.frame.script is None:
            return series
        return series.last_of_iterations(whole=self._has_several_losses and what.kind in ("loss", "gradient"))

    def _covers(self, what: Quantity) -> bool:
        """Return whether the veil covers the value that the frame brought."""
        if self.view.hidden is None or self.frame is None:
            return False
        known = self.view.hidden.known
        match what.kind:
            case "gradient":
                return known.grads is not self.frame.grads
            case "value" | "update":
                return known.params is not self.frame.params
            case "rate":
                return False
            case _:
                return known.loss != self.frame.loss

    def _span(self, plotted: list[Plotted], *, whole: bool = False) -> tuple[int, int] | None:
        """Return the first and the last iteration of the axis, which has room for all of each branch.

        whole: not those that are looked at, but those that there are.
        """
        series = [each.series for each in plotted] + [series for _, series in self._branches(plotted, whole=whole)]
        ends = [iteration for each in series for iteration in (*each.iterations[:1], *each.iterations[-1:])]
        return (min(ends), max(ends)) if ends else None

    def _branches(self, plotted: list[Plotted], *, whole: bool = False) -> Iterator[tuple[str, Series]]:
        """Yield the newest runs that were left, where one curve is plotted, each with what differs in it."""
        view, history = self.view.plot, self.view.history
        if len(plotted) != 1 or history is None:
            return
        what, drawn = plotted[0].what, 0
        for branch in reversed(self.view.branches):
            if branch.history is None or drawn == MAX_BRANCHES:
                continue
            key = (branch.number, what)
            if key not in self._branch_series:
                self._branch_series[key] = self._whole(what, branch.history).after(branch.fork)
            series = self._branch_series[key]
            if self.view.log_scale and what.kind in ("value", "gradient"):
                series = absolute(series)
            if not whole:
                series = series.between(view.first or 0, view.last)
            if series and not _is_part_of(series, self._series[what, self._has_several_losses]):
                drawn += 1
                yield branch_label(branch, history), series

    def _drawn(self, plotted: list[Plotted], width: int, height: int) -> list[Line]:
        """Draw one plot of each kind of quantity over the other, or a row of each curve where there is little room."""
        view, hidden = self.view.plot, self.view.hidden
        if self.view.history is None:
            return []
        if not plotted:
            return [[(f"there is no {' '.join(view.names)} to plot here", "dim")]]
        asked = (
            [(each.shown, each.series) for each in plotted],
            self._changes(),
            width,
            height,
            self.view.log_scale,
            view,
            hidden and plotted[0].index,
        )
        if asked == self._plots[0]:
            return self._plots[1]
        groups = kinds_apart([each.what for each in plotted])
        by_name = {each.what: each for each in plotted}
        if len(groups) == 1 and height > MIN_ROWS:
            lines = self._plot(plotted, width, height)
        elif height // len(groups) > MIN_ROWS:
            share = height // len(groups)
            heights = [height - share * (len(groups) - 1), *[share] * (len(groups) - 1)]
            lines = []
            for group, rows in zip(groups, heights, strict=True):
                lines += self._plot([by_name[what] for what in group], width, rows)
        else:
            lines = [line for each in plotted[:height] for line in self._plot([each], width, 1)]
        self._plots = asked, lines
        return lines

    def _plot(self, plotted: list[Plotted], width: int, height: int) -> list[Line]:
        """Draw curves that share a scale."""
        columns = plot_columns(width)
        curves = [curve for each in plotted for curve in each.curves(columns)]
        first, *others = sorted(curves, key=lambda curve: curve.dots)
        branches = list(self._branches(plotted)) if len(self.view.plot.names) == 1 else []
        others += [Curve(series.points(), "dim", label=label, behind=True) for label, series in branches]
        what = plotted[0].what
        return plot_lines(
            first.points,
            width,
            height,
            shown=first.shown,
            changes=self._changes(),
            log_scale=self.view.log_scale,
            what=self._label(what),
            others=others,
            letter=first.letter,
            span=self._span(self._plotted()),
            cursor=self.view.plot.cursor,
        )

    def _readings(self, plotted: list[Plotted], width: int, height: int) -> list[Line]:
        """Write the values at the cursor, or those of the frame that is shown, in the rows that the curves leave."""
        cursor = self.view.plot.cursor
        readings: list[Line] = [] if cursor is None else [[(f"iteration {cursor}", "accent")]]
        for each in plotted:
            point = each.shown if cursor is None else nearest(each.series, cursor)
            value = "none yet" if point is None else each.what.words(point.value)
            average = nearest(each.average, cursor) if each.average and cursor is not None else None
            value += f", smooth {each.what.words(average.value)}" if average else ""
            label = f"{each.letter} {self._label(each.what)} ".lstrip()
            readings.append([(label, "dim"), (value, number_style(point.value, "strong") if point else "dim")])
        rows: list[Line] = [[]]
        for reading in readings:
            if rows[-1] and length(rows[-1]) + 3 + length(reading) > width:
                rows.append([])
            rows[-1] += [("   ", ""), *reading] if rows[-1] else reading
        return rows[: max(height - len(plotted), 1)]


def _few(series: Series) -> str:
    """Return of how many iterations a series has values, where a free run has made no frame of most."""
    if not series or series.bucket > 1:
        return ""
    iterations = series.iterations[-1] - series.iterations[0] + 1
    points = len(set(series.iterations))
    return f"{count(points)} of {count(iterations)} iterations" if points * 2 < iterations else ""


def _is_part_of(series: Series, other: Series) -> bool:
    """Return whether all points of one series are points of another, so that its curve would not be seen."""
    return all(other.at(point.index) == point for point in series.points())


def _why_no_loss(frame: Frame) -> str:
    """Return why a frame has no loss: behind a free run of a script it may not be known."""
    if frame.loss_params is not None:
        return "not one number"
    return "not known at this stop" if frame.script is not None and frame.iteration else "none before the first forward"


def _number_and_age(frame: Frame, width: int) -> Line:
    if frame.loss is None:
        return [(_why_no_loss(frame), "dim")]
    short = "  old" if frame.loss_is_old else "  fresh"
    age = f"{short}: a parameter has moved since" if frame.loss_is_old else short
    if not math.isfinite(frame.loss):
        age = f"{short}, {'not a number' if math.isnan(frame.loss) else 'not finite'}"
    looks = (
        number_style(frame.loss, "dim" if frame.loss_is_old else "strong"),
        number_style(frame.loss, "warn" if frame.loss_is_old else "up"),
    )
    several = frame.script is not None and frame.script.has_several_losses
    name = f"{name_in(frame.script.loss_call)} ".lstrip() if several and frame.script is not None else ""
    line: Line = [(name, "dim")] if name else []
    line += [(number(frame.loss), looks[0]), (age if length(line) + len(age) + 8 <= width else short, looks[1])]
    for name, value in frame.metrics:
        metric = f"   {name} {number(value)}"
        if length(line) + len(metric) <= width:
            line.append((metric, number_style(value, "dim" if frame.loss_is_old else "")))
    return line
