"""Tensors met while a phase is recorded: each measured once for every state that it was in."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from autograd_tui.engine.inside.moments import Moments
from autograd_tui.engine.values.stats_table import StatsTable, TensorStats
from autograd_tui.engine.values.trace import Value


@dataclass(slots=True)
class Seen:
    """A tensor at one moment, until its numbers have been read."""

    row: int  # its number in Moments, or its place in the table where it was `known` already
    name: str = ""
    maker: int | None = None
    version: int = 0
    known: StatsTable | None = None
    _stats: TensorStats | None = None  # with its name

    def value(self, moments: Moments, role: str = "") -> Value:
        """Give it as a plain value."""
        table = moments.table if self.known is None else self.known
        if self._stats is None:
            stats: TensorStats = table[self.row]
            self._stats = stats if stats.name == self.name else replace(stats, name=self.name)
        return Value(self._stats, role, self.maker, table.first(self.row), self.version)


class Sight:
    """Meets tensors, and knows them again while they live and nothing has changed them."""

    def __init__(self, moments: Moments) -> None:
        self.moments = moments
        self._seen: dict[int, tuple[weakref.ref[Tensor], int, Seen]] = {}  # by the tensor's id
        self._named: dict[int, tuple[Tensor, str]] = {}

    def name(self, tensors: Mapping[str, Tensor], known: StatsTable | None = None) -> None:
        """Call tensors by names from now on; `known`: numbers about them as they are now."""
        places = {} if known is None else {name: place for place, name in enumerate(known.layout.names)}
        for name, tensor in tensors.items():
            if id(tensor) in self._named:
                continue
            self._named[id(tensor)] = tensor, name
            if id(tensor) in self._seen and self._seen[id(tensor)][0]() is tensor:
                self._seen[id(tensor)][2].name = name
            elif name in places:
                self._remember(tensor, Seen(places[name], name, None, version_of(tensor), known))

    def meet(self, tensor: Tensor, *, maker: int | None = None) -> Seen:
        """Measure a tensor, where it was not met in this state before; `maker`: the operation that has just made it."""
        known = self._seen.get(id(tensor))
        version = version_of(tensor)
        if known is not None and known[0]() is tensor:
            if known[1] == version and maker is None:
                return known[2]
            maker = known[2].maker if maker is None else maker
        seen = Seen(self.moments.see(tensor), self._name_of(tensor), maker, version)
        self._remember(tensor, seen)
        return seen

    def renew(self, tensor: Tensor) -> Seen:
        """Measure a tensor again that was changed without its changes being counted."""
        known = self._seen.get(id(tensor))
        maker = known[2].maker if known is not None and known[0]() is tensor else None
        seen = Seen(self.moments.see(tensor), self._name_of(tensor), maker, version_of(tensor))
        self._remember(tensor, seen)
        return seen

    def _remember(self, tensor: Tensor, seen: Seen) -> None:
        self._seen[id(tensor)] = weakref.ref(tensor), seen.version, seen

    def _name_of(self, tensor: Tensor) -> str:
        named = self._named.get(id(tensor))
        return named[1] if named is not None and named[0] is tensor else ""


def version_of(tensor: Tensor) -> int:
    """Count the changes in place; 0 for what does not count them."""
    try:
        return tensor._version
    except RuntimeError:  # an inference tensor
        return 0
