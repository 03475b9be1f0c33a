"""The operations of a phase as a tree of modules, in the order in which they ran, and how much of it is open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from autograd_tui.engine.values.command import Phase
from autograd_tui.engine.values.trace import Op, Trace
from autograd_tui.text.inside.walk import Part, Walk


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """Operations that follow each other: of one module, with what it is made of inside, or one operation alone."""

    part: Part
    ops: range
    depth: int
    inside: tuple[Branch, ...] = ()


@dataclass(eq=False)
class Tree:
    """The tree of one trace, and for any number of rows how deep it can stand open."""

    trace: Trace
    top: tuple[Branch, ...] = field(init=False)
    _depths: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.top = _branches(self.trace, range(len(self.trace.ops)), depth=0)

    def rows(self, walk: Walk, room: int) -> list[Branch]:
        """Give the rows from first to last: open as deep as always fits, what was opened, and the way to where we are.

        There may be more of them than `room`.
        """
        if room not in self._depths:
            deepest = max((branch.depth for branch in all_of(self.top)), default=0)
            depths = range(deepest, 0, -1)
            self._depths[room] = next((each for each in depths if _most_rows(self.top, each)[0] <= room), 0)
        return list(_open(self.top, walk, self._depths[room]))


def module_of(trace: Trace, op: Op) -> str:
    """Give the module that an operation belongs to; of a step or zero_grad, the one whose parameter it is."""
    if trace.phase in (Phase.STEP, Phase.ZERO_GRAD):
        return op.name.rpartition(".")[0]
    return op.module


def _branches(trace: Trace, ops: range, depth: int) -> tuple[Branch, ...]:
    """Group operations by the next part of their path; those of one operation are that operation."""
    found: list[Branch] = []
    for path, group in groupby(ops, lambda place: _path(module_of(trace, trace.ops[place]), depth)):
        places = list(group)
        whole = range(places[0], places[-1] + 1)
        if path is None or len(whole) == 1:
            alone = (
                Branch(Part(module_of(trace, trace.ops[place]), place, True), range(place, place + 1), depth)
                for place in whole
            )
            found += alone
        else:
            found.append(Branch(Part(path, whole.start), whole, depth, _branches(trace, whole, depth + 1)))
    return tuple(found)


def _path(module: str, depth: int) -> str | None:
    """Cut a path behind its first parts; None where it has no more than `depth`."""
    parts = module.split(".") if module else []
    return ".".join(parts[: depth + 1]) if len(parts) > depth else None


def all_of(branches: Sequence[Branch]) -> Iterator[Branch]:
    """Give branches with all that is inside them."""
    for branch in branches:
        yield branch
        yield from all_of(branch.inside)


def _open(branches: Sequence[Branch], walk: Walk, depth: int) -> Iterator[Branch]:
    for branch in branches:
        yield branch
        if is_open(branch, walk, depth):
            yield from _open(branch.inside, walk, depth)


def is_open(branch: Branch, walk: Walk, depth: int) -> bool:
    """Tell whether the rows inside a branch are shown: those around the operation at hand are in any case."""
    opened = (branch.depth < depth) != (branch.part in walk.unfolded)
    return bool(branch.inside) and (opened or walk.place in branch.ops)


def _most_rows(branches: Sequence[Branch], depth: int) -> tuple[int, int]:
    """Count the rows that are shown wherever the walk is, and those that the way to it adds at most."""
    rows, added = len(branches), 0
    for branch in branches:
        inside, more = _most_rows(branch.inside, depth)
        if branch.depth < depth:
            rows += inside - more
            added = max(added, more)
        else:
            added = max(added, inside)
    return rows + added, added
