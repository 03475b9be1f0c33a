"""Keys and what they do, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from autograd_tui.text.line import Line, wrapped


def key_lines(rows: Sequence[tuple[str, str]], width: int) -> list[Line]:
    """Write each key before what it does, which goes on under itself where the row is full."""
    key_width = max((len(keys) for keys, _ in rows), default=0) + 2
    lines: list[Line] = []
    for keys, does in rows:
        first, *rest = wrapped(does, width - key_width) or [[]]
        lines.append([(f"{keys:<{key_width}}", "strong"), *first])
        lines += [[(" " * key_width, ""), *line] for line in rest]
    return lines
