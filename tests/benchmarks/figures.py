"""What a benchmark has measured: a figure beside its goal, as a row of a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

WIDTHS = (58, 11, 26)  # of what is measured, the goal, and the figure with its spread


@dataclass(frozen=True, slots=True)
class Figure:
    """Measurements of one thing, of which the median counts, or another quantile; and the goal of it, if any."""

    name: str
    values: Sequence[float]
    unit: str = ""  # "" for a ratio
    at_most: float | None = None
    at_least: float | None = None
    quantile: float = 0.5

    @property
    def value(self) -> float:
        """The measurement that counts."""
        return self.at_quantile(self.quantile)

    def at_quantile(self, share: float) -> float:
        """Return the measurement below which such a share of them lies, interpolated between two."""
        ordered = sorted(self.values)
        position = share * (len(ordered) - 1)
        below = int(position)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (ordered[above] - ordered[below]) * (position - below)

    @property
    def miss(self) -> float:
        """By which share of the goal it is missed; 0 where it is met, or there is none."""
        if self.at_most is not None:
            return max(self.value / self.at_most - 1, 0.0)
        return 0.0 if self.at_least is None else max(1 - self.value / self.at_least, 0.0)

    @property
    def verdict(self) -> str:
        """Return whether the goal is met; nothing where there is none."""
        if self.at_most is None and self.at_least is None:
            return ""
        return f"missed by {self.miss:.1%}" if self.miss else "met"

    @property
    def goal(self) -> str:
        """Return the goal in words."""
        if self.at_most is not None:
            return f"<= {self._with_unit(self.at_most)}"
        return "" if self.at_least is None else f">= {self._with_unit(self.at_least)}"

    def row(self) -> str:
        """Return what is measured, the goal, the figure with the middle half of its measurements, and the verdict."""
        figure = self._with_unit(self.value)
        if len(self.values) > 1:
            figure += f"  ({_digits(self.at_quantile(0.25))} to {_digits(self.at_quantile(0.75))})"
        cells = (self.name, self.goal, figure)
        padded = "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True))
        return f"{padded}  {self.verdict}".rstrip()

    def _with_unit(self, value: float) -> str:
        return f"{_digits(value)} {self.unit}".rstrip()


def _digits(value: float) -> str:
    """Write a number with three digits behind the point, fewer where it is large."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def machine_load() -> str:
    """Return a sentence on how busy the machine is: on a busy one the figures say little."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    state = "busy: these figures say little" if load > cores / 2 else "quiet"
    return f"{cores} cores, load {load:.2f} over the last minute: the machine is {state}."
