"""Each row made into what the terminal can show, after it is drawn."""

from __future__ import annotations

from functools import lru_cache

from rich.cells import cell_len
from rich.color import Color as RichColor
from rich.palette import Palette
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter

from autograd_tui.text.ascii import to_ascii

_LEVELS = (0, 95, 135, 175, 215, 255)  # of red, green and blue where there are 256 colours; then come 24 greys
_CUBE = [(red, green, blue) for red in _LEVELS for green in _LEVELS for blue in _LEVELS]
_PALETTE = Palette([*_CUBE, *((grey, grey, grey) for grey in range(8, 248, 10))])
_FIRST = 16  # the number of its first colour; those before are the terminal's own


class AsciiOnly(LineFilter):
    """Writes every character in ASCII, in panels, borders and dialogs alike."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Write a row's text anew, in as many cells."""
        return [Segment(to_ascii(text, cell_len(text)), style, control) for text, style, control in segments]


class Of256(LineFilter):
    """Takes the nearest of 256 colours, where Rich would turn a dark grey into blue or green."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Exchange a row's colours."""
        return [Segment(text, style and _of_256(style), control) for text, style, control in segments]


def nearest_of_256(color: Color) -> Color:
    """Give the nearest of the 256 colours that are the same on every terminal."""
    return Color(*_PALETTE[_PALETTE.match(color.rgb)])


@lru_cache(1024)
def _of_256(style: Style) -> Style:
    color, ground = (
        RichColor.from_ansi(_FIRST + _PALETTE.match(tuple(each.triplet))) if each and each.triplet else each
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
