"""The sequences that set colours and styles, written as the difference to the one before: a third of a screen's bytes.

Textual writes each piece of text with all of its style, and a reset behind it. Codes: ECMA-48, "Select Graphic
Rendition"; the colours by three numbers: ISO 8613-6.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_STYLE = re.compile(r"\x1b\[([\d;]*)m")
_MOVES = re.compile(r"(?:\n|\x1b\[\d*;?\d*H)*\Z")  # what moves the cursor, and shows nothing
RESET = "\x1b[0m"


class Style(NamedTuple):
    """What is set: the two colours, as codes, and the codes of bold, dim, italic, underline, reverse and so on."""

    foreground: str = ""
    background: str = ""
    others: frozenset[str] = frozenset()


PLAIN = Style()


def shorten_styles(text: str) -> str:
    """Return text for a terminal that looks the same with fewer bytes; it begins and ends without a style.

    Text with a code that is not known here is returned as it is.
    """
    written, wanted, current = [], PLAIN, PLAIN
    pieces = _STYLE.split(text)  # text, the codes behind it, text, ...
    for index, piece in enumerate(pieces):
        if index % 2:
            style = style_after(wanted, piece)
            if style is None:
                return text
            wanted = style
        elif piece:
            if wanted != current and not _MOVES.match(piece):
                written.append(style_change(current, wanted))
                current = wanted
            written.append(piece)
    if current != PLAIN:
        written.append(RESET)
    return "".join(written)


@lru_cache(maxsize=4096)
def style_after(style: Style, codes: str) -> Style | None:
    """Return the style after some codes; None where one is unknown."""
    rest = codes.split(";")
    while rest:
        code = rest.pop(0) or "0"
        number = int(code)
        if number == 0:
            style = PLAIN
        elif number < 10:
            style = style._replace(others=style.others | {code})
        elif number in (38, 48):
            count = {"2": 4, "5": 2}.get(rest[0] if rest else "", 0)
            if not count or len(rest) < count:
                return None
            color, rest = ";".join([code, *rest[:count]]), rest[count:]
            style = style._replace(foreground=color) if number == 38 else style._replace(background=color)
        elif number // 10 in (3, 9):
            style = style._replace(foreground="" if number == 39 else code)
        elif number // 10 in (4, 10):
            style = style._replace(background="" if number == 49 else code)
        else:
            return None
    return style


@lru_cache(maxsize=4096)
def style_change(current: Style, wanted: Style) -> str:
    """Return the sequence that leads from one style to another, after a reset where something has to be taken away."""
    codes = []
    if current.others - wanted.others:  # the codes that take one away differ between terminals
        codes, current = ["0"], PLAIN
    codes += sorted(wanted.others - current.others)
    if wanted.foreground != current.foreground:
        codes.append(wanted.foreground or "39")
    if wanted.background != current.background:
        codes.append(wanted.background or "49")
    return f"\x1b[{';'.join(codes)}m"
