"""The operations of a phase as a tree of modules, in the order in which they ran."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from autograd_tui.core.command import Phase
from autograd_tui.core.trace import Operation, Trace
from autograd_tui.text.numbers import count
from autograd_tui.text.styled_text import one_line
from autograd_tui.text.trace.walk import Part, Walk


@dataclass(frozen=True, slots=True, eq=False)
class ModuleRow:
    """Operations that follow each other: of one module, with what it is made of inside, or one operation alone."""

    part: Part
    ops: range
    depth: int
    inside: tuple[ModuleRow, ...] = ()


@dataclass(eq=False)
class ModuleTree:
    """The tree of one trace, and for any number of rows how deep it can stand open."""

    trace: Trace
    top: tuple[ModuleRow, ...] = field(init=False)
    _depths: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.top = _branches(self.trace, range(len(self.trace.ops)), depth=0)

    def rows(self, walk: Walk, room: int) -> list[ModuleRow]:
        """Give the rows from first to last: open as deep as always fits, what was opened, and the way to where we are.

        There may be more of them than `room`.
        """
        if room not in self._depths:
            deepest = max((branch.depth for branch in all_of(self.top)), default=0)
            depths = range(deepest, 0, -1)
            self._depths[room] = next((each for each in depths if _most_rows(self.top, each)[0] <= room), 0)
        return list(_open(self.top, walk, self._depths[room]))


def module_of(trace: Trace, op: Operation) -> str:
    """Give the module that an operation belongs to; of a step or zero_grad, the one whose parameter it is."""
    if trace.phase in (Phase.STEP, Phase.ZERO_GRAD):
        return op.name.rpartition(".")[0]
    return op.module


def _branches(trace: Trace, ops: range, depth: int) -> tuple[ModuleRow, ...]:
    """Group operations by the next part of their path; those of one operation are that operation."""
    found: list[ModuleRow] = []
    for path, group in groupby(ops, lambda place: _path(module_of(trace, trace.ops[place]), depth)):
        places = list(group)
        whole = range(places[0], places[-1] + 1)
        if path is None or len(whole) == 1:
            alone = (
                ModuleRow(Part(module_of(trace, trace.ops[place]), place, True), range(place, place + 1), depth)
                for place in whole
            )
            found += alone
        else:
            found.append(ModuleRow(Part(path, whole.start), whole, depth, _branches(trace, whole, depth + 1)))
    return tuple(found)


def _path(module: str, depth: int) -> str | None:
    """Cut a path behind its first parts; None where it has no more than `depth`."""
    parts = module.split(".") if module else []
    return ".".join(parts[: depth + 1]) if len(parts) > depth else None


def all_of(branches: Sequence[ModuleRow]) -> Iterator[ModuleRow]:
    """Give branches with all that is inside them."""
    for branch in branches:
        yield branch
        yield from all_of(branch.inside)


def _open(branches: Sequence[ModuleRow], walk: Walk, depth: int) -> Iterator[ModuleRow]:
    for branch in branches:
        yield branch
        if is_open(branch, walk, depth):
            yield from _open(branch.inside, walk, depth)


def is_open(branch: ModuleRow, walk: Walk, depth: int) -> bool:
    """Tell whether the rows inside a branch are shown: those around the operation at hand are in any case."""
    opened = (branch.depth < depth) != (branch.part in walk.unfolded)
    return bool(branch.inside) and (opened or walk.place in branch.ops)


def _most_rows(branches: Sequence[ModuleRow], depth: int) -> tuple[int, int]:
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


FOLDED, OPEN = "▸ ", "▾ "


class TreeLabels:
    """Indents a row as deep as it stands, and marks a module that has rows inside."""

    def __init__(self, trace: Trace, *, marked: bool) -> None:
        self._trace, self._marked = trace, marked
        self._parameters = trace.phase in (Phase.STEP, Phase.ZERO_GRAD)

    def label(self, row: ModuleRow, *, is_open: bool = False) -> str:
        """Give what stands in a row before its numbers."""
        indent = "  " * row.depth
        if row.part.alone:
            return f"{indent}{'  ' * self._marked}{one_line(self._called(row))}"
        unit = "parameters" if self._parameters else "operations"
        mark = OPEN if is_open else FOLDED
        return f"{indent}{mark}{one_line(row.part.path)}  {count(len(row.ops))} {unit}"

    def _called(self, row: ModuleRow) -> str:
        """Name an operation, behind the rest of its module's path where that has no row of its own."""
        op, path = self._trace.ops[row.part.first], row.part.path
        rest = ".".join(path.split(".")[row.depth :])
        if self._parameters:
            name = op.name.rpartition(".")[2]
            return f"{rest}.{name}" if rest else name
        filled = op.accumulates_into
        name = op.name if filled is None else f"→ {filled.removeprefix(f'{path}.' if path else '')}.grad"
        return f"{rest} {name}" if rest else name
