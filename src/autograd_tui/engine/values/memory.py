"""Sizes in bytes, in words: what checkpoints may take."""

from __future__ import annotations

import re

from autograd_tui.engine.values.errors import Refused

BUDGET = 1 << 30  # bytes
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?) ?([kmg]i?b|b|)", re.IGNORECASE)


def read_size(text: str) -> int:
    """Read "1GiB", "500MB", "64MiB" or a plain number of bytes; raises Refused."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise Refused(f"--memory must be a size such as 1GiB, 500MB or a number of bytes, not {text}.")
    return int(float(found[1]) * UNITS[found[2].upper()])


def size_in_words(size: int) -> str:
    """Write a size as briefly as it is meant: 1 GiB, 64 MiB, 47 MB."""
    for unit in ("GiB", "MiB"):
        if size and size % UNITS[unit.upper()] == 0:
            return f"{size // UNITS[unit.upper()]} {unit}"
    unit = next((unit for unit in ("GB", "MB", "KB") if size >= UNITS[unit]), "B")
    return f"{size / UNITS[unit]:.3g} {unit.replace('K', 'k')}"
