"""A row of things that are made when the first of them is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

Thing = TypeVar("Thing")


class Later(Sequence[Thing], Generic[Thing]):
    """Holds what things are made of, and once one is asked for, the things.

    `make` gives the same each time: two threads may ask at once.
    """

    def __init__(self, count: int, make: Callable[[], Iterable[Thing]]) -> None:
        self._count = count
        self._make: Callable[[], Iterable[Thing]] | None = make
        self._made: tuple[Thing, ...] = ()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        make = self._make
        if make is not None:
            self._made = tuple(make())
            self._make = None
        return self._made[index]
