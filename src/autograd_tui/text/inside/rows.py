"""Arithmetic broken into rows without tearing a product apart."""

from __future__ import annotations

import re

from autograd_tui.text.line import Line, printable, wrapped

_TIED = re.compile(r" ([×@^]) ")


def rows(text: str, width: int, *, style: str = "", indent: str = "") -> list[Line]:
    """Break a sentence or a calculation into rows, further ones set in by two more."""
    tied = _TIED.sub("\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", printable(text))
    broken = wrapped(indent + tied, width, style=style, indent=indent + "  ")
    return [[(part.replace("\N{NO-BREAK SPACE}", " "), style) for part, style in line] for line in broken]


def headed(head: str, text: str, width: int, *, style: str = "strong") -> list[Line]:
    """Write a head and behind it a text, below it where they do not fit in one row."""
    head, text = printable(head), printable(text)
    if len(head) + 2 + len(text) <= width:
        return [[(head, style), (f"  {text}", "")]]
    return [*rows(head, width, style=style), *rows(text, width, indent="  ")]
