"""Lines of styled text: what panels are made of, before any screen knows of them."""

from __future__ import annotations

import re
import textwrap

# A style is a name: "" (plain), dim, strong, accent, now, up, down, warn, error. The theme gives it its look.
Span = tuple[str, str]  # text, style
Line = list[Span]
_ESCAPE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|.)")


def printable(text: str) -> str:
    """Take out what would move a terminal's cursor or change its colours: escape sequences and control characters."""
    if text.isprintable():
        return text
    return "".join(character for character in _ESCAPE.sub("", text.expandtabs(4)) if character.isprintable())


def one_line(text: str, longest: int = 1000) -> str:
    """Give text of others as one printable line, shortened where it is longer than anyone reads."""
    line = printable(" ".join(text[: 2 * longest].split()))
    return line if len(line) <= longest else line[: longest - 1] + "…"


def plain(line: Line) -> str:
    """Give the text alone."""
    return "".join(text for text, _ in line)


def length(line: Line) -> int:
    """Count the characters."""
    return sum(len(text) for text, _ in line)


def spread(left: Line, right: Line, width: int) -> Line:
    """Put two parts at the two ends of a row; the right one gives way where they do not both fit."""
    gap = width - length(left) - length(right)
    return [*left, (" " * gap, ""), *right] if gap >= 1 else left


def wrapped(text: str, width: int, *, style: str = "", indent: str = "") -> list[Line]:
    """Break a sentence into rows."""
    if width < 8:
        return [[(text, style)]]
    rows = textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)
    return [[(row, style)] for row in rows]
