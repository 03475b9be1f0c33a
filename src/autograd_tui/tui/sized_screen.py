"""A screen that only takes the size that the terminal has."""

from __future__ import annotations

from textual import events
from textual.screen import Screen


class SizedScreen(Screen[None]):
    """Leaves out sizes of a moment ago.

    Textual's screen lays itself out for any size it is told, and tells itself that size again: two of them, told in one
    moment to a screen below another, take turns for ever.
    """

    async def on_event(self, event: events.Event) -> None:
        """Take an event, but no size that the app has not any more."""
        if not isinstance(event, events.Resize) or event.size == self.app.size:
            await super().on_event(event)
