"""How the values of gradients are spread, and how large they were one after the other, in a few characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autograd_tui.core.tensor_stats import HISTOGRAM_BINS, MAX_LISTED_VALUES, ROW_WIDTH, SAMPLE_SIZE, Grads

CELLS = 8
LEVELS = " ▁▂▃▄▅▆▇█"
TREND_CELLS = 8
TREND_VALUES = 30  # that a trend is drawn of, the newest ones
MIN_TREND_VALUES = 4  # below which it would be noise


def sparkline(counts: Sequence[float]) -> str:
    """Draw a column for each count, blank for none at all."""
    most = max(counts, default=0.0)
    return "".join(LEVELS[math.ceil(count / most * 8) if most else 0] for count in counts)


def columns_up(counts: Sequence[float], width: int, height: int) -> list[str]:
    """Draw a histogram in `height` rows, each bin as many columns wide as all of them have room for in `width`."""
    most = max(counts, default=0.0)
    eighths = [math.ceil(count / most * height * 8) if most else 0 for count in counts]
    each = max(width // max(len(counts), 1), 1)
    rows = []
    for row in reversed(range(height)):
        rows.append("".join(LEVELS[min(max(eighth - row * 8, 0), 8)] * each for eighth in eighths))
    return rows


def trend(values: Sequence[float], cells: int = TREND_CELLS) -> str:
    """Draw how large values have been one after the other, on a log scale, the last one at the end.

    The scale holds the largest and the smallest, but no less than a factor of two, so that what hardly changes is
    level. Zero is at the bottom, what is not finite is "!"; nothing is drawn of fewer than four values.
    """
    if len(values) < MIN_TREND_VALUES:
        return ""
    logs = [math.log10(abs(value)) for value in values if value and math.isfinite(value)]
    middle = (max(logs) + min(logs)) / 2 if logs else 0.0
    half = max(max(logs) - middle, math.log10(2) / 2) if logs else 1.0
    cells = min(cells, len(values))
    drawn = []
    for cell in range(cells):
        value = values[(cell + 1) * len(values) // cells - 1]
        share = (math.log10(abs(value)) - middle) / half if value and math.isfinite(value) else -1.0
        drawn.append(LEVELS[4 + round(share * 3)] if math.isfinite(value) else "!")
    return "".join(drawn)


class GradientSparklines:
    """Sparklines of one frame's gradients, each worked out once."""

    def __init__(self, grads: Grads) -> None:
        self.grads = grads
        self._rows = [0]  # of each gradient in the table of those that there are
        for backwards in grads.backwards:
            self._rows.append(self._rows[-1] + bool(backwards))
        self._known: dict[Sequence[int], str] = {}

    def of(self, indices: Sequence[int]) -> str:
        """Draw the gradients at some places together, with ~ where that is an estimate."""
        if indices not in self._known:
            held = [self._rows[index] for index in indices if self.grads.backwards[index]]
            self._known[indices] = self._draw(held) if all(map(self._has_one, held)) else "-"
        return self._known[indices]

    def _has_one(self, row: int) -> bool:
        """Return whether a gradient has a spread: complex numbers have no order, sparse ones no histogram."""
        layout = self.grads.table.layout
        return layout.ordinary(row) or not math.prod(layout.shapes[row])

    def _draw(self, rows: Sequence[int]) -> str:
        numbers = self.grads.table.numbers
        ends = [numbers[row * ROW_WIDTH + end] for row in rows for end in (1, 2)]
        if not all(map(math.isfinite, ends)):
            return "not finite"
        low, high = min(ends, default=0.0), max(ends, default=0.0)
        span = high - low
        if not 0 < span < math.inf:
            return ""
        counts = [0.0] * CELLS
        sizes = [math.prod(self.grads.table.layout.shapes[row]) for row in rows]
        for row, size in zip(rows, sizes, strict=True):
            kept = numbers[row * ROW_WIDTH : (row + 1) * ROW_WIDTH]
            _add(counts, kept, size, low=low, span=span)
        estimated = sum(size > MAX_LISTED_VALUES for size in sizes) > 1 or max(sizes) > SAMPLE_SIZE
        return "~" * estimated + sparkline(counts)


def _add(counts: list[float], row: Sequence[float], size: int, *, low: float, span: float) -> None:
    """Add a tensor's values to cells of a common range; those of one bin count as evenly spread in it."""
    _, least, greatest, _, _, _, *kept, _ = row
    if size <= MAX_LISTED_VALUES:
        for value in kept[:size]:
            counts[min(int((value - low) / span * CELLS), CELLS - 1)] += 1
        return
    weight = size / sum(kept)
    step = (greatest - least) / HISTOGRAM_BINS / span * CELLS
    start = (least - low) / span * CELLS
    for index, count in enumerate(kept):
        if count:
            _spread_over_cells(counts, start + index * step, start + (index + 1) * step, amount=count * weight)


def _spread_over_cells(counts: list[float], start: float, end: float, *, amount: float) -> None:
    """Share an amount among the cells between two points, in proportion."""
    first, last = min(int(start), CELLS - 1), min(int(end), CELLS - 1)
    if first == last:
        counts[first] += amount
        return
    for cell in range(first, last + 1):
        inside = min(end, cell + 1) - max(start, cell)
        counts[cell] += amount * max(inside, 0.0) / (end - start)
