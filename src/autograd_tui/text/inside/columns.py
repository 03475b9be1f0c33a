"""Tensors below each other: their numbers aligned where they are few, else each as it fits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from autograd_tui.engine.values.trace import Value
from autograd_tui.text.inside.value_words import dtype_words, value_words
from autograd_tui.text.numbers import number, terse

MOST_ALIGNED = 4  # numbers of one tensor
GAP = 2  # blanks between two of them


@dataclass(frozen=True, slots=True)
class Column:
    """How the tensors of a column are written: a cell for each number, no cells where that takes too much room.

    Where a large tensor's shape and norm do not both fit, its shape is written, or of `norms` its norm.
    """

    room: int
    cell: int
    norms: bool = False

    @classmethod
    def of(cls, values: Iterable[Value | None], room: int, *, norms: bool = False) -> Column:
        """Choose for all that the column is ever to hold, so that it stays as it is."""
        numbers = [_few(value) for value in values]
        cell = max((len(number(each)) for few in numbers for each in few), default=0)
        width = max(map(len, numbers), default=0) * (cell + GAP) - GAP
        return cls(room, cell if width <= room else 0, norms)

    def write(self, value: Value | None) -> str:
        """Write one tensor; "" for None."""
        if value is None:
            return ""
        few = _few(value)
        if few and self.cell:
            aligned = (" " * GAP).join(f"{number(each):>{self.cell}}" for each in few)
            dtype = dtype_words(value)
            return aligned + (dtype if len(aligned + dtype) <= self.room else "")
        words, norm = value_words(value, self.room), value.stats.norm
        if self.norms and norm is not None and value.stats.values is None and "norm" not in words:
            alone, dtype = f"norm {terse(norm)}", dtype_words(value)
            words = alone + dtype if len(alone + dtype) <= self.room or dtype not in words else words
        return words[: self.room]


def _few(value: Value | None) -> tuple[float, ...]:
    """Give the numbers of a tensor that has few."""
    numbers = value.stats.values if value is not None else None
    return numbers if numbers is not None and len(numbers) <= MOST_ALIGNED else ()
