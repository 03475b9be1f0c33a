"""A run as one HTML file that needs no other: its screens, a slider, and what happened in words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

from autograd_tui.engine.values.about import About
from autograd_tui.engine.values.frame import Frame
from autograd_tui.export.frames import Rerun
from autograd_tui.export.kept_screens import kept_screens, left_out
from autograd_tui.export.markup import Markup
from autograd_tui.export.screens import Cells, Shown, drawing, moments
from autograd_tui.text.explain import explain

PHONE = (60, 28)  # columns and rows of the screens that a narrow window shows
Screens = list[list[int]]  # of each the places of its rows


def page(run: Rerun, *, size: tuple[int, int], theme: str | None) -> tuple[str, str]:
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


def _frame(frame: Frame, about: About, newest: int) -> dict[str, Any]:
    command = "" if frame.command is None else f" · {frame.phase.value if frame.phase else frame.command}"
    label = f"frame {frame.index} of {newest} · iteration {frame.iteration}{command}"
    return {"index": frame.index, "label": label, "said": explain(frame, about)}


def _rows(markup: Markup, screen: Sequence[int]) -> str:
    return "".join(f"<div>{markup.rows[place]}</div>" for place in screen)


async def _draw(
    about: About, shown: Sequence[Shown], markup: Markup, *, size: tuple[int, int], theme: str | None
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
