"""The tree of modules in characters: a row a module or operation, and a bar for its norm."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autograd_tui.engine.command import Phase
from autograd_tui.engine.trace import Op, Value
from autograd_tui.text.frame_line import error_line
from autograd_tui.text.inside.norms import WHAT, Scale, norm_of, norm_over
from autograd_tui.text.inside.tree import Branch, Tree, all_of
from autograd_tui.text.inside.value_words import terse
from autograd_tui.text.inside.walk import Walk
from autograd_tui.text.line import Line, one_line
from autograd_tui.text.numbers import count, number
from autograd_tui.text.table import shortened
from autograd_tui.text.window import more_line, scrolled

NUMBER = 11  # characters of a norm
MOST_BAR, LEAST_BAR = 24, 6
CHANGE = 20  # of "before → after"
MOST_NAME = 44
MARGIN = 3  # rows seen before and after the one that matters


class TreeLines:
    """Draws the tree of one trace."""

    def __init__(self, tree: Tree) -> None:
        self.tree, self._trace = tree, tree.trace
        self._scale = Scale.of(tree.trace)
        self._longest = max(len(self._label(branch)) for branch in all_of(tree.top))  # folded away or not
        self._room = 1
        self._top = 0  # the first row shown last: rows stay where they are as long as they can

    def rows(self, walk: Walk) -> list[Branch]:
        """Give the rows as drawn last, all of them."""
        return self.tree.rows(walk, self._room)

    def moved(self, walk: Walk, by: int) -> Walk:
        """Move the cursor among the rows, from the operation at hand on where there is none."""
        rows = self.rows(walk)
        return walk.chosen(rows[min(max(_marked(rows, walk) + by, 0), len(rows) - 1)].part)

    def opened(self, walk: Walk) -> Walk | None:
        """Open or close the part under the cursor, or run to the operation there; None where there is no cursor."""
        if walk.cursor is None:
            return None
        return walk.at(walk.cursor.first) if walk.cursor.alone else walk.toggled(walk.cursor)

    def lines(self, walk: Walk, width: int, height: int) -> list[Line]:
        """Draw the rows that fit, that of the operation at hand or of the cursor always among them."""
        last: list[Line] = [[(f"! {error_line(self._trace.error)}"[:width], "error")]] if self._trace.error else []
        self._room = room = max(height - 1 - len(last), 1)
        rows = self.rows(walk)
        more: list[Line] = []
        if len(rows) > room:
            room = max(room - 1, 1)
            self._top = top = scrolled(self._top, _around(_marked(rows, walk), room), count=len(rows), room=room)
            rows, more = rows[top : top + room], [more_line(top, top + room, len(rows))]
        name_width = max(min(self._longest, MOST_NAME, width - NUMBER - LEAST_BAR - 3), 8)
        bar_width = min(width - name_width - NUMBER - 4 - CHANGE * self._changes, MOST_BAR)
        changes = width - name_width - NUMBER - bar_width - 4 if self._changes else 0
        lines = [self._row(walk, row, name_width, bar_width, changes) for row in rows]
        return [self._heading(name_width, bar_width, width), *lines, *more, *last]

    @property
    def _changes(self) -> bool:
        return self._trace.phase in (Phase.STEP, Phase.ZERO_GRAD)

    def _heading(self, name_width: int, bar_width: int, width: int) -> Line:
        low, high = (f"1e{power}" for power in (self._scale.low, self._scale.high))
        scale = f"  {low}{'log':^{bar_width - len(low + high)}}{high}" if bar_width >= 14 else "  log"
        change = "  before → after" if self._changes else ""
        heading = f"  {'':<{name_width}}{WHAT[self._trace.phase]:>{NUMBER}}{scale:<{bar_width + 2}}{change}"
        return [(heading[:width].rstrip(), "dim")]

    def _row(self, walk: Walk, row: Branch, name_width: int, bar_width: int, changes: int) -> Line:
        ops = self._trace.ops[row.ops.start : min(row.ops.stop, walk.place + 1)]
        here = row.part.alone and walk.place in row.ops
        chosen = row.part == walk.cursor
        norm = norm_of(self._trace, ops[0]) if ops and row.part.alone else norm_over(self._trace, ops)
        name = f"{shortened(self._label(row), name_width):<{name_width}}"
        style = "now" if here else "accent" if chosen else "" if row.part.alone else "strong"
        line: Line = [("▶ " if here else "→ " if chosen else "  ", "accent")]
        indent = len(name) - len(name.lstrip())
        lit = name[indent:].rstrip()
        line += [(name[:indent], ""), (lit, style if ops or chosen else "dim"), (name[indent + len(lit) :], "")]
        return [
            *line,
            *self._numbers(norm, bar_width, reached=bool(ops), strong=here),
            *self._change(ops, row, changes),
        ]

    def _numbers(self, norm: float | None, bar_width: int, *, reached: bool, strong: bool) -> Line:
        if not reached:
            return [(f"{'·':>{NUMBER}}", "dim")]
        if norm is None:
            return [(f"{'-':>{NUMBER}}{'':{bar_width + 2}}", "dim")]
        wild = not math.isfinite(norm)
        drawn = "" if wild else self._scale.bar(norm, bar_width)
        text = f"{number(norm):>{NUMBER}}"
        return [(text, "error" if wild else "strong" if strong else ""), (f"  {drawn:<{bar_width}}", "up")]

    def _change(self, ops: Sequence[Op], row: Branch, room: int) -> Line:
        """Write what a step or zero_grad has made of one parameter."""
        if not ops or not row.part.alone or room < 12:
            return []
        before = _of_role(ops[0].inputs, "value" if self._trace.phase is Phase.STEP else "grad")
        after = _of_role(ops[0].output, "value" if self._trace.phase is Phase.STEP else "grad")
        return [(f"  {_main(before)} → {_main(after)}"[:room], "strong")] if before is not None else []

    def _label(self, row: Branch) -> str:
        indent = "  " * row.depth
        if not row.part.alone:
            return f"{indent}{one_line(row.name)}  {count(len(row.ops))} operations"
        return indent + self._called(row)

    def _called(self, row: Branch) -> str:
        """Name an operation, behind the rest of its module's path where that has no row of its own."""
        op, path = self._trace.ops[row.part.first], row.part.path
        rest = ".".join(path.split(".")[row.depth :]) if path else ""
        name = op.name
        if self._changes:
            name, rest = op.name.rpartition(".")[2], rest
        elif op.accumulates_into is not None:
            own = op.accumulates_into.removeprefix(f"{path}.") if path else op.accumulates_into
            name = f"→ {own}.grad"
        return one_line(f"{rest} {name}" if rest and not self._changes else f"{rest}.{name}" if rest else name)


def _marked(rows: Sequence[Branch], walk: Walk) -> int:
    """Find the row under the cursor, else that of the operation at hand."""
    chosen = [place for place, row in enumerate(rows) if row.part == walk.cursor]
    here = [place for place, row in enumerate(rows) if row.part.alone and walk.place in row.ops]
    return (chosen or here or [0])[0]


def _around(row: int, room: int) -> range:
    """Give the rows to be seen: a few more than the one that matters."""
    spare = min((room - 1) // 2, MARGIN)
    return range(max(row - spare, 0), row + 1 + spare)


def _of_role(values: Sequence[Value], role: str) -> Value | None:
    return next((value for value in values if value.role == role), None)


def _main(value: Value | None) -> str:
    if value is None:
        return "None"
    stats = value.stats
    if stats.size == 1 and stats.values:
        return terse(stats.values[0])
    return f"norm {terse(stats.norm)}" if stats.norm is not None else "-"
