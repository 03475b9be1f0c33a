"""The line that words are typed into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from textual import actions, events
from textual.binding import Binding
from textual.message import Message
from textual.widgets import Input

LONGEST = 10_000  # characters
EDITING = {
    key: binding.action for binding in Input.BINDINGS if isinstance(binding, Binding) for key in binding.key.split(",")
}


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
        """Tell that there are other words now."""
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
        if len(self.value) + len(words) > LONGEST:
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
