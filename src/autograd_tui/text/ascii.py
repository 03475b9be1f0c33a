"""The screen in ASCII: a form for every glyph, in as many cells as it takes."""

from __future__ import annotations

import re

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
