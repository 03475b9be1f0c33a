"""What the terminal can show."""

from __future__ import annotations

import locale
import os
from dataclasses import dataclass

from rich.console import Console

_COLORS = {"standard": 16, "windows": 16, "256": 256, "truecolor": 1 << 24}


@dataclass(frozen=True, slots=True)
class Terminal:
    """One that can show everything, unless said otherwise."""

    colors: int = 1 << 24
    colorless: bool = False  # asked for, by NO_COLOR
    ascii_only: bool = False


def this_terminal() -> Terminal:
    """Ask the environment."""
    return Terminal(
        colors=_COLORS.get(Console(stderr=True).color_system or "", 16),
        colorless=bool(os.environ.get("NO_COLOR")),
        ascii_only=locale.getencoding().lower().replace("-", "") != "utf8",
    )
