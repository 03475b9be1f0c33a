"""The panels of a small model's parameters and gradients, a row each."""

from __future__ import annotations

import math

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import NONFINITE_COLUMN, ROW_WIDTH, GradStats, TensorStats
from autograd_tui.text.nonfinite import number_style
from autograd_tui.text.numbers import bar, number
from autograd_tui.text.styled_text import Line, length, wrapped
from autograd_tui.text.table.gradient_status import (
    cleared_cells,
    full_status,
    gradient_status,
    gradient_statuses,
    gradient_summary,
    largest_gradient,
    largest_number,
    main_words,
    norm_over,
)
from autograd_tui.text.table.gradient_status import main_number as grad_number
from autograd_tui.text.table.layers import ParameterColumns
from autograd_tui.text.table.table_rows import shorten_name
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.panels.rows import RowPanel

LEAST = 4  # spans of a row that always stay: name, shape, the numbers before and now


class ParametersPanel(RowPanel):
    """A row a parameter."""

    DEFAULT_CSS = "ParametersPanel { height: auto; max-height: 60%; }"

    def rows_wanted(self) -> int:
        """Take a row for each parameter."""
        return self.count()

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw values where a parameter has one, else norms; where room is short, how far it moved is left out."""
        width -= 2 * (self.view.table.cursor is not None)
        before = frame.before or frame.params
        pairs = list(zip(before, frame.params, strict=True))
        name_width = max(len(row.name) for row in frame.params)
        number_width = max(len(number(value_or_norm(row))) for pair in pairs for row in pair)
        visible, more = self.fitting(self.listed(frame, ParameterColumns.of(frame)), height)
        self._shown = list(visible)
        labels = max((len(_label(frame.params[row.place or 0])) for row in visible), default=0)
        widths = name_width, max(min(labels, width - name_width - 2 * number_width - 5), 0), number_width
        lines = []
        for row in visible:
            line = _row(frame, row.place or 0, *pairs[row.place or 0], widths=widths)
            while length(line) > width and len(line) > LEAST:
                line = line[:-1]
            lines.append(self.marked(row, line))
        return lines + more


def _row(frame: Frame, place: int, old: TensorStats, new: TensorStats, *, widths: tuple[int, int, int]) -> Line:
    was, now = value_or_norm(old), value_or_norm(new)
    frozen = place in frame.frozen
    names, labels, width = widths
    line: Line = [(f"{new.name:<{names}}  ", "strong"), (f"{_label(new):<{labels}}", "dim")]
    no_step = frame.mover is not None and frame.mover.phase is not Phase.STEP
    if was is None or now is None or frame.before is None or (no_step and was == now):
        return [*line, (f"{number(now):>{width}}", number_style(now)), ("  frozen" * frozen, "dim")]
    by = mover(frame) if frame.error is None and frame.mover is frame.command else ""
    moved = now - was
    arrow, style = way_of(was, now)
    line += [(f"{number(was):>{width}} → ", number_style(was, "dim"))]
    line += [(f"{number(now):>{width}}", number_style(now, "strong" if by else ""))]
    line += [(f"  {arrow} {number(moved, signed=True)}", number_style(moved, style if by else "dim"))]
    moved_by = frame.move_norms[place] if frame.move_norms else None
    changed = arrow != "=" or bool(math.isfinite(now) and moved_by)  # the norm may have stayed
    if frozen and not changed:
        return [*line, ("  frozen", "dim")]
    if by:
        return [*line, (f"  {'changed' if changed else 'not moved'} by {by}", "")]
    return [*line, (f"  by {mover(frame).replace('this', 'the last')}", "dim")]


def _label(row: TensorStats) -> str:
    dims = f"{'×'.join(map(str, row.shape))} " * (row.size != 1)
    return "" if row.size == 1 and row.values else f"{dims}norm "


def way_of(was: float, now: float) -> tuple[str, str]:
    """Give the arrow from one number to another, and its style: "!" where one of them is NaN or infinite."""
    if not (math.isfinite(was) and math.isfinite(now)):
        return ("=", "dim") if was == now or (was != was and now != now) else ("!", "error")
    return ("▲", "positive") if now > was else ("▼", "negative") if now < was else ("=", "dim")


def mover(frame: Frame) -> str:
    """Name what moved the parameters last."""
    return f"this {frame.mover.phase.value}" if frame.mover and frame.mover.phase else "you"


def value_or_norm(row: TensorStats) -> float | None:
    """Give the value of a tensor that has one, else its norm."""
    return row.values[0] if row.size == 1 and row.values else row.norm


class CompactParametersPanel(RowPanel):
    """A row a parameter: before and after, the gradient, and what has become of it."""

    DEFAULT_CSS = "CompactParametersPanel { height: auto; max-height: 60%; }"

    def rows_wanted(self) -> int:
        """Take a row for each parameter."""
        return self.count()

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw the rows; what does not fit goes in this order: the bar, the number before, a name's beginning."""
        pairs = list(zip(frame.before or frame.params, frame.params, strict=True))
        width -= 2 * (self.view.table.cursor is not None)
        values = max(len(number(value_or_norm(row))) for pair in pairs for row in pair)
        grads = 1 + max((len(main_words(grad)) for grad in frame.grads if grad is not None), default=0)
        grads = max(grads, 10)  # with a blank before it
        fixed = (
            values + grads + 6 + max(map(len, gradient_statuses(frame)))
        )  # blanks, the gradient and its age included
        longest = max(len(row.name) for row in frame.params)
        old = longest + fixed + values + 3 <= width
        name_width = min(longest, max(width - fixed, 4))
        room = width - name_width - fixed - (values + 3) * old
        visible, more = self.fitting(self.listed(frame, ParameterColumns.of(frame)), height)
        self._shown = list(visible)
        lines = []
        for row in visible:
            place = row.place or 0
            name: Line = [(f"{shorten_name(pairs[place][1].name, name_width):<{name_width}}  ", "strong")]
            value = _value(frame, *pairs[place], width=values, old=old)
            left = width - length([*name, *value])
            cells = (
                cleared_cells(frame, place, room=left)
                if frame.grads[place] is None
                else _gradient(frame, place, grads, room)
            )
            lines.append(self.marked(row, name + value + cells))
        return lines + more


def _value(frame: Frame, before: TensorStats, after: TensorStats, *, width: int, old: bool) -> Line:
    """Write a value with the way it went, and where there is room the one before."""
    was, now = value_or_norm(before), value_or_norm(after)
    untouched = frame.mover is not None and frame.mover.phase is not Phase.STEP and was == now
    if was is None or now is None or frame.before is None or untouched:
        return [(f"{number(now):>{width}}{'':{(width + 3) * old + 2}}", number_style(now))]
    fresh = frame.mover is frame.command and frame.error is None
    arrow, style = way_of(was, now)
    first: Line = [(f"{number(was):>{width}} → ", number_style(was, "dim"))] if old else []
    last: Line = [(f"{number(now):>{width}}", number_style(now, "strong" if fresh else ""))]
    last.append((f" {arrow}", style if fresh or arrow == "!" else "dim"))
    return first + last


def _gradient(frame: Frame, place: int, width: int, room: int) -> Line:
    grad: GradStats = frame.grads[place]
    value = grad_number(grad)
    most = largest_number(frame)
    line: Line = [(f"{main_words(grad):>{width}} ", number_style(value, "" if grad.used else "strong"))]
    if room > 2:
        longest = min(room, 8)
        drawn = bar(abs(value) / most if most and value is not None else 0.0, longest)
        line.append((f"{drawn:<{longest}}", number_style(value, "dim" if grad.used else _bar_style(grad))))
    state = gradient_status(frame, place)
    return [*line, (f" {state}", "" if state == "fresh" else "warn")]


def _bar_style(grad: GradStats) -> str:
    """Return the style of a fresh gradient's bar: that of its sign, where it is a single value."""
    if grad.size > 1 or not grad.values:
        return "up"
    return "positive" if grad.values[0] > 0 else "negative"


class GradientsPanel(Panel):
    """A row a parameter; where there is no room for that, what is true of all gradients together."""

    DEFAULT_CSS = "GradientsPanel { height: auto; max-height: 40%; }"

    def rows_wanted(self) -> int:
        """Take a row for each parameter."""
        return len(self.frame.params) if self.frame else 2

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw values where a gradient has one, else norms, with bars to compare them."""
        if len(frame.params) > height:
            return _together(frame, width)
        names = frame.params.layout.names
        name_width = max(map(len, names))
        most = largest_number(frame)
        pairs = [(grad, place) for place, grad in enumerate(frame.grads) if grad is not None]
        longest = max((len(full_status(frame, *pair)) for pair in pairs), default=0)
        bar_width = min(width - name_width - longest - 16, 16)
        return [
            [(f"{name:<{name_width}}  ", "strong"), *_cell(frame, place, width - name_width - 2, most, bar_width)]
            for place, name in enumerate(names)
        ]


def _cell(frame: Frame, place: int, width: int, most: float, bar_width: int) -> Line:
    grad = frame.grads[place]
    if grad is None:
        return cleared_cells(frame, place, room=width)
    value = grad_number(grad)
    fresh = not grad.used
    line: Line = [(f"{main_words(grad):>10}", number_style(value, "strong" if fresh else ""))]
    said = full_status(frame, grad, place)
    if bar_width > 2:
        share = abs(value) / most if most and value is not None else 0.0
        line.append(
            (f"  {bar(share, bar_width):<{bar_width}}", number_style(value, _bar_style(grad) if fresh else "dim"))
        )
    return [*line, (f"  {said}", "" if said == "fresh" else "warn")]


def _together(frame: Frame, width: int) -> list[Line]:
    """Say what is true of all gradients, and which is the largest."""
    wrong = any(frame.grads.table.numbers[NONFINITE_COLUMN::ROW_WIDTH])
    lines = wrapped(", ".join(gradient_summary(frame)), width, style="error" * wrong)
    if not any(frame.grads.backwards):
        return lines
    most = largest_gradient(frame.grads)
    norm: Line = [(f"|grad| {norm_over(frame.grads.table)}", "error" if wrong else "strong")]
    return [norm, *lines, *([[(f"largest: {most.name}, {number(most.norm)}", "dim")]] if most else [])]
