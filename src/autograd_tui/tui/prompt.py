"""The line that words are typed into, and the list above it that names and completes them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from textual import actions, events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Input, Static

from autograd_tui.core.command import MAX_LINE_LENGTH
from autograd_tui.text.prompt.completion import Candidate, with_candidate
from autograd_tui.text.styled_text import Line, length, plain
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.screen_state import Note

MOST_ROWS = 14
MAX_HISTORY_LINES = 100
EDITING = {
    key: binding.action for binding in Input.BINDINGS if isinstance(binding, Binding) for key in binding.key.split(",")
}
TOO_LONG = Note(f"a line of more than {MAX_LINE_LENGTH:,} characters is not taken", "warn")


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


class PromptLine(Input):
    """Takes each key at the moment when the app hands it on.

    In a queue of its own, as other widgets have one, a key that is typed quickly behind Enter would be a word still,
    or come after keys that were typed later.
    """

    DEFAULT_CSS = "PromptLine { height: 1; border: none; padding: 0; background: $surface; }"

    class Full(Message):
        """Words were too many, and not taken."""

    def __init__(self, keys: Mapping[str, Callable[[], None]], edited: Callable[[], None]) -> None:
        super().__init__(compact=True)
        self.select_on_focus = self.cursor_blink = False  # a cursor that blinks would write while nothing happens
        self._keys, self._edited = keys, edited

    def watch_value(self) -> None:
        """Hand on that there are other words now."""
        self._edited()

    def write(self, words: str) -> None:
        """Put words in the place of all there are."""
        self.value = words
        self.cursor_position = len(words)

    def post_message(self, message: Message) -> bool:
        """Answer a key or a paste here and now, and queue the rest."""
        if isinstance(message, events.Key):
            self._take(message)
        elif isinstance(message, events.Paste):
            self._insert("".join(message.text.splitlines()[:1]))
        else:
            return super().post_message(message)
        return True

    def _insert(self, words: str) -> None:
        """Put words at the cursor, or none of them where they are too many."""
        if len(self.value) + len(words) > MAX_LINE_LENGTH:
            self.post_message(self.Full())
        else:
            self.replace(words, *self.selection)

    def _take(self, key: events.Key) -> None:
        if key.key in self._keys:
            self._keys[key.key]()
        elif key.is_printable and key.character:
            self._insert(key.character)
        elif key.key in EDITING:
            _, name, arguments = actions.parse(EDITING[key.key])
            with suppress(actions.SkipAction):
                getattr(self, f"action_{name}")(*arguments)


class PromptHistory:
    """The lines that were submitted, oldest first, and an index into them; behind the newest is an empty line."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._index = 0

    @property
    def line(self) -> str:
        """The line at the index."""
        return self._lines[self._index] if self._index < len(self._lines) else ""

    def add(self, words: str) -> None:
        """Add what was submitted, and go behind it."""
        if words.strip() and words not in self._lines[-1:]:
            self._lines = [*self._lines, words][-MAX_HISTORY_LINES:]
        self.leave()

    def leave(self) -> None:
        """Go behind the newest."""
        self._index = len(self._lines)

    def go(self, by: int) -> bool:
        """Move towards the older (-1) or the newer (1); return whether there was any."""
        index = self._index + by
        if not 0 <= index <= len(self._lines):
            return False
        self._index = index
        return True


class Prompt(Vertical):
    """Lies over the last row while it is open, and its list over the panels: nothing below moves.

    `submit` gets the words at once, so that keys typed behind Enter are keys again, and tells whether they were
    understood; words that were not stay to be mended. `offer` gives a title and candidates for what is typed.
    """

    DEFAULT_CSS = """
    Prompt { layer: prompt; dock: bottom; height: 1; background: $surface; }
    Prompt Horizontal { height: 1; }
    Prompt Static { width: 2; padding-left: 1; color: $text-accent; }
    """

    def __init__(
        self,
        submit: Callable[[str], bool],
        offer: Callable[[str], tuple[str, Sequence[Candidate]]],
        *,
        id: str,
    ) -> None:
        super().__init__(id=id, disabled=True)
        self.display = False
        self._submit_words, self._offer = submit, offer
        self._title = ""
        self._candidates: Sequence[Candidate] = ()
        self._place, self._chosen = 0, False  # of the candidate that is marked
        self._history = PromptHistory()
        self._list = CompletionList()
        keys = {
            "enter": self._submit,
            "tab": self._complete,
            "up": lambda: self._move(-1),
            "down": lambda: self._move(1),
        }
        self._line = PromptLine(keys, self._edited)

    def compose(self) -> ComposeResult:
        yield self._list
        with Horizontal():
            yield Static(":", markup=False)
            yield self._line

    @property
    def is_open(self) -> bool:
        """Whether keys are words now."""
        return self.display

    def open(self, text: str) -> None:
        """Take words, the first of them given."""
        self.disabled = False
        self.display = True
        self._history.leave()
        self._line.write(text)
        self._edited()
        self.screen.set_focus(self._line, scroll_visible=False)  # at once: focus() would let the next keys pass by

    def close(self) -> None:
        """Let keys be keys again."""
        self.display = False
        self._line.clear()
        self.screen.set_focus(None)
        self.disabled = True

    def _edited(self) -> None:
        """Offer what fits to the words as they are now."""
        if self.is_open:
            self._title, self._candidates = self._offer(self._line.value)
            self._place, self._chosen = 0, False
            self._list.offer(self._candidates, title=self._title)

    def _submit(self) -> None:
        """Hand the words on, the chosen candidate among them; where that is but a beginning, go on typing."""
        if self._chosen:
            candidate = self._candidates[self._place]
            self._take(candidate)
            if candidate.goes_on:
                return
        words = self._line.value
        if self._submit_words(words):
            self._history.add(words)
            self.close()
        else:
            self.make_room()  # for the sentence that says why

    def make_room(self) -> None:
        """Put the list away, below which a sentence stands."""
        if self.is_open:
            self._list.offer((), title=" ")

    def _complete(self) -> None:
        if self._candidates:
            self._take(self._candidates[self._place])

    def _take(self, candidate: Candidate) -> None:
        self._line.write(with_candidate(self._line.value, candidate))

    def on_completion_list_taken(self, event: CompletionList.Taken) -> None:
        """Take the candidate that was clicked on."""
        if self.is_open:
            self._take(event.candidate)

    def _move(self, by: int) -> None:
        """Go to the words submitted before, from an empty line or one of them; else through the candidates."""
        if not self._chosen and self._line.value == self._history.line and self._history.go(by):
            self._line.write(self._history.line)
        elif self._candidates:
            if not self._list.display:  # it had made room for a sentence
                self._list.offer(self._candidates, title=self._title)
            self._place, self._chosen = (self._place + by) % len(self._candidates), True
            self._list.mark(self._place, chosen=True)
