"""Truth and prediction over one input feature."""

from __future__ import annotations

import math

from autograd_tui.core.frame import Frame
from autograd_tui.text.numbers import fitted
from autograd_tui.text.styled_text import Line


def can_scatter(frame: Frame) -> bool:
    """Return whether the batch is points on a plane: one input, one target and, after a forward, a prediction each."""
    predicted = frame.loss_params is not None
    rows = (frame.inputs, frame.targets, frame.prediction) if predicted else (frame.inputs, frame.targets)
    sizes = {len(row.values) if row and row.values else 0 for row in rows}
    return len(sizes) == 1 and sizes != {0}


def scatter_title(frame: Frame, width: int) -> str:
    """Return the longest title over a content of `width` columns: what the marks are, and an old age."""
    old = ", old" * frame.loss_is_old
    titles: tuple[str, ...]
    if frame.loss_params is None:
        titles = (
            "Fit   o truth   no prediction here: forward makes one",
            "Fit   o truth   no prediction here",
            "Fit  o truth",
        )
        return next((title for title in titles if len(title) <= width - 2), "Fit")
    titles = (
        f"Fit   o truth   * prediction{old}   & both   ┊ error",
        f"Fit   o truth   * prediction{old}   & both",
        f"Fit  o truth  * prediction{old}",
        f"Fit  o y  * Q{old}",
    )
    return next((title for title in titles if len(title) <= width - 2), f"Fit{old}")


def scatter_lines(frame: Frame, width: int, height: int) -> list[Line]:
    """Draw o for the truth, * for the prediction, & for both in one row, and the error between them.

    The title says how old the prediction is: see `scatter_title`.
    """
    bare = height < 6  # no room for the axis below
    gutter, columns, rows = 8, width - 8, height if bare else height - 1
    if columns < 6 or rows < 2:
        return []
    xs, ys, qs = (row.values if row else None for row in (frame.inputs, frame.targets, frame.prediction))
    if not (can_scatter(frame) and xs and ys):
        return [[("no prediction here: forward makes one", "dim")]]
    qs = qs or (math.nan,) * len(ys)
    heights = [value for value in (*ys, *qs) if math.isfinite(value)]
    if not heights or not all(map(math.isfinite, xs)):
        return [[("no finite points to draw", "warn")]]
    low, high = min(heights), max(heights)
    left, right = min(xs), max(xs)

    def row(value: float) -> int:
        return round((high - value) / (high - low) * (rows - 1)) if 0 < high - low < math.inf else rows // 2

    def column(x: float) -> int:
        span = columns - 7
        return 3 + (round((x - left) / (right - left) * span) if 0 < right - left < math.inf else span // 2)

    cells: dict[tuple[int, int], tuple[str, str]] = {}

    def mark(cell: tuple[int, int], glyph: str, style: str) -> None:
        both = cells.get(cell, (glyph, ""))[0] not in (glyph, "┊")
        cells[cell] = ("&", "strong") if both else (glyph, style)

    for x, y, q in zip(xs, ys, qs, strict=True):
        at = column(x)
        if math.isfinite(q):
            predicted, truth = row(q), row(y) if math.isfinite(y) else row(q)
            for between in range(min(truth, predicted) + 1, max(truth, predicted)):
                cells.setdefault((between, at), ("┊", "dim"))
            mark((predicted, at), "*", "warn" if frame.loss_is_old else "accent")
        if math.isfinite(y):
            mark((row(y), at), "o", "strong")
    lines: list[Line] = []
    for index in range(rows):
        label = fitted(high, 6) if index == 0 else fitted(low, 6) if index == rows - 1 and high > low else ""
        line: Line = [(f"{label:>6} │"[:gutter], "dim")]
        line += [cells.get((index, at), (" ", "")) for at in range(columns)]
        lines.append(line)
    if bare:
        return lines
    under = f"{fitted(left, 7)} to {fitted(right, 7)}"
    if len(under) + 4 > columns:
        under = ""
    return [*lines, [(" " * 7 + "└──", "dim"), (f"{' ' * bool(under) + under:─>{columns - 2}}", "dim")]]
