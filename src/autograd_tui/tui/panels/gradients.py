"""Gradients and what has become of them: None, fresh, used, or a sum of several backwards."""

from __future__ import annotations

import math

from autograd_tui.engine.frame import Frame
from autograd_tui.engine.stats_table import GradStats
from autograd_tui.text.line import Line, wrapped
from autograd_tui.text.numbers import bar, number
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.panels.parameters import MOST_ROWS


class GradientsPanel(Panel):
    """A row a parameter; of a large model, what is true of all its gradients together."""

    DEFAULT_CSS = "GradientsPanel { height: auto; max-height: 40%; }"

    def rows_wanted(self) -> int:
        """Take a row for each parameter, or a few words for all."""
        if self.frame is None:
            return 2
        return len(self.frame.params) if len(self.frame.params) <= MOST_ROWS else 4

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw values where a gradient has one, else norms, with bars to compare them."""
        if len(frame.params) > min(height, MOST_ROWS):
            return together(frame, width)
        names = frame.params.layout.names
        name_width = max(map(len, names))
        sizes = [abs(main_number(grad)) for grad in frame.grads if grad is not None]
        most = max((size for size in sizes if math.isfinite(size)), default=0.0)
        bar_width = max(min(width - name_width - 50, 16), 0)
        return [
            _row(frame, place, name, name_width=name_width, most=most, bar_width=bar_width)
            for place, name in enumerate(names)
        ]


def _row(frame: Frame, place: int, name: str, *, name_width: int, most: float, bar_width: int) -> Line:
    grad = frame.grads[place]
    line: Line = [(f"{name:<{name_width}}  ", "strong")]
    if grad is None:
        last = frame.last_grads and frame.last_grads[place]
        return [
            *line,
            (f"{'None':>10}", ""),
            (f"  was {number(main_number(last), signed=last.size == 1)}" if last else "", "dim"),
        ]
    value = main_number(grad)
    fresh = not grad.used
    line.append((f"{number(value, signed=grad.size == 1):>10}", "strong" if fresh else ""))
    if bar_width:
        line.append((f"  {bar(abs(value) / most if most else 0.0, bar_width):<{bar_width}}", "up" if fresh else "dim"))
    if fresh and frame.old and frame.mover is not None:
        return [*line, (f"  {state(grad)}, but from before {frame.mover}", "warn")]
    return [*line, (f"  {state(grad)}", "" if fresh else "warn")]


def state(grad: GradStats) -> str:
    """Say what has become of one gradient."""
    summed = f"sum of {grad.backwards} backwards" if grad.backwards > 1 else ""
    if grad.used:
        return f"{summed}, used" if summed else "used by step, not cleared"
    return summed or "fresh"


def together(frame: Frame, width: int) -> list[Line]:
    """Say what is true of all gradients of a large model."""
    held = [grad for grad in frame.grads if grad is not None]
    if not held:
        last = frame.last_grads.norm() if frame.last_grads else None
        return [[(f"every .grad is None{f', |grad| was {number(last)}' if last is not None else ''}", "dim")]]
    nonfinite = sum(1 for grad in held if grad.nonfinite)
    used = sum(grad.used for grad in held)
    most = max(grad.backwards for grad in held)
    said = [f"{len(held)} of {len(frame.grads)} parameters have one"]
    said.append("all finite" if not nonfinite else f"{nonfinite} hold NaN or infinity")
    said.append("fresh" if not used else "used by step, not cleared" if used == len(held) else f"{used} used by step")
    lines: list[Line] = [[(f"|grad| {number(frame.grads.norm())}", "strong")], *wrapped(", ".join(said), width)]
    if most > 1:
        lines.append([(f"not cleared: sums of up to {most} backwards", "warn")])
    largest = max(held, key=lambda grad: grad.norm or 0.0)
    return [*lines, [(f"largest: {largest.name}, {number(largest.norm)}", "dim")]]


def main_number(grad: GradStats) -> float:
    """Give the value of a gradient that has one, else its norm."""
    value = grad.values[0] if grad.size == 1 and grad.values else grad.norm
    return math.nan if value is None else value
