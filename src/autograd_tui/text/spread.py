"""How the values of gradients are spread, from the least to the greatest, in a few characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autograd_tui.engine.stats_table import SAMPLE, WIDTH, Grads, TensorStats

CELLS = 8
LEVELS = " ▁▂▃▄▅▆▇█"


def sparkline(counts: Sequence[float]) -> str:
    """Draw a column for each count, blank for none at all."""
    most = max(counts, default=0.0)
    return "".join(LEVELS[math.ceil(count / most * 8) if most else 0] for count in counts)


class Spreads:
    """Sparklines of one frame's gradients, each worked out once."""

    def __init__(self, grads: Grads) -> None:
        self.grads = grads
        self._rows = [0]  # of each gradient in the table of those that there are
        for backwards in grads.backwards:
            self._rows.append(self._rows[-1] + bool(backwards))
        self._known: dict[Sequence[int], str] = {}

    def of(self, places: Sequence[int]) -> str:
        """Draw the gradients at some places together, with ~ where that is an estimate."""
        if places not in self._known:
            held = [self._rows[place] for place in places if self.grads.backwards[place]]
            self._known[places] = self._draw([row for row in held if self.grads.table.layout.measurable[row]])
        return self._known[places]

    def _draw(self, rows: Sequence[int]) -> str:
        numbers = self.grads.table.numbers
        ends = [numbers[row * WIDTH + end] for row in rows for end in (1, 2)]
        if not all(map(math.isfinite, ends)):
            return "not finite"
        span = max(ends) - min(ends) if ends else 0.0
        if not 0 < span < math.inf:
            return ""
        counts = [0.0] * CELLS
        binned = 0
        for row in rows:
            stats = self.grads.table[row]
            binned += stats.histogram is not None
            _add(counts, stats, low=min(ends), span=span)
        estimated = binned > 1 or any(math.prod(self.grads.table.layout.shapes[row]) > SAMPLE for row in rows)
        return "~" * estimated + sparkline(counts)


def _add(counts: list[float], row: TensorStats, *, low: float, span: float) -> None:
    """Add a tensor's values to cells of a common range; those of one bin count as evenly spread in it."""
    for value in row.values or ():
        counts[min(int((value - low) / span * CELLS), CELLS - 1)] += 1
    if row.histogram is None or row.min is None or row.max is None:
        return
    weight = row.size / sum(row.histogram)
    step = (row.max - row.min) / len(row.histogram) / span * CELLS
    start = (row.min - low) / span * CELLS
    for place, count in enumerate(row.histogram):
        if count:
            _pour(counts, start + place * step, start + (place + 1) * step, amount=count * weight)


def _pour(counts: list[float], start: float, end: float, *, amount: float) -> None:
    """Share an amount among the cells between two points, in proportion."""
    first, last = min(int(start), CELLS - 1), min(int(end), CELLS - 1)
    for cell in range(first, last + 1):
        inside = min(end, cell + 1) - max(start, cell) if last > first else 1.0
        counts[cell] += amount * max(inside, 0.0) / (end - start if last > first else 1.0)
