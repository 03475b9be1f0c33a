"""The line for words, and above it what they could be."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from autograd_tui.text.completion import completed
from autograd_tui.text.word_list import Candidate
from autograd_tui.tui.earlier_words import EarlierWords
from autograd_tui.tui.panels.candidates import CandidatesPanel
from autograd_tui.tui.panels.note import Note
from autograd_tui.tui.prompt_line import LONGEST, PromptLine

TOO_LONG = Note(f"a line of more than {LONGEST:,} characters is not taken", "warn")


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
        self._earlier = EarlierWords()
        self._list = CandidatesPanel()
        keys = {
            "enter": self._submit,
            "tab": self._complete,
            "up": lambda: self._move(-1),
            "down": lambda: self._move(1),
        }
        self._line = PromptLine(keys, self._edited)

    def compose(self) -> ComposeResult:
        """Yield the list and the line."""
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
        self._earlier.leave()
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
            self._earlier.add(words)
            self.close()
        else:
            self._list.offer((), title=" ")  # the sentence that says why stands below the list

    def _complete(self) -> None:
        if self._candidates:
            self._take(self._candidates[self._place])

    def _take(self, candidate: Candidate) -> None:
        self._line.write(completed(self._line.value, candidate))

    def on_candidates_panel_taken(self, event: CandidatesPanel.Taken) -> None:
        """Take the candidate that was clicked on."""
        if self.is_open:
            self._take(event.candidate)

    def _move(self, by: int) -> None:
        """Go to the words submitted before, from an empty line or one of them; else through the candidates."""
        if not self._chosen and self._line.value == self._earlier.here and self._earlier.go(by):
            self._line.write(self._earlier.here)
        elif self._candidates:
            if not self._list.display:  # it had made room for a sentence
                self._list.offer(self._candidates, title=self._title)
            self._place, self._chosen = (self._place + by) % len(self._candidates), True
            self._list.mark(self._place, chosen=True)
