"""What could be typed next, in a box above the prompt."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from textual import events
from textual.message import Message

from autograd_tui.text.prompt.completion import Candidate
from autograd_tui.text.styled_text import Line, length, plain
from autograd_tui.tui.panels.panel import Panel

MOST_ROWS = 14


class CompletionList(Panel):
    """A row a candidate: the word, then what it is for; the chosen one is marked."""

    DEFAULT_CSS = """
    CompletionList { overlay: screen; offset: 0 -100%; background: $surface; }
    CompletionList { width: 80; max-width: 100%; height: auto; }
    CompletionList.framed { border: round $frame; padding: 0; }
    """

    class Taken(Message):
        """A candidate was clicked on."""

        def __init__(self, candidate: Candidate) -> None:
            super().__init__()
            self.candidate = candidate

    def __init__(self) -> None:
        super().__init__(title=" ")
        self.can_focus = False  # the line keeps the keys
        self._candidates: Sequence[Candidate] = ()
        self._index, self._chosen = 0, False
        self._first = 0  # of those that are on screen

    def offer(self, candidates: Sequence[Candidate], *, title: str) -> None:
        """Show other candidates, the first of them marked; without any, nothing."""
        self._candidates = candidates
        self.display = bool(candidates)
        self.retitle(title)
        self.mark(0, chosen=False)
        self._make_room()

    def mark(self, index: int, *, chosen: bool) -> None:
        """Mark the candidate that a key would take; `chosen` where it is more than the first that fits."""
        self._index, self._chosen = index, chosen
        keys = "tab takes ▶, ↑ ↓ choose"
        if chosen:
            keys = "enter takes it" if self._candidates[index].goes_on else "enter runs it, tab takes it"
        if keys != self.border_subtitle:
            self.border_subtitle = keys
        self.redraw()

    def rows_wanted(self) -> int:
        """Take a row for each, but leave the better part of the screen to the panels."""
        return min(len(self._candidates), MOST_ROWS, self.app.size.height * 2 // 5)

    def lines(self, width: int, height: int) -> list[Line]:
        """Draw those around the marked one; where not all fit, say so in the last row."""
        room = self._room(height)
        self._first = min(max(self._first, self._index - room + 1), self._index)
        shown = range(self._first, min(self._first + room, len(self._candidates)))
        longest = max((len(self._candidates[index].label) for index in shown), default=0)
        rows = [self._row(index, width, min(longest, width // 2)) for index in shown]
        more: Line = [(f"  {shown.start + 1} to {shown.stop} of {len(self._candidates)}", "dim")]
        return [*rows, more] if room < height else rows

    def _room(self, height: int) -> int:
        """Return how many rows the candidates have, where one may be needed to say that there are more."""
        return height if len(self._candidates) <= height else max(height - 1, 1)

    def _row(self, index: int, width: int, label_width: int) -> Line:
        candidate, marked = self._candidates[index], index == self._index
        label = candidate.label
        if len(label) > label_width:
            label = "…" + label[len(label) - label_width + 1 :]
        row: Line = [("▶ " if marked else "  ", "accent"), (f"{label:<{label_width}}  ", "strong")]
        row.append((textwrap.shorten(candidate.line, max(width - length(row), 1), placeholder="…"), ""))
        return [(f"{plain(row):<{width}}", "now")] if marked and self._chosen else row

    def on_click(self, event: events.Click) -> None:
        """Take the candidate under the mouse."""
        offset = self.under(event)
        index = self._first + offset.y if offset else len(self._candidates)
        if offset and offset.y < self._room(self.content_size.height) and index < len(self._candidates):
            self.post_message(self.Taken(self._candidates[index]))
