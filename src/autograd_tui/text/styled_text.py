"""Styled text: lines of pieces with a look, which lines of many are in view, and a form in ASCII."""

from __future__ import annotations

import re
import textwrap
from functools import lru_cache

from autograd_tui.core.terminal_text import one_line, printable

__all__ = ["Line", "Span", "justified", "length", "one_line", "plain", "printable", "wrapped"]

# A style is a name: "" (plain), dim, strong, accent, now, up (new), positive, negative, warn, error,
# or a level of a ramp, as in text/loss_map. The theme gives it its look.
Span = tuple[str, str]  # text, style
Line = list[Span]
# They take the blank behind them: "2 > 1" would be a comparison, and < and > are keys.
_ARROWS = {"← →": "<->", "→ ": "->", "← ": "<-", "←, ": "<-,", "→, ": "->,", "≈ ": "~="}
_FORMS = {
    ord(glyph): form
    for form, glyphs in (
        ("+", "╭╮╰╯┌┐└┘├┬┴┼┏┓┗┛"),
        ("-", "─━▔·–—"),
        ("|", "│┃┤┊▌▐▏▎▍▕"),
        (">", "▶▸→≥"),
        ("<", "◀◂←"),
        ("^", "▲▴↑"),
        ("v", "▼▾↓"),
        ("x", "×"),
        ("~", "≈"),
        (".", "…"),
        ("*", "•●"),
        ("o", "○"),
        ("u", "µ"),
        ("'", "°"),
        ("#", "█▉▊▋◆"),
        *zip(".:-=+*%", "▁▂▃▄▅▆▇", strict=True),  # ever more ink, up to a full #
    )
    for glyph in glyphs
}
_LEFT_OUT = re.compile(r"[!-~]…| …(?![!-~])|…[!-~]|…")  # with a character beside it: one dot would end a sentence
_BRAILLE = range(0x2800, 0x2900)
_UPPER, _LOWER = 0b00011011, 0b11100100  # the dots in each half of a braille cell


def plain(line: Line) -> str:
    """Return the text alone."""
    return "".join(text for text, _ in line)


def length(line: Line) -> int:
    """Count the characters."""
    return sum(len(text) for text, _ in line)


def justified(left: Line, right: Line, width: int) -> Line:
    """Put two parts at the two ends of a row; the right one gives way where they do not both fit."""
    gap = width - length(left) - length(right)
    return [*left, (" " * gap, ""), *right] if gap >= 1 else left


def wrapped(text: str, width: int, *, style: str = "", indent: str = "") -> list[Line]:
    """Break a sentence into rows."""
    if width < 8:
        return [[(text, style)]]
    return [[(row, style)] for row in _wrapped_rows(text, width, indent)]


@lru_cache(maxsize=256)  # a panel asks for the same sentences several times: whether they fit, and then for their rows
def _wrapped_rows(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)


def scrolled(top: int, wanted: range, *, count: int, room: int) -> int:
    """Return the first row to show of `count`: near to `top`, the wanted ones in sight, the first of them above all."""
    if wanted:
        top = max(top, wanted.stop - room)
        top = min(top, wanted.start)
    return max(min(top, count - room), 0)


def more_line(top: int, bottom: int, count: int) -> Line:
    """Return how many rows lie above `top` and from `bottom` on: "↑ 3 more  ↓ 12 more"."""
    parts = [f"{arrow} {rows} more" for arrow, rows in (("↑", top), ("↓", count - bottom)) if rows]
    return [("   " + "   ".join(parts), "dim")]


def to_ascii(text: str, cells: int) -> str:
    """Write text in ASCII, in so many cells; what has no form of its own, as in a user's names, is a "?"."""
    if text.isascii():
        return text
    for arrow, form in _ARROWS.items():
        text = text.replace(arrow, form)
    text = _LEFT_OUT.sub(lambda found: "." * len(found[0]), text)
    return "".join(map(_ascii_form, text)).ljust(cells, "?")[:cells]  # a wide character takes two cells


def _ascii_form(character: str) -> str:
    if character.isascii():
        return character
    code = ord(character)
    if code in _BRAILLE:
        return " '.:"[bool(code & _UPPER) + 2 * bool(code & _LOWER)]
    return _FORMS.get(code, "?")
