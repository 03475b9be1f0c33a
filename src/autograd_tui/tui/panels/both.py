"""Parameters and their gradients side by side, where there is no room for two panels."""

from __future__ import annotations

from autograd_tui.engine.frame import Frame
from autograd_tui.text.line import Line
from autograd_tui.text.numbers import bar, number
from autograd_tui.tui.panels.gradients import main_number as grad_number
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.panels.parameters import main_number, mover


class BothPanel(Panel):
    """A row a parameter: before and after, the gradient, and what has become of it."""

    DEFAULT_CSS = "BothPanel { height: auto; max-height: 60%; }"

    def rows_wanted(self) -> int:
        """Take a row for each parameter."""
        return len(self.frame.params) if self.frame else 2

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw the rows; what does not fit goes from the right: the bar, then the number before."""
        before = frame.before or frame.params
        pairs = list(zip(before, frame.params, strict=True))
        name_width = min(max(len(row.name) for row in frame.params), max(width - 34, 4))
        values = max(len(number(main_number(row))) for pair in pairs for row in pair)
        sizes = [abs(grad_number(grad)) for grad in frame.grads if grad is not None]
        most = max((size for size in sizes if size - size == 0), default=0.0)
        fresh = frame.mover is frame.command and frame.error is None
        room = width - name_width - 2 * values - 28
        lines: list[Line] = []
        for place, (old, new) in enumerate(pairs):
            was, now = main_number(old), main_number(new)
            line: Line = [(f"{new.name[-name_width:]:<{name_width}}  ", "strong")]
            untouched = frame.mover is not None and frame.mover.phase is None and was == now
            if was is not None and now is not None and frame.before is not None and not untouched:
                arrow, style = ("▲", "up") if now > was else ("▼", "down") if now < was else ("=", "dim")
                line.append((f"{number(was):>{values}} → ", "dim"))
                line.append((f"{number(now):>{values}}", "strong" if fresh and mover(frame) else ""))
                line.append((f" {arrow}", style if fresh else "dim"))
            else:
                line.append((f"{number(now):>{values}}{'':{values + 5}}", ""))
            lines.append(line + _gradient(frame, place, most=most, room=room))
        return lines


def _gradient(frame: Frame, place: int, *, most: float, room: int) -> Line:
    grad = frame.grads[place]
    if grad is None:
        last = frame.last_grads and frame.last_grads[place]
        return [
            (f"{'None':>10}", ""),
            (f"  was {number(grad_number(last), signed=last.size == 1)}" if last else "", "dim"),
        ]
    value = grad_number(grad)
    line: Line = [(f"{number(value, signed=grad.size == 1):>10} ", "" if grad.used else "strong")]
    if room > 2:
        length = min(room, 8)
        drawn = bar(abs(value) / most if most else 0.0, length)
        line.append((f"{drawn:<{length}}", "dim" if grad.used else "up"))
    state = "used" if grad.used else "fresh"
    stale = not grad.used and frame.old
    if stale:
        state = "before the move"
    if grad.backwards > 1:
        state = f"sum of {grad.backwards}" + ", used" * grad.used
    return [*line, (f" {state}", "warn" if grad.used or stale or grad.backwards > 1 else "")]
