"""Rows of a screen as HTML: each look is a class, each row that comes again is held once."""

from __future__ import annotations

from collections import Counter
from html import escape

from rich.color import Color
from rich.style import Style

from autograd_tui.export.screens import Cells

LATIN = 0x250  # characters from here on may come from another font, of another width


class Markup:
    """Collects rows and looks."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self._places: dict[str, int] = {}  # of each row
        self._looks: dict[tuple[str, str, str], str] = {}  # colour, ground, rest: its class
        self.colors: Counter[str] = Counter()
        self.grounds: Counter[str] = Counter()

    def place(self, cells: Cells) -> int:
        """Give the place of a row among all, adding it where it is new."""
        row = "".join(self._span(text, style) for text, style in _joined(cells))
        if row not in self._places:
            self._places[row] = len(self.rows)
            self.rows.append(row)
        return self._places[row]

    def css(self) -> str:
        """Write the classes."""
        return "\n".join(
            f".{name} {{ color: {color}; background: {ground};{rest} }}"
            for (color, ground, rest), name in self._looks.items()
        )

    def _span(self, text: str, style: Style) -> str:
        color, ground = _hex(style.color, "#e0e0e0"), _hex(style.bgcolor, "#121212")
        if style.reverse:
            color, ground = ground, color
        self.colors[color] += sum(map(str.isalnum, text))
        self.grounds[ground] += len(text)
        rest = " font-weight: bold;" * bool(style.bold) + " font-style: italic;" * bool(style.italic)
        rest += " text-decoration: underline;" * bool(style.underline)
        name = self._looks.setdefault((color, ground, rest), f"c{len(self._looks)}")
        wide = any(ord(character) >= LATIN for character in text)
        return f'<b class="{name}"{_width(text) * wide}>{escape(text, quote=False)}</b>'


def _width(text: str) -> str:
    """Hold a span to its columns, whatever font its characters come from."""
    return f' style="width:{len(text)}ch"'


def _joined(cells: Cells) -> Cells:
    """Join neighbours that look the same."""
    found: Cells = []
    for text, style in cells:
        if found and _same(found[-1][1], style):
            found[-1] = (found[-1][0] + text, found[-1][1])
        else:
            found.append((text, style))
    return found


def _same(one: Style, other: Style) -> bool:
    names = ("color", "bgcolor", "bold", "italic", "underline", "reverse")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _hex(color: Color | None, default: str) -> str:
    return default if color is None or color.is_default else color.get_truecolor().hex
