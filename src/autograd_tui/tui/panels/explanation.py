"""What happened, in words and arithmetic."""

from __future__ import annotations

from autograd_tui.core.frame import Frame
from autograd_tui.text.explain import explain
from autograd_tui.text.hidden_results import HiddenResults
from autograd_tui.text.nonfinite import nonfinite_warnings
from autograd_tui.text.styled_text import Line, wrapped
from autograd_tui.tui.panels.panel import Panel


class ExplanationPanel(Panel):
    """A few sentences about the command that led to this frame."""

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw sentences wrapped, arithmetic set off, an error in its own colour."""
        if self.about is None:
            return []
        lines: list[Line] = []
        wrong = 1 if frame.error else len(nonfinite_warnings(frame))  # sentences that come first
        for place, sentence in enumerate(explain(frame, self.about)):
            style = "error" if place < wrong else "strong" if sentence.startswith("  ") else ""
            lines += wrapped(sentence, width, style=style, indent="  " if sentence.startswith("  ") else "")
        if len(lines) > height > 0:
            (text, style), *_ = lines[height - 1]
            lines[height - 1] = [(f"{text[: width - 2].rstrip('.')} …", style)]  # there is more to say
        return lines

    def cover(self, hidden: HiddenResults, width: int, height: int) -> list[Line]:
        """Ask in place of an answer."""
        return wrapped(hidden.question, width, style="strong")
