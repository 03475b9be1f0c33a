"""The lines of source around the one that called an operation."""

from __future__ import annotations

import linecache
from collections.abc import Sequence
from pathlib import PurePath
from textwrap import dedent

from autograd_tui.engine.values.trace import Source
from autograd_tui.text.inside.walk import Walk
from autograd_tui.text.line import Line, printable, spread

ROOMY = 8  # rows, from which on lines stay where they are


def source_lines(walk: Walk, listing: Sequence[str], width: int, height: int) -> list[Line]:
    """Give as many lines as fit, that of the operation lit; without a source of its own, the phase's in `listing`."""
    source = walk.op.source
    if source is None:
        return [[("▶ ", "accent"), (printable(code)[: width - 2], "strong")] for code in listing[:height]]
    if height < 2:
        named = f"{PurePath(source.file).name}:{source.line} "
        return [spread([("▶ ", "accent"), (printable(source.text), "strong")], [(named, "dim")], width)]
    return _around(source, width, height)


def _first(place: int, height: int) -> int:
    """Give the line to begin with: the same for lines near each other, so that a key repaints little."""
    if height < ROOMY:
        return place - (height - 1) // 2
    half = height // 2
    return place // half * half - half // 2


def _around(source: Source, width: int, height: int) -> list[Line]:
    """Read the file again; where it no longer holds that line, that line alone is shown."""
    code = linecache.getlines(source.file)
    if not 0 < source.line <= len(code) or code[source.line - 1].strip() != source.text:
        return [[("▶ ", "accent"), (f"{source.line}  ", "dim"), (printable(source.text)[: width - 8], "now")]]
    first = max(min(_first(source.line - 1, height), len(code) - height), 0)
    digits = len(str(first + height))
    shown = dedent("".join(code[first : first + height])).splitlines()
    rows: list[Line] = []
    for place, text in enumerate(shown, first + 1):
        here = place == source.line
        line = printable(text.rstrip())[: width - digits - 4]
        rows.append(
            [("▶ " if here else "  ", "accent"), (f"{place:>{digits}}  ", "dim"), (line, "now" if here else "")]
        )
    return rows
