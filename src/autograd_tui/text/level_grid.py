"""A grid of values as levels, for maps that show two levels a cell in colours, or one as a character."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from autograd_tui.text.styled_text import Span

LEVELS = 16  # of the colours
CHARACTERS = " .:-=+*#%"  # of the levels where there are no colours, the lowest first


def resampled(grid: Any, rows: int, columns: int) -> Any:
    """Return the values of a grid at the centres of rows x columns cells laid over it, bilinear between its points.

    Those near NaN and infinities are none.
    """
    import numpy as np  # where it is needed: the screen shows itself before there is anything to lay out

    row_at, column_at = (
        (np.arange(count) + 0.5) / count * (size - 1) for count, size in zip((rows, columns), grid.shape, strict=True)
    )
    top, left = (np.minimum(at.astype(int), size - 2) for at, size in zip((row_at, column_at), grid.shape, strict=True))
    down, across = (row_at - top)[:, None], (column_at - left)[None, :]
    with np.errstate(all="ignore"):
        above = grid[np.ix_(top, left)] * (1 - across) + grid[np.ix_(top, left + 1)] * across
        below = grid[np.ix_(top + 1, left)] * (1 - across) + grid[np.ix_(top + 1, left + 1)] * across
        return above * (1 - down) + below * down


def levels_of(shares: Any, count: int) -> list[list[int]]:
    """Return the level from 0 to count - 1 of each share from 0 to 1; -1 for NaN and infinities."""
    import numpy as np

    whole = np.clip(np.nan_to_num(shares), 0, 1) * count
    levels = np.where(np.isfinite(shares), np.minimum(whole, count - 1), -1).astype(int)
    return [list(map(int, row)) for row in levels]


def joined(cells: Iterable[Span]) -> list[Span]:
    """Join neighbours of the same style."""
    spans: list[Span] = []
    for text, style in cells:
        if spans and spans[-1][1] == style:
            spans[-1] = spans[-1][0] + text, style
        else:
            spans.append((text, style))
    return spans
