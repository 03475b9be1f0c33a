"""The walk through a trace: the operation shown, where it is, and the keys that lead to another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from autograd_tui.core.command import Phase
from autograd_tui.core.trace import Operation, Trace
from autograd_tui.text.frame_summary import marked
from autograd_tui.text.numbers import count
from autograd_tui.text.prompt.words import Candidate, listed
from autograd_tui.text.styled_text import Line, length, one_line, spread


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
    def op(self) -> Operation:
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


def names_of(op: Operation) -> tuple[str, ...]:
    """Give all that an operation is found by: its name, its module, and what it fills."""
    return tuple(name for name in (op.name, op.module, op.accumulates_into or "") if name)


def names_to_find(trace: Trace, part: str) -> list[Candidate]:
    """Give the modules, operations and parameters with a part in their names, each with where it first comes."""
    first: dict[str, int] = {}
    for op in trace.ops:
        for path in (*_around(op.module), *names_of(op)):
            first.setdefault(path, op.number)
    wanted = part.casefold()
    places = len(trace.ops)
    fitting = {one_line(name): place for name, place in first.items() if wanted in name.casefold()}
    return listed({name: f"operation {count(place + 1)} of {count(places)}" for name, place in fitting.items()}, "/")


def _around(module: str) -> list[str]:
    """Give the modules around one: layer1, layer1.0 of layer1.0.bn1."""
    parts = module.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


SHORT, LONG = "─▶ ", "──────▶ "
ROOMY = 100  # columns, from which on the arrows are long


def where_lines(walk: Walk, width: int, *, unkept: str = "") -> list[Line]:
    """Write the phases, that of the trace lit, over the operation at hand; and in front that the run is `unkept`."""
    trace = walk.trace
    right: Line = [(f"iteration {trace.iteration}   ", ""), (f"inside frame {trace.index} ", "accent")]
    left = [*marked(unkept), *_phases(trace, LONG if width >= ROOMY else SHORT)]
    return [spread(left, right, width), _operation(walk, width)]


def _phases(trace: Trace, arrow: str) -> Line:
    line: Line = [(" ", "")]
    for phase in Phase:
        here = phase is trace.phase
        line.append((f"▌{phase.value.upper()}▐" if here else f" {phase.value} ", "now" if here else "dim"))
        if phase is not Phase.ZERO_GRAD:
            line.append((arrow, "dim"))
    return line


def _operation(walk: Walk, width: int) -> Line:
    op, places = walk.op, len(walk.trace.ops)
    unit = "operation" if walk.trace.phase in (Phase.FORWARD, Phase.BACKWARD) else "parameter"
    line: Line = [(f" {unit} {count(op.number + 1)} of {count(places)}  ", "accent"), (one_line(op.name), "strong")]
    for told in (_made_by(walk.trace, op), f"  in {op.module}" if op.module else ""):
        if length(line) + len(told) < width:
            line.append((one_line(told) and f"  {one_line(told)}", ""))
    return line


def _made_by(trace: Trace, op: Operation) -> str:
    """Say what created a node, or what it fills."""
    if op.accumulates_into is not None:
        return (
            f"  fills {op.accumulates_into}.grad" if op.grad_before is None else f"  adds to {op.accumulates_into}.grad"
        )
    if op.made_by is None or trace.forward is None or op.made_by >= len(trace.forward.ops):
        return ""
    return f"  made by {trace.forward.ops[op.made_by].name} {op.made_by + 1} of the forward"
