"""Lines of styled text: what panels are made of, before any screen knows of them."""

from __future__ import annotations

import textwrap

from autograd_tui.engine.values.printed import one_line, printable

__all__ = ["Line", "Span", "length", "one_line", "plain", "printable", "spread", "wrapped"]

# A style is a name: "" (plain), dim, strong, accent, now, up, down, warn, error. The theme gives it its look.
Span = tuple[str, str]  # text, style
Line = list[Span]


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
