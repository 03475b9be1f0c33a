"""Parameters and their gradients side by side, where there is no room for two panels."""

from __future__ import annotations

from autograd_tui.engine.values.command import Phase
from autograd_tui.engine.values.frame import Frame
from autograd_tui.engine.values.stats_table import GradStats, TensorStats
from autograd_tui.text.grads import age, all_ages, cleared, largest_number, main_words
from autograd_tui.text.grads import main_number as grad_number
from autograd_tui.text.layers import Columns
from autograd_tui.text.line import Line, length
from autograd_tui.text.nonfinite import look
from autograd_tui.text.numbers import bar, number
from autograd_tui.text.table import shortened
from autograd_tui.tui.panels.parameters import main_number, way_of
from autograd_tui.tui.panels.rows import RowPanel


class BothPanel(RowPanel):
    """A row a parameter: before and after, the gradient, and what has become of it."""

    DEFAULT_CSS = "BothPanel { height: auto; max-height: 60%; }"

    def rows_wanted(self) -> int:
        """Take a row for each parameter."""
        return self.count()

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw the rows; what does not fit goes in this order: the bar, the number before, a name's beginning."""
        pairs = list(zip(frame.before or frame.params, frame.params, strict=True))
        width -= 2 * (self.view.cursor is not None)
        values = max(len(number(main_number(row))) for pair in pairs for row in pair)
        grads = 1 + max((len(main_words(grad)) for grad in frame.grads if grad is not None), default=0)
        grads = max(grads, 10)  # with a blank before it
        fixed = values + grads + 6 + max(map(len, all_ages(frame)))  # blanks, the gradient and its age included
        longest = max(len(row.name) for row in frame.params)
        old = longest + fixed + values + 3 <= width
        name_width = min(longest, max(width - fixed, 4))
        room = width - name_width - fixed - (values + 3) * old
        visible, more = self.fitting(self.listed(frame, Columns.of(frame)), height)
        self._shown = list(visible)
        lines = []
        for row in visible:
            place = row.place or 0
            name: Line = [(f"{shortened(pairs[place][1].name, name_width):<{name_width}}  ", "strong")]
            value = _value(frame, *pairs[place], width=values, old=old)
            left = width - length([*name, *value])
            cells = (
                cleared(frame, place, room=left) if frame.grads[place] is None else _gradient(frame, place, grads, room)
            )
            lines.append(self.marked(row, name + value + cells))
        return lines + more


def _value(frame: Frame, before: TensorStats, after: TensorStats, *, width: int, old: bool) -> Line:
    """Write a value with the way it went, and where there is room the one before."""
    was, now = main_number(before), main_number(after)
    untouched = frame.mover is not None and frame.mover.phase is not Phase.STEP and was == now
    if was is None or now is None or frame.before is None or untouched:
        return [(f"{number(now):>{width}}{'':{(width + 3) * old + 2}}", look(now))]
    fresh = frame.mover is frame.command and frame.error is None
    arrow, style = way_of(was, now)
    first: Line = [(f"{number(was):>{width}} → ", look(was, "dim"))] if old else []
    last: Line = [(f"{number(now):>{width}}", look(now, "strong" if fresh else ""))]
    last.append((f" {arrow}", style if fresh or arrow == "!" else "dim"))
    return first + last


def _gradient(frame: Frame, place: int, width: int, room: int) -> Line:
    grad: GradStats = frame.grads[place]
    value = grad_number(grad)
    most = largest_number(frame)
    line: Line = [(f"{main_words(grad):>{width}} ", look(value, "" if grad.used else "strong"))]
    if room > 2:
        longest = min(room, 8)
        drawn = bar(abs(value) / most if most and value is not None else 0.0, longest)
        line.append((f"{drawn:<{longest}}", look(value, "dim" if grad.used else "up")))
    state = age(frame, place)
    return [*line, (f" {state}", "" if state == "fresh" else "warn")]
