"""The walk through a trace: the operation at hand, and the keys that lead to another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from autograd_tui.engine.values.trace import Op, Trace


class Part(NamedTuple):
    """Operations of one module that follow each other, by its path and the first of them; with no path, one alone."""

    path: str
    first: int
    alone: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """A place in a trace, which is never empty, and what is seen around it; each method gives another walk."""

    trace: Trace
    place: int = 0
    unfolded: frozenset[Part] = frozenset()  # parts of the tree that were opened
    cursor: Part | None = None  # the row of the tree that arrows have chosen; none once the walk goes on
    search: str = ""  # what was looked for last

    @property
    def op(self) -> Op:
        """The operation at hand."""
        return self.trace.ops[self.place]

    @property
    def at_end(self) -> bool:
        return self.place == len(self.trace.ops) - 1

    def at(self, place: int) -> Walk:
        """Go to a place, not past the ends."""
        return replace(self, place=min(max(place, 0), len(self.trace.ops) - 1), cursor=None)

    def next(self) -> Walk:
        """Go to the operation after."""
        return self.at(self.place + 1)

    def back(self) -> Walk:
        """Go to the operation before."""
        return self.at(self.place - 1)

    def first(self) -> Walk:
        """Go to the first operation."""
        return self.at(0)

    def last(self) -> Walk:
        """Go to the last operation."""
        return self.at(len(self.trace.ops) - 1)

    def next_of_module(self) -> Walk:
        """Go to the next operation of the module at hand; stay where there is none."""
        module = self.op.module
        ahead = (op.number for op in self.trace.ops[self.place + 1 :] if op.module == module)
        return self.at(next(ahead, self.place))

    def to(self, name: str) -> Walk | None:
        """Run to the next operation with `name` in its name, its module or what it fills, from the first on again.

        An operation or module of that very name comes before those that only hold it; None where there is none.
        """
        places = [*range(self.place + 1, len(self.trace.ops)), *range(self.place + 1)]
        ops, wanted = self.trace.ops, name.casefold()
        found = [place for place in places if any(wanted in each.casefold() for each in names_of(ops[place]))]
        exact = [place for place in found if any(wanted == each.casefold() for each in names_of(ops[place]))]
        return replace(self.at((exact or found)[0]), search=name) if found else None

    def toggled(self, part: Part) -> Walk:
        """Open a part of the tree, or close it."""
        return replace(self, unfolded=self.unfolded ^ {part})

    def chosen(self, part: Part) -> Walk:
        """Put the cursor of the tree on a part."""
        return replace(self, cursor=part)


def names_of(op: Op) -> tuple[str, ...]:
    """Give all that an operation is found by: its name, its module, and what it fills."""
    return tuple(name for name in (op.name, op.module, op.accumulates_into or "") if name)
