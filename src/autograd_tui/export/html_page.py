"""A run as one HTML file that needs no other: its screens, a slider, and what happened in words."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from html import escape
from string import Template
from typing import TYPE_CHECKING, Any

from rich.color import Color
from rich.style import Style

from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.frame import Frame
from autograd_tui.core.session_protocol import SessionInfo
from autograd_tui.export.template import read_template
from autograd_tui.text.explain import explain
from autograd_tui.tui.offscreen import Cells, Moment, moments, offscreen_screen

if TYPE_CHECKING:
    from autograd_tui.export.formats import ExportedRun

MAX_SCREENS = 300
NEWEST_SCREENS = 8


def sample_frames(log: CommandLog, *, limit: int = MAX_SCREENS) -> list[int]:
    """Return the indices of frames: the first, the newest, each error and setting as far as they fit, some between."""
    total = len(log)
    if total < limit:
        return list(range(total + 1))
    marked = [index for index, command in enumerate(log, start=1) if index in log.errors or command.phase is None]
    merged = {*range(limit // 3), *range(total - NEWEST_SCREENS + 1, total + 1), *_sample_evenly(marked, limit // 3)}
    between = [index for index in range(limit // 3, total) if index not in merged]
    return sorted(merged | set(_sample_evenly(between, limit - len(merged))))


def sampling_note(log: CommandLog, sample: Sequence[int]) -> str:
    """Return a sentence on what is left out; "" where nothing is."""
    if len(sample) > len(log):
        return ""
    return (
        f"{len(sample)} of {len(log) + 1:,} screens are kept: the first ones, the last ones, "
        "errors and settings, and some between."
    )


def _sample_evenly(indices: Sequence[int], limit: int) -> Sequence[int]:
    """Return `limit` of them, evenly spaced."""
    if len(indices) <= limit:
        return indices
    return [indices[each * len(indices) // limit] for each in range(limit)]


NON_LATIN = 0x250  # characters from here on may come from another font, of another width


class HtmlRows:
    """Collects the rows of all screens, each once, and a CSS class for each style."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self._indices: dict[str, int] = {}  # of each row
        self._classes: dict[tuple[str, str, str], str] = {}  # colour, ground, rest: its class
        self.color_counts: Counter[str] = Counter()
        self.ground_counts: Counter[str] = Counter()

    def row_index(self, cells: Cells) -> int:
        """Return the index of a row among all, adding it where it is new."""
        row = "".join(self._span(text, style) for text, style in _merge_spans(cells))
        if row not in self._indices:
            self._indices[row] = len(self.rows)
            self.rows.append(row)
        return self._indices[row]

    def css(self) -> str:
        """Return the rules of the classes."""
        return "\n".join(
            f".{name} {{ color: {color}; background: {ground};{rest} }}"
            for (color, ground, rest), name in self._classes.items()
        )

    def _span(self, text: str, style: Style) -> str:
        color, ground = _hex(style.color, "#e0e0e0"), _hex(style.bgcolor, "#121212")
        if style.reverse:
            color, ground = ground, color
        self.color_counts[color] += sum(map(str.isalnum, text))
        self.ground_counts[ground] += len(text)
        rest = " font-weight: bold;" * bool(style.bold) + " font-style: italic;" * bool(style.italic)
        rest += " text-decoration: underline;" * bool(style.underline)
        name = self._classes.setdefault((color, ground, rest), f"c{len(self._classes)}")
        wide = any(ord(character) >= NON_LATIN for character in text)
        return f'<b class="{name}"{_width_attribute(text) * wide}>{escape(text, quote=False)}</b>'


def _width_attribute(text: str) -> str:
    """Return the attribute that keeps a span to its columns, whatever font its characters come from."""
    return f' style="width:{len(text)}ch"'


def _merge_spans(cells: Cells) -> Cells:
    """Return the cells with neighbours of the same style joined."""
    merged: Cells = []
    for text, style in cells:
        if merged and _same_style(merged[-1][1], style):
            merged[-1] = (merged[-1][0] + text, merged[-1][1])
        else:
            merged.append((text, style))
    return merged


def _same_style(one: Style, other: Style) -> bool:
    names = ("color", "bgcolor", "bold", "italic", "underline", "reverse")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _hex(color: Color | None, default: str) -> str:
    return default if color is None or color.is_default else color.get_truecolor().hex


NARROW_SIZE = (60, 28)  # columns and rows of the screens that a narrow window shows
Screens = list[list[int]]  # of each the indices of its rows


def html_page(run: ExportedRun, *, size: tuple[int, int], theme: str | None) -> tuple[str, str]:
    """Return the page as HTML, and a sentence on what was left out, or ""."""
    (sample, missing), about, newest = run.sample(MAX_SCREENS), run.about, run.newest
    shown, markup = list(moments(run, set(sample))), HtmlRows()
    screens = {
        name: asyncio.run(_draw(about, shown, markup, size=each, theme=theme))
        for name, each in (("wide", size), ("narrow", NARROW_SIZE))
    }
    frames = [_frame_data(each.frame, newest) for each in shown]
    data = {"rows": markup.rows, **screens, "frames": frames}
    fields = {
        "title": escape(about.title),
        "command": escape(about.command_line),
        "missing": escape(missing),
        "columns": str(size[0]),
        "narrow_columns": str(NARROW_SIZE[0]),
        "color": markup.color_counts.most_common(1)[0][0],
        "ground": markup.ground_counts.most_common(1)[0][0],
        "looks": markup.css(),
        "last": str(len(shown) - 1),
        "label": escape(frames[0]["label"]),
        "said": "\n".join(f"<p>{escape(sentence)}</p>" for sentence in frames[0]["said"]),
        **{name: _rows(markup, each[0]) for name, each in screens.items()},
        "run": json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    return Template(read_template("page.html")).substitute(fields), missing


def _frame_data(frame: Frame, newest: int) -> dict[str, Any]:
    command = "" if frame.command is None else f" · {frame.phase.value if frame.phase else frame.command}"
    label = f"frame {frame.index} of {newest} · iteration {frame.iteration}{command}"
    return {"index": frame.index, "label": label, "said": explain(frame)}


def _rows(markup: HtmlRows, screen: Sequence[int]) -> str:
    return "".join(f"<div>{markup.rows[index]}</div>" for index in screen)


async def _draw(
    about: SessionInfo, shown: Sequence[Moment], markup: HtmlRows, *, size: tuple[int, int], theme: str | None
) -> Screens:
    """Draw every moment on a screen of one size; the line of keys, and rows that stay empty, are left out."""
    async with offscreen_screen(about, shown[0], size=size, theme=theme) as drawn:
        drawings: list[list[Cells]] = []
        for each in shown:
            await drawn.show(each)
            drawings.append(drawn.rows()[:-1])
    used = max(index for rows in drawings for index, row in enumerate(rows) if _has_text(row)) + 1
    return [[markup.row_index(row) for row in rows[:used]] for rows in drawings]


def _has_text(row: Cells) -> bool:
    return any(text.strip() for text, _ in row)
