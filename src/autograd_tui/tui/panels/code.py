"""The lines of the training loop, the one that ran marked."""

from __future__ import annotations

from autograd_tui.engine.values.frame import Frame
from autograd_tui.text.explain import step_comment
from autograd_tui.text.line import Line
from autograd_tui.tui.panels.panel import Panel


class CodePanel(Panel):
    """The listing: set-up lines dimmed, then a line or two for each phase."""

    DEFAULT_CSS = "CodePanel { height: auto; }"

    def __init__(self, *, title: str = "", running_line_only: bool = False) -> None:
        super().__init__(title=title)
        self._running_line_only = running_line_only

    def rows_wanted(self) -> int:
        """Take a row for each line of the listing, or for the phase with the most lines."""
        if self.about is None:
            return 2
        counts = [len(source) for phase, source in self.about.listing.items() if phase != "setup"]
        return max(counts) if self._running_line_only else sum(map(len, self.about.listing.values()))

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw all lines; where there is no room, the set-up lines go first."""
        if self.about is None:
            return []
        lines: list[Line] = []
        listing = self.about.listing
        if self._running_line_only:
            listing = {phase: source for phase, source in listing.items() if phase == (frame.phase or "setup")}
        for phase, source in listing.items():
            for place, code in enumerate(source):
                if phase == "step" and place == 0:
                    code = f"{code:<22} "
                    code += step_comment(frame, max(width - len(code) - 2, 0))
                ran = frame.phase is not None and frame.phase.value == phase
                arrow = "! " if frame.error else "▶ "
                marker = (arrow if place == len(source) - 1 else "│ ") if ran else "  "
                style = ("error" if frame.error else "strong") if ran else "dim" if phase == "setup" else ""
                marked = "error" if frame.error else "accent"
                lines.append([(marker if phase != "setup" else "", marked), *_code(code, style)])
        return lines[max(len(lines) - height, 0) :]


def _code(code: str, style: str) -> Line:
    """Dim the comment at a line's end."""
    source, hash_mark, comment = code.partition("#")
    return [(source, style), (hash_mark + comment, "dim")]
