"""Tensors below each other: their numbers aligned where they are few, else each as it fits."""

from __future__ import annotations

from collections.abc import Sequence

from autograd_tui.engine.trace import Value
from autograd_tui.text.inside.value_words import terse, value_words
from autograd_tui.text.numbers import number

MOST_ALIGNED = 4  # numbers of one tensor


def column(values: Sequence[Value | None], room: int) -> list[str]:
    """Write tensors into `room` characters, all in the same way; "" for None."""
    few = [value.stats.values for value in values if value is not None and value.stats.values is not None]
    longest = max((len(numbers) for numbers in few if len(numbers) <= MOST_ALIGNED), default=0)
    for write in (number, terse):
        cell = max((len(write(each)) for numbers in few if len(numbers) <= MOST_ALIGNED for each in numbers), default=0)
        if longest and longest * (cell + 2) - 2 <= room:
            return [_cells(value, cell, room) if write is number else _words(value, room) for value in values]
    return [_words(value, room) for value in values]


def _cells(value: Value | None, cell: int, room: int) -> str:
    numbers = value.stats.values if value is not None else None
    if numbers is None or len(numbers) > MOST_ALIGNED:
        return _words(value, room)
    return "  ".join(f"{number(each):>{cell}}" for each in numbers)


def _words(value: Value | None, room: int) -> str:
    return "" if value is None else value_words(value, room)[:room]
