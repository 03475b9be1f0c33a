"""What the terminal shows, cell by cell, so that only the cells that change are written, in styles that change.

Textual writes a changed part of a row with all that stands between it and the left edge of its widget, and each piece
of text with all of its style and a reset behind it; the difference to the style before is a third of a screen's bytes.
Codes: ECMA-48, "Select Graphic Rendition"; the colours by three numbers: ISO 8613-6.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from rich.cells import cell_len

_PART = re.compile(
    r"""\x1b\[(?P<style>[\d;]*)m
    |\x1b\[(?P<row>\d*);(?P<column>\d*)H
    |(?P<newline>\n)
    |(?P<synchronized>\x1b\[\?2026[hl])
    |(?P<text>[^\x00-\x1f\x7f-\x9f]+)
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_STYLE = re.compile(r"\x1b\[([\d;]*)m")
_MOVES = re.compile(r"(?:\n|\x1b\[\d*;?\d*H)*\Z")  # what moves the cursor, and shows nothing
RESET = "\x1b[0m"

Place = tuple[int, int]  # row and column, from 0


class Style(NamedTuple):
    """What is set: the two colours, as codes, and the codes of bold, dim, italic, underline, reverse and so on."""

    foreground: str = ""
    background: str = ""
    others: frozenset[str] = frozenset()


PLAIN = Style()


class ScreenCells:
    """Leaves out of what is written to a terminal the cells that it shows already.

    Only what is known for certain is left out: nothing of a row into which a character of another width than one cell
    was written, nothing behind a sequence that is not known here, and nothing after `forget`.
    """

    def __init__(self) -> None:
        self._rows: dict[int, _Row] = {}
        self._cursor: Place | None = None  # where the terminal's cursor stands; None where that is not known
        self._pen = PLAIN  # the style that the terminal writes in
        self._forgets = False

    def forget(self) -> None:
        """Take the terminal to show anything: what is written next is written whole; a signal's handler may call."""
        self._forgets = True

    def changes(self, text: str) -> str:
        """Return what to write in place of `text` for the same look; both begin and end without a style.

        Where something in the text is not understood, all of it is returned, and what the terminal shows is forgotten.
        """
        if self._forgets:
            self._forgets = False
            self._rows, self._cursor = {}, None
        written: list[str] = []
        wanted, style = self._cursor, PLAIN
        for part in _PART.finditer(text):
            kind = part.lastgroup
            if kind == "text" and wanted is not None:
                self._write(written, wanted, part[0], style)
                wanted = wanted[0], wanted[1] + cell_len(part[0])
            elif kind == "style" and (after := style_after(style, part["style"])) is not None:
                style = after
            elif kind == "column":
                wanted = max(int(part["row"] or 1), 1) - 1, max(int(part["column"] or 1), 1) - 1
            elif kind == "newline" and wanted is not None:
                wanted = wanted[0] + 1, 0
            elif kind == "synchronized":
                written.append(part[0])
            else:
                self.forget()
                self._pen = PLAIN
                return shorten_styles(text)
        if wanted is not None:
            self._approach(written, wanted, PLAIN)
        self._set_pen(written, PLAIN)
        if wanted is not None:
            self._move(written, wanted)
        return "".join(written)

    def _write(self, written: list[str], place: Place, text: str, style: Style) -> None:
        """Write the cells of a text that are others than before."""
        row, column = place
        if not _is_narrow(text):  # terminals do not agree on how wide it is
            self._put(written, place, text, style)
            self._rows.pop(row, None)
            self._cursor = None
            return
        cells = self._rows.setdefault(row, _Row())
        for start, end in cells.differing(column, text, style):
            self._put(written, (row, start), text[start - column : end - column], style)
            cells.set(start, text[start - column : end - column], style)
            self._cursor = row, end

    def _put(self, written: list[str], place: Place, text: str, style: Style) -> None:
        """Write a text, behind a move of the cursor, or behind the few cells that are shorter than the move."""
        self._approach(written, place, style)
        self._move(written, place)
        self._set_pen(written, style)
        written.append(text)

    def _approach(self, written: list[str], place: Place, style: Style) -> None:
        """Write once more the cells before a place, where that is shorter than a move and they have a style at hand."""
        row, column = place
        if self._cursor is None or self._cursor[0] != row or row not in self._rows:
            return
        gap = self._rows[row].text(self._cursor[1], column, (style, self._pen))
        if gap and len(gap[0]) <= len(_move(self._cursor, place)):
            between, its_style = gap
            self._set_pen(written, its_style)
            written.append(between)
            self._cursor = place

    def _move(self, written: list[str], place: Place) -> None:
        if self._cursor != place:
            written.append(_move(self._cursor, place))
            self._cursor = place

    def _set_pen(self, written: list[str], style: Style) -> None:
        if self._pen != style:
            written.append(RESET if style == PLAIN else style_change(self._pen, style))
            self._pen = style


class _Row:
    """The cells of a row, each with its character and style; None where that is not known."""

    def __init__(self) -> None:
        self._characters: list[str | None] = []
        self._styles: list[Style | None] = []

    def differing(self, start: int, text: str, style: Style) -> list[tuple[int, int]]:
        """Return the columns, from one up to another, where a text is not what the row shows."""
        end = start + len(text)
        missing = end - len(self._styles)
        if missing > 0:
            self._characters += [None] * missing
            self._styles += [None] * missing
        characters, styles = self._characters[start:end], self._styles[start:end]
        if styles.count(style) < len(text):
            shown = [
                character if its_style == style else None
                for character, its_style in zip(characters, styles, strict=True)
            ]
        else:
            shown = characters
        if shown == list(text):
            return []
        differ = [
            column for column, (before, after) in enumerate(zip(shown, text, strict=True), start) if before != after
        ]
        if differ[-1] - differ[0] + 1 == len(differ):
            return [(differ[0], differ[-1] + 1)]
        spans: list[tuple[int, int]] = []
        for column in differ:
            begin = spans.pop()[0] if spans and spans[-1][1] == column else column
            spans.append((begin, column + 1))
        return spans

    def set(self, start: int, text: str, style: Style) -> None:
        """Take note of a text that was written."""
        end = start + len(text)
        self._characters[start:end] = text
        self._styles[start:end] = [style] * len(text)

    def text(self, start: int, end: int, styles: tuple[Style, ...]) -> tuple[str, Style] | None:
        """Return what stands between two columns, if all of it has one style, which is one of `styles`."""
        characters = self._characters[start:end]
        style = self._styles[start] if start < end <= len(self._styles) else None
        if style not in styles or any(each != style for each in self._styles[start:end]):
            return None
        assert style is not None
        return "".join(character or "" for character in characters), style


def _move(start: Place | None, end: Place) -> str:
    """Return the sequence that moves the cursor, which may stand anywhere where `start` is None."""
    row, column = end
    return f"\x1b[{column + 1}G" if start and start[0] == row else f"\x1b[{row + 1};{column + 1}H"


@lru_cache(maxsize=4096)
def _is_narrow(text: str) -> bool:
    """Return whether each character of a text takes one cell."""
    return text.isascii() or all(cell_len(character) == 1 for character in set(text))


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
