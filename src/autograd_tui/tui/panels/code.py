"""The lines of the training loop, the one that ran marked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from autograd_tui.core.errors import clipped
from autograd_tui.core.frame import Frame, TorchError
from autograd_tui.core.script_stop import ScriptStop
from autograd_tui.text.explain import step_comment
from autograd_tui.text.script_lines import code_title, script_code_lines
from autograd_tui.text.styled_text import Line
from autograd_tui.tui.panels.panel import Panel

MAX_SCRIPT_ROWS = 11  # around the line where a script is held: other panels need room too
TALL, MAX_TALL_SCRIPT_ROWS = 50, 19  # rows of a terminal from which on there may be more of them


class CodePanel(Panel):
    """The listing: set-up lines dimmed, then a line or two for each phase."""

    DEFAULT_CSS = "CodePanel { height: auto; }"

    def __init__(self, *, title: str = "", running_line_only: bool = False) -> None:
        super().__init__(title=title)
        self._running_line_only = running_line_only

    def rows_wanted(self) -> int:
        """Take a row for each line of the listing, or for the phase with the most lines."""
        if self.frame is not None and self.frame.script is not None:
            source = len(self.frame.script.source) + (self.frame.script.library is not None)
            most = MAX_SCRIPT_ROWS if self.app.size.height < TALL else MAX_TALL_SCRIPT_ROWS
            return 1 if self._running_line_only else min(max(source, 1), most)
        if self.about is None:
            return 2
        counts = [len(source) for phase, source in self.about.listing.items() if phase != "setup"]
        return max(counts) if self._running_line_only else sum(map(len, self.about.listing.values()))

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw all lines; where there is no room, the set-up lines go first.

        Of the running line alone, what comes next is drawn too, as far as there is room.
        """
        if self.about is None:
            return []
        if frame.script is not None:
            return self._draw_script(frame, frame.script, width, height)
        lines: list[Line] = []
        listing = self.about.listing
        marks = _marks(frame, self.about.listing)
        for phase, source in listing.items():
            for index, code in enumerate(source):
                if phase == "step" and index == 0:
                    code = f"{code:<22} "
                    code += step_comment(frame, max(width - len(code) - 2, 0))
                mark = marks.get((phase, index), "" if phase == "setup" else "  ")
                style = "error" if mark == "! " else "strong" if mark.strip() else "dim" if phase == "setup" else ""
                code = clipped(code.rstrip(), width - len(mark))
                lines.append([(mark, "error" if frame.error else "accent"), *_code(code, style)])
        if not self._running_line_only:
            return lines[max(len(lines) - height, 0) :]
        phase = frame.phase.value if frame.phase else "setup"
        first = sum(len(source) for source in list(listing.values())[: list(listing).index(phase)])
        last = first + len(listing[phase])
        if last - first > height:  # the loss stands in the last line of a forward
            return lines[last - height : last]
        return lines[min(first, max(len(lines) - height, 0)) :]

    def _draw_script(self, frame: Frame, stop: ScriptStop, width: int, height: int) -> list[Line]:
        """Draw the script's own lines around the call; where there is room for one, its position goes before it."""
        if not self._running_line_only:
            self.retitle(code_title(stop))
            return script_code_lines(frame, stop, width, height)
        return script_code_lines(frame, stop, width, 1)


def _marks(frame: Frame, listing: Mapping[str, Sequence[str]]) -> dict[tuple[str, int], str]:
    """Mark the lines that ran, by phase and index: ▶ the last of them, ! what raised, and nothing behind that."""
    if frame.phase is None:
        return {}
    phase = frame.phase.value
    ran = [(phase, index) for index in range(len(listing[phase]))]
    if frame.error is None:
        return dict.fromkeys(ran, "│ ") | dict.fromkeys(ran[-1:], "▶ ")
    raised = lines_that_raised(frame.error, phase, listing)
    before = ran if frame.error.call == "metric" else ran[: raised[0][1]] if raised and raised[0] in ran else []
    return dict.fromkeys(before, "│ ") | dict.fromkeys(raised, "! ")


def lines_that_raised(error: TorchError, phase: str, listing: Mapping[str, Sequence[str]]) -> list[tuple[str, int]]:
    """Return the line that an error came out of, by phase and index.

    Where any of several may be it, they are several; where it stands in none of the listing, they are none.
    """
    source = listing[phase]
    if error.call in ("batch", "metric"):
        return [("setup", 0)] if error.call == "batch" and len(listing.get("setup", ())) == 1 else []
    own = [index for index, code in enumerate(source) if error.code and _bare(error.code) in _bare(code)]
    return [(phase, index) for index in own or lines_of(error.call or phase, source) or range(len(source))]


def lines_of(call: str, source: Sequence[str]) -> Sequence[int]:
    """Find the lines that make a call of the loop; none where that is not to be told."""
    loss = [index for index, code in enumerate(source) if re.match(r"\s*loss\b[^=(]*=[^=]", code)] or [len(source) - 1]
    steps = [index for index, code in enumerate(source) if ".step(" in code]
    backward = [index for index, code in enumerate(source) if ".backward(" in code]
    known = {"model": range(loss[-1]), "loss": loss[-1:], "optimizer": steps[:1], "scheduler": steps[-1:]}
    return known.get(call, backward if call == "backward" else [])


def _bare(code: str) -> str:
    """Take away blanks and the comment at a line's end."""
    return "".join(code.partition("#")[0].split())


def _code(code: str, style: str) -> Line:
    """Dim the comment at a line's end."""
    source, hash_mark, comment = code.partition("#")
    return [(source, style), (hash_mark + comment, "dim")]
