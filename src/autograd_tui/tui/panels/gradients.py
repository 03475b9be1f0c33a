"""Gradients and what has become of them: None, fresh, used, or a sum of several backwards."""

from __future__ import annotations

from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import NONFINITE, WIDTH
from autograd_tui.text.nonfinite import look
from autograd_tui.text.numbers import bar, number
from autograd_tui.text.styled_text import Line, wrapped
from autograd_tui.text.table.gradient_status import (
    age_in_full,
    cleared,
    largest,
    largest_number,
    main_number,
    main_words,
    norm_over,
    together,
)
from autograd_tui.tui.panels.panel import Panel


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
        longest = max((len(age_in_full(frame, *pair)) for pair in pairs), default=0)
        bar_width = min(width - name_width - longest - 16, 16)
        return [
            [(f"{name:<{name_width}}  ", "strong"), *_cell(frame, place, width - name_width - 2, most, bar_width)]
            for place, name in enumerate(names)
        ]


def _cell(frame: Frame, place: int, width: int, most: float, bar_width: int) -> Line:
    grad = frame.grads[place]
    if grad is None:
        return cleared(frame, place, room=width)
    value = main_number(grad)
    fresh = not grad.used
    line: Line = [(f"{main_words(grad):>10}", look(value, "strong" if fresh else ""))]
    said = age_in_full(frame, grad, place)
    if bar_width > 2:
        share = abs(value) / most if most and value is not None else 0.0
        line.append((f"  {bar(share, bar_width):<{bar_width}}", look(value, "up" if fresh else "dim")))
    return [*line, (f"  {said}", "" if said == "fresh" else "warn")]


def _together(frame: Frame, width: int) -> list[Line]:
    """Say what is true of all gradients, and which is the largest."""
    wrong = any(frame.grads.table.numbers[NONFINITE::WIDTH])
    lines = wrapped(", ".join(together(frame)), width, style="error" * wrong)
    if not any(frame.grads.backwards):
        return lines
    most = largest(frame.grads)
    norm: Line = [(f"|grad| {norm_over(frame.grads.table)}", "error" if wrong else "strong")]
    return [norm, *lines, *([[(f"largest: {most.name}, {number(most.norm)}", "dim")]] if most else [])]
