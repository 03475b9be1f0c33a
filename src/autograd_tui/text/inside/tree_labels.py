"""How the rows of the tree are called."""

from __future__ import annotations

from autograd_tui.engine.values.command import Phase
from autograd_tui.engine.values.trace import Trace
from autograd_tui.text.inside.tree import Branch
from autograd_tui.text.line import one_line
from autograd_tui.text.numbers import count

FOLDED, OPEN = "▸ ", "▾ "


class TreeLabels:
    """Indents a row as deep as it stands, and marks a module that has rows inside."""

    def __init__(self, trace: Trace, *, marked: bool) -> None:
        self._trace, self._marked = trace, marked
        self._parameters = trace.phase in (Phase.STEP, Phase.ZERO_GRAD)

    def label(self, row: Branch, *, is_open: bool = False) -> str:
        """Give what stands in a row before its numbers."""
        indent = "  " * row.depth
        if row.part.alone:
            return f"{indent}{'  ' * self._marked}{one_line(self._called(row))}"
        unit = "parameters" if self._parameters else "operations"
        mark = OPEN if is_open else FOLDED
        return f"{indent}{mark}{one_line(row.part.path)}  {count(len(row.ops))} {unit}"

    def _called(self, row: Branch) -> str:
        """Name an operation, behind the rest of its module's path where that has no row of its own."""
        op, path = self._trace.ops[row.part.first], row.part.path
        rest = ".".join(path.split(".")[row.depth :])
        if self._parameters:
            name = op.name.rpartition(".")[2]
            return f"{rest}.{name}" if rest else name
        filled = op.accumulates_into
        name = op.name if filled is None else f"→ {filled.removeprefix(f'{path}.' if path else '')}.grad"
        return f"{rest} {name}" if rest else name
