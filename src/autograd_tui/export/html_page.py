"""A run as one HTML file that needs no other: its screens, a slider, and what happened in words."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

from rich.color import Color
from rich.style import Style

from autograd_tui.core.command_log import Recording
from autograd_tui.core.frame import Frame
from autograd_tui.core.session_view import SessionInfo
from autograd_tui.export.frame_replay import FrameReplay
from autograd_tui.text.explain import explain
from autograd_tui.tui.offscreen import Cells, Shown, drawing, moments

MOST = 300
NEWEST = 8


def kept_screens(recording: Recording, *, most: int = MOST) -> list[int]:
    """Give frames: the first and the newest, each error and setting as far as they fit, and some between."""
    total = len(recording)
    if total < most:
        return list(range(total + 1))
    marked = [index for index, step in enumerate(recording, start=1) if step.raised or step.command.phase is None]
    found = {*range(most // 3), *range(total - NEWEST + 1, total + 1), *_spread(marked, most // 3)}
    between = [index for index in range(most // 3, total) if index not in found]
    return sorted(found | set(_spread(between, most - len(found))))


def left_out(recording: Recording, kept: Sequence[int]) -> str:
    """Say in a sentence what is not there; "" where all is."""
    if len(kept) > len(recording):
        return ""
    return (
        f"{len(kept)} of {len(recording) + 1:,} screens are kept: the first ones, the last ones, "
        "errors and settings, and some between."
    )


def _spread(places: Sequence[int], most: int) -> Sequence[int]:
    """Take so many of them, evenly."""
    if len(places) <= most:
        return places
    return [places[each * len(places) // most] for each in range(most)]


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


PHONE = (60, 28)  # columns and rows of the screens that a narrow window shows
Screens = list[list[int]]  # of each the places of its rows


def page(run: FrameReplay, *, size: tuple[int, int], theme: str | None) -> tuple[str, str]:
    """Give the page as HTML, and a sentence of what was left out, or ""."""
    kept, about, newest = kept_screens(run.recording), run.session.about, len(run.recording)
    shown, markup = list(moments(run, set(kept))), Markup()
    screens = {
        name: asyncio.run(_draw(about, shown, markup, size=each, theme=theme))
        for name, each in (("wide", size), ("narrow", PHONE))
    }
    missing = left_out(run.recording, kept)
    told = [_frame(each.frame, about, newest) for each in shown]
    data = {"rows": markup.rows, **screens, "frames": told}
    places = {
        "title": escape(about.title),
        "command": escape(about.command_line),
        "missing": escape(missing),
        "columns": str(size[0]),
        "narrow columns": str(PHONE[0]),
        "color": markup.colors.most_common(1)[0][0],
        "ground": markup.grounds.most_common(1)[0][0],
        "looks": markup.css(),
        "last": str(len(shown) - 1),
        "label": escape(told[0]["label"]),
        "said": "\n".join(f"<p>{escape(sentence)}</p>" for sentence in told[0]["said"]),
        **{name: _rows(markup, each[0]) for name, each in screens.items()},
        "run": json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    return _filled(places), missing


def _filled(places: dict[str, str]) -> str:
    """Put each text in its place in the page, once."""
    pieces = files("autograd_tui.export").joinpath("page.html").read_text(encoding="utf-8").split("@@")
    return "".join(places[piece] if number % 2 else piece for number, piece in enumerate(pieces))


def _frame(frame: Frame, about: SessionInfo, newest: int) -> dict[str, Any]:
    command = "" if frame.command is None else f" · {frame.phase.value if frame.phase else frame.command}"
    label = f"frame {frame.index} of {newest} · iteration {frame.iteration}{command}"
    return {"index": frame.index, "label": label, "said": explain(frame, about)}


def _rows(markup: Markup, screen: Sequence[int]) -> str:
    return "".join(f"<div>{markup.rows[place]}</div>" for place in screen)


async def _draw(
    about: SessionInfo, shown: Sequence[Shown], markup: Markup, *, size: tuple[int, int], theme: str | None
) -> Screens:
    """Draw every moment on a screen of one size; the line of keys, and rows that stay empty, are left out."""
    async with drawing(about, shown[0], size=size, theme=theme) as drawn:
        drawings: list[list[Cells]] = []
        for each in shown:
            await drawn.show(each)
            drawings.append(drawn.rows()[:-1])
    used = max(place for rows in drawings for place, row in enumerate(rows) if _written(row)) + 1
    return [[markup.place(row) for row in rows[:used]] for rows in drawings]


def _written(row: Cells) -> bool:
    return any(text.strip() for text, _ in row)
