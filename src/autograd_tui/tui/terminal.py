"""What the terminal can show, and the filters that put every drawing into its colours and characters."""

from __future__ import annotations

import locale
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from rich.cells import cell_len
from rich.color import Color as RichColor
from rich.console import Console
from rich.palette import Palette
from rich.segment import Segment
from rich.style import Style
from textual.app import App
from textual.color import Color
from textual.filter import LineFilter, Monochrome, NoColor
from textual.reactive import var

from autograd_tui.text.styled_text import to_ascii
from autograd_tui.tui.themes import USUAL, cube_of_256, readable, unchanged

_COLORS = {"standard": 16, "windows": 16, "256": 256, "truecolor": 1 << 24}


@dataclass(frozen=True, slots=True)
class Terminal:
    """One that can show everything, unless said otherwise."""

    colors: int = 1 << 24
    colorless: bool = False  # asked for, by NO_COLOR
    ascii_only: bool = False


def this_terminal() -> Terminal:
    """Ask the environment."""
    return Terminal(
        colors=_COLORS.get(Console(stderr=True).color_system or "", 16),
        colorless=bool(os.environ.get("NO_COLOR")),
        ascii_only=locale.getencoding().lower().replace("-", "") != "utf8",
    )


_FIRST = 16  # the number of the palette's first colour; those before are the terminal's own


@cache
def _palette() -> Palette:
    """Return the colours of 256 that are the same on every terminal."""
    return Palette([*(color.rgb for color in cube_of_256()), *((grey, grey, grey) for grey in range(8, 248, 10))])


class AsciiOnly(LineFilter):
    """Writes every character in ASCII, in panels, borders and dialogs alike."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Write a row's text anew, in as many cells."""
        return [Segment(to_ascii(text, cell_len(text)), style, control) for text, style, control in segments]


class In256Colours(LineFilter):
    """Takes the nearest of 256 colours, where Rich would turn a dark grey into blue or green."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Exchange a row's colours."""
        return [Segment(text, style and _of_256(style), control) for text, style, control in segments]


@lru_cache(1024)
def nearest_of_256(color: Color) -> Color:
    """Return the nearest of the 256 colours that are the same on every terminal."""
    return Color(*_palette()[_palette().match(color.rgb)])


@lru_cache(1024)
def _of_256(style: Style) -> Style:
    color, ground = (
        RichColor.from_ansi(_FIRST + _palette().match(tuple(each.triplet))) if each and each.triplet else each
        for each in (style.color, style.bgcolor)
    )
    return style + Style.from_color(color, ground)


class NoColour(LineFilter):
    """Leaves bold, reverse and underline, and no colour: not even the terminal's own by name, as Textual's does."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Take a row's colours away."""
        return [Segment(text, style and _without_colour(style), control) for text, style, control in segments]


@lru_cache(1024)
def _without_colour(style: Style) -> Style:
    return style.without_color + Style.from_meta(style.meta)


class ReadableApp(App[int]):
    """Draws what the terminal can show."""

    ascii_only: var[bool] = var(False, init=False)

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal  # first, since Textual asks for the colours while it makes itself
        self._ascii = AsciiOnly(enabled=False)
        self._own_filters = (
            In256Colours(enabled=terminal.colors == 256),
            NoColour(enabled=terminal.colorless),
            self._ascii,
        )
        super().__init__()
        self.no_color = terminal.colorless  # for Textual it is, even where NO_COLOR is set to nothing
        for usual in USUAL:
            self.register_theme(usual)
        self.stylesheet.set_variables(self.get_css_variables())

    @property
    def bytes_sent(self) -> int:
        """How many bytes were sent to the terminal; 0 where there is none, or nobody counts."""
        return getattr(self._driver, "bytes_sent", 0)

    @property
    def terminal_is_behind(self) -> bool:
        """Whether the terminal has not taken all that was sent."""
        return getattr(self._driver, "is_behind", False)

    def watch_ascii_only(self) -> None:
        """Draw everything anew."""
        self._ascii.enabled = self.ascii_only
        self.refresh_css(animate=False)

    def get_css_variables(self) -> dict[str, str]:
        """Put colours that can be read in place of the theme's own."""
        variables = super().get_css_variables()
        return variables | readable(self.current_theme, variables, shown=self.shown)

    @property
    def shown(self) -> Callable[[Color], Color]:
        """What the terminal makes of a colour."""
        return nearest_of_256 if self.terminal.colors == 256 else unchanged

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Add those of this app; without colours Textual's leave greys."""
        filters = [each for each in super().get_line_filters() if not isinstance(each, (Monochrome, NoColor))]
        return [*filters, *(each for each in self._own_filters if each.enabled)]
