"""Widgets that spare Textual work: rows composed once, screens that ignore old sizes, the screen shown first."""

from __future__ import annotations

from typing import ClassVar, Self

from rich.segment import Segment
from textual import events
from textual.containers import Horizontal, Vertical
from textual.geometry import Region
from textual.screen import Screen
from textual.strip import Strip
from textual.widget import Widget

from autograd_tui.text.styled_text import printable


class CachedRows(Widget):
    """Gives the rows of before for as long as nothing has asked for others."""

    _rows_kept: tuple[Region, list[Strip]] | None = None

    def render_lines(self, crop: Region) -> list[Strip]:
        """Return the rows, for the compositor."""
        if self._rows_kept is None or self._rows_kept[0] != crop:
            self._rows_kept = crop, self.rows(crop)
        return self._rows_kept[1]

    def rows(self, crop: Region) -> list[Strip]:
        """Put the rows together."""
        return super().render_lines(crop)

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Self:
        """Ask for other rows."""
        self.forget_rows()
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def notify_style_update(self) -> None:
        """Forget the rows in the colours of before."""
        super().notify_style_update()
        self.forget_rows()

    def forget_rows(self) -> None:
        """Put the rows together anew when they are painted next; nothing is asked of the screen."""
        self._rows_kept = None


class CachedHorizontal(Horizontal, CachedRows):
    """Holds panels side by side."""


class CachedVertical(Vertical, CachedRows):
    """Holds panels one above the other."""


class SizedScreen(Screen[None]):
    """Leaves out sizes of a moment ago.

    Textual's screen lays itself out for any size it is told, and tells itself that size again: two of them, told in one
    moment to a screen below another, take turns for ever.

    It also holds the looks of what its panels write: Textual finds those of each panel anew wherever its styles are.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "panel--dim",
        "panel--strong",
        "panel--accent",
        "panel--now",
        "panel--up",
        "panel--positive",
        "panel--negative",
        "panel--warn",
        "panel--error",
    }
    DEFAULT_CSS = """
    SizedScreen {
        .panel--dim { color: $text-muted; }
        .panel--strong { text-style: bold; }
        .panel--accent { color: $text-accent; }
        .panel--now { background: $mark; color: $on-mark; text-style: $mark-text-style; }
        &:nocolor .panel--now { text-style: bold reverse; }
        .panel--up { color: $text-success; }
        .panel--positive { color: $text-positive; }
        .panel--negative { color: $text-negative; }
        .panel--warn { color: $text-warning; }
        .panel--error { color: $text-error; text-style: bold; }
    }
    """

    async def on_event(self, event: events.Event) -> None:
        """Take an event, but no size that the app has not any more."""
        if not isinstance(event, events.Resize) or event.size == self.app.size:
            await super().on_event(event)


class OpeningScreen(SizedScreen):
    """The main screen without its panels: its rows above and below, and the note. It lies below all other screens."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"opening--row"}
    DEFAULT_CSS = """
    OpeningScreen { background: $background; }
    OpeningScreen .opening--row { background: $panel; }
    """

    def __init__(self, sentence: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._sentence = sentence

    def render_line(self, y: int) -> Strip:
        """Return one row, for the compositor."""
        width, height = self.size
        if y in (0, height - 1):
            return Strip.blank(width, self.get_component_rich_style("opening--row"))
        if y == height - 2:
            sentence = Segment(f" {printable(self._sentence)}", self.get_component_rich_style("panel--accent"))
            return Strip(Segment.adjust_line_length([sentence], width, self.rich_style), width)
        return Strip.blank(width, self.rich_style)
