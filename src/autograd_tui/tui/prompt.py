"""The line for commands in words."""

from __future__ import annotations

from collections.abc import Callable

from textual import events
from textual.widgets import Input


class Prompt(Input):
    """Opens below the panels; Enter hands the words on at once, so that keys typed behind it are keys again.

    `submit` gets the words, and tells whether they were understood; words that were not stay to be mended.
    """

    DEFAULT_CSS = """
    Prompt { height: 1; border: none; padding: 0 1; display: none; }
    Prompt.open { display: block; }
    """

    def __init__(self, submit: Callable[[str], bool], *, id: str) -> None:
        placeholder = "lr=0.01   w=3   optimizer=adam   fbsz*10   @3   undo"
        super().__init__(id=id, placeholder=placeholder, compact=True, select_on_focus=False, disabled=True)
        self._submit = submit

    @property
    def is_open(self) -> bool:
        """Whether keys are words now."""
        return self.has_class("open")

    def open(self, text: str) -> None:
        """Take words, the first of them given."""
        self.disabled = False
        self.add_class("open")
        self.value = text
        self.cursor_position = len(text)
        self.screen.set_focus(self, scroll_visible=False)  # at once: focus() would let the next keys pass by

    def close(self) -> None:
        """Let keys be keys again."""
        self.clear()
        self.remove_class("open")
        self.screen.set_focus(None)
        self.disabled = True

    def on_key(self, event: events.Key) -> None:
        """Answer Enter here and now; a key that was on its way when the prompt closed goes back to the screen."""
        if self.is_open and event.key != "enter":
            return
        event.stop()
        event.prevent_default()
        if not self.is_open:
            self.app.post_message(events.Key(event.key, event.character))
        elif self._submit(self.value):
            self.close()
