"""A position in a trace: the operation that is shown, the ways to another one, and the header above it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from autograd_tui.core.command import Phase
from autograd_tui.core.trace import Operation, Trace
from autograd_tui.text.frame_summary import unkept_mark
from autograd_tui.text.numbers import count
from autograd_tui.text.prompt.completion import Candidate, candidates
from autograd_tui.text.styled_text import Line, justified, length, one_line


class RowKey(NamedTuple):
    """Identifies a row of the module tree: a run of operations of one module, or one operation.

    A module may run more than once in a phase, so its path alone is not enough.
    """

    path: str  # the module's
    first_index: int  # of its first operation, in the trace
    is_operation: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class TracePosition:
    """A position in a trace that has operations, with the state of the module tree; each method returns a new one."""

    trace: Trace
    index: int = 0
    toggled_keys: frozenset[RowKey] = frozenset()  # rows of the tree that were opened or closed by hand
    cursor: RowKey | None = None  # the row that the arrow keys have selected; None once the position changes
    search: str = ""  # the name that was searched for last

    @property
    def op(self) -> Operation:
        """The operation that is shown."""
        return self.trace.ops[self.index]

    @property
    def at_end(self) -> bool:
        return self.index == len(self.trace.ops) - 1

    def at(self, index: int) -> TracePosition:
        """Go to the operation at `index`, clamped to the trace."""
        return replace(self, index=min(max(index, 0), len(self.trace.ops) - 1), cursor=None)

    def next(self) -> TracePosition:
        """Go to the next operation; stay at the last one."""
        return self.at(self.index + 1)

    def back(self) -> TracePosition:
        """Go to the previous operation; stay at the first one."""
        return self.at(self.index - 1)

    def first(self) -> TracePosition:
        """Go to the first operation."""
        return self.at(0)

    def last(self) -> TracePosition:
        """Go to the last operation."""
        return self.at(len(self.trace.ops) - 1)

    def next_of_module(self) -> TracePosition:
        """Go to the next operation of the same module; stay where there is none."""
        module = self.op.module
        ahead = (op.number for op in self.trace.ops[self.index + 1 :] if op.module == module)
        return self.at(next(ahead, self.index))

    def find(self, name: str) -> TracePosition | None:
        """Go to the next operation whose name, module or filled parameter contains `name`; None where there is none.

        The search ignores case and wraps around at the end. Whole names win over parts of names.
        """
        indices = [*range(self.index + 1, len(self.trace.ops)), *range(self.index + 1)]
        ops, query = self.trace.ops, name.casefold()
        matches = [index for index in indices if any(query in each.casefold() for each in _search_names(ops[index]))]
        exact_matches = [
            index for index in matches if any(query == each.casefold() for each in _search_names(ops[index]))
        ]
        return replace(self.at((exact_matches or matches)[0]), search=name) if matches else None

    def toggled(self, key: RowKey) -> TracePosition:
        """Open a row of the tree, or close it."""
        return replace(self, toggled_keys=self.toggled_keys ^ {key})

    def with_cursor(self, key: RowKey) -> TracePosition:
        """Put the cursor of the tree on a row."""
        return replace(self, cursor=key)


def _search_names(op: Operation) -> tuple[str, ...]:
    """Return the names that a search compares: the operation's, its module's, and the parameter's that it fills."""
    return tuple(name for name in (op.name, op.module, op.accumulates_into or "") if name)


def search_candidates(trace: Trace, text: str) -> list[Candidate]:
    """Return the modules, operations and parameters whose names contain `text`, each with its first index."""
    first_indices: dict[str, int] = {}
    for op in trace.ops:
        for name in (*_enclosing_modules(op.module), *_search_names(op)):
            first_indices.setdefault(name, op.number)
    query = text.casefold()
    total = len(trace.ops)
    matches = {one_line(name): index for name, index in first_indices.items() if query in name.casefold()}
    return candidates({name: f"operation {count(index + 1)} of {count(total)}" for name, index in matches.items()}, "/")


def _enclosing_modules(module: str) -> list[str]:
    """Return the paths of the modules around one, outermost first: layer1 and layer1.0 for layer1.0.bn1."""
    parts = module.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


SHORTEST_ARROW, SHORT_ARROW, LONG_ARROW = "▶", "─▶ ", "──────▶ "
MIN_LONG_ARROW_WIDTH = 100  # columns


def header_lines(position: TracePosition, width: int, *, unkept: str = "") -> list[Line]:
    """Return two rows: the phases with the traced one highlighted, then the operation; `unkept` is a mark in front."""
    trace = position.trace
    right: Line = [(f"iteration {trace.iteration}   ", ""), (f"inside frame {trace.index} ", "accent")]
    long = LONG_ARROW if width >= MIN_LONG_ARROW_WIDTH else SHORT_ARROW
    lines = [[*unkept_mark(unkept), *_phase_line(trace, arrow)] for arrow in (long, SHORTEST_ARROW)]
    left = next((line for line in lines if length(line) <= width), lines[-1])
    return [justified(left, right, width), _operation_line(position, width)]


def _phase_line(trace: Trace, arrow: str) -> Line:
    line: Line = [(" ", "")]
    for phase in Phase:
        is_traced = phase is trace.phase
        line.append((f"▌{phase.value.upper()}▐" if is_traced else f" {phase.value} ", "now" if is_traced else "dim"))
        if phase is not Phase.ZERO_GRAD:
            line.append((arrow, "dim"))
    return line


def _operation_line(position: TracePosition, width: int) -> Line:
    op, total = position.op, len(position.trace.ops)
    unit = "operation" if position.trace.phase in (Phase.FORWARD, Phase.BACKWARD) else "parameter"
    line: Line = [(f" {unit} {count(op.number + 1)} of {count(total)}  ", "accent"), (one_line(op.name), "strong")]
    for words in (_origin_words(position.trace, op), f"  in {op.module}" if op.module else ""):
        if length(line) + len(words) < width:
            line.append((one_line(words) and f"  {one_line(words)}", ""))
    return line


def _origin_words(trace: Trace, op: Operation) -> str:
    """Return which parameter a node fills, or which operation of the forward made it."""
    if op.accumulates_into is not None:
        return (
            f"  fills {op.accumulates_into}.grad" if op.grad_before is None else f"  adds to {op.accumulates_into}.grad"
        )
    if op.made_by is None or trace.forward is None or op.made_by >= len(trace.forward.ops):
        return ""
    return f"  made by {trace.forward.ops[op.made_by].name} {op.made_by + 1} of the forward"
