"""The tree of modules, drawn: a row for each module or operation, and a bar for its norm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from autograd_tui.core.command import Phase
from autograd_tui.core.trace import Operation, Trace, Value
from autograd_tui.text.frame_summary import error_line
from autograd_tui.text.numbers import bar, number, terse
from autograd_tui.text.styled_text import Line, more_line, one_line, scrolled
from autograd_tui.text.table.table_rows import shortened
from autograd_tui.text.trace.module_tree import ModuleRow, ModuleTree, TreeLabels, all_of
from autograd_tui.text.trace.nonfinite_alarm import first_trouble
from autograd_tui.text.trace.tensor_words import dtype_words
from autograd_tui.text.trace.walk import Walk

WHAT = {
    Phase.FORWARD: "|output|",
    Phase.BACKWARD: "|gradient|",
    Phase.STEP: "|gradient|",
    Phase.ZERO_GRAD: "|gradient|",
}
MIN_NORM_BAR = 0.04  # of the width, where the scale begins


@dataclass(frozen=True, slots=True)
class Scale:
    """Whole powers of ten around the norms of a phase."""

    low: int
    high: int

    @classmethod
    def of(cls, trace: Trace) -> Scale:
        """Find them, zeros left out."""
        norms = (norm_of(trace, op) for op in trace.ops)
        powers = [math.log10(norm) for norm in norms if norm is not None and 0 < norm < math.inf]
        low = math.floor(min(powers, default=0.0))
        return cls(low, max(math.ceil(max(powers, default=0.0)), low + 1))

    def bar(self, norm: float, width: int) -> str:
        """Draw a norm."""
        if not norm or not math.isfinite(norm):
            return bar(norm, width)
        share = (math.log10(norm) - self.low) / (self.high - self.low)
        return bar(MIN_NORM_BAR + (1 - MIN_NORM_BAR) * share, width)


def norm_of(trace: Trace, op: Operation) -> float | None:
    """Give the norm of a call's output, of the gradient that comes to a node, or of a parameter's gradient."""
    if trace.phase is Phase.FORWARD:
        return _together(op.output)
    if trace.phase is Phase.BACKWARD:
        return _together(op.grad_in)
    return _together([value for value in op.inputs if value.role == "grad"])


def norm_over(trace: Trace, ops: Sequence[Operation]) -> float | None:
    """Give the norm of what came out of a module, came to it in a backward, or of all its parameters' gradients."""
    if not ops:
        return None
    if trace.phase is Phase.FORWARD:
        return norm_of(trace, ops[-1])
    if trace.phase is Phase.BACKWARD:
        return norm_of(trace, ops[0])
    known = [norm for op in ops if (norm := norm_of(trace, op)) is not None]
    return math.hypot(*known) if known else None


def _together(values: Iterable[Value | None]) -> float | None:
    """Give the norm over several tensors; NaN where one holds a NaN or an infinity."""
    held = [value for value in values if value is not None]
    norms = [value.stats.norm for value in held if value.stats.norm is not None]
    if any(value.nonfinite for value in held) and not any(map(math.isinf, norms)):
        return math.nan
    return math.hypot(*norms) if norms else None


NUMBER = 11  # characters of a norm
MOST_BAR, LEAST_BAR = 24, 6
CHANGE = 20  # of "before → after", of large parameters their norms
BEFORE_AND_AFTER, AFTER = "before → after", "→ after"
MORE_ROOM = 8  # that names leave for it
MOST_NAME, LEAST_NAME = 40, 8
MARGIN = 3  # rows seen before and after the one that matters


class Widths(NamedTuple):
    """Characters of each column."""

    name: int
    bar: int
    change: int
    dtype: int


class TreeLines:
    """Draws the tree of one trace."""

    def __init__(self, tree: ModuleTree) -> None:
        self.tree, self._trace = tree, tree.trace
        self._scale = Scale.of(tree.trace)
        self._trouble = first_trouble(tree.trace)  # infinities before it, as a mask's, are none
        self._labels = TreeLabels(tree.trace, marked=any(branch.inside for branch in tree.top))
        self._dtypes = [_dtype(tree.trace, op) for op in tree.trace.ops]
        self._changes = tree.trace.phase in (Phase.STEP, Phase.ZERO_GRAD)
        self._longest = max(len(self._labels.label(branch)) for branch in all_of(tree.top))  # folded away or not
        self._room = 1
        self._top = 0  # the first row shown last: rows stay where they are as long as they can

    def rows_wanted(self) -> int:
        """Count all rows there are, a heading, and what was raised."""
        return sum(1 for _ in all_of(self.tree.top)) + 1 + (self._trace.error is not None)

    def moved(self, walk: Walk, by: int) -> Walk:
        """Move the cursor among the rows, from the operation at hand on where there is none."""
        rows = self.tree.rows(walk, self._room)
        return walk.chosen(rows[min(max(_marked(rows, walk) + by, 0), len(rows) - 1)].part)

    def opened(self, walk: Walk) -> Walk | None:
        """Open or close the part under the cursor, or run to the operation there; None where there is no cursor."""
        if walk.cursor is None:
            return None
        return walk.at(walk.cursor.first) if walk.cursor.alone else walk.toggled(walk.cursor)

    def lines(self, walk: Walk, width: int, height: int) -> list[Line]:
        """Draw the rows that fit, that of the operation at hand or of the cursor always among them."""
        error = self._trace.error
        last: list[Line] = [[(one_line(f"! {error_line(error)}", width), "error")]] if error else []
        self._room = max(height - 1 - len(last), 1)
        rows = self.tree.rows(walk, self._room)
        opened = {row.part for row, after in pairwise(rows) if after.depth > row.depth}
        shown, more = self._fitted(rows, walk)
        widths = self._widths(width)
        lines = [self._row(walk, row, widths, is_open=row.part in opened) for row in shown]
        return [self._heading(widths, width), *lines, *more, *last]

    def _fitted(self, rows: list[ModuleRow], walk: Walk) -> tuple[list[ModuleRow], list[Line]]:
        """Choose the rows that fit; where not all do, give a line too that counts the others."""
        if len(rows) <= self._room:
            return rows, []
        room = max(self._room - 1, 1)
        row, spare = _marked(rows, walk), min((room - 1) // 2, MARGIN)
        wanted = range(max(row - spare, 0), row + 1 + spare)
        self._top = top = scrolled(self._top, wanted, count=len(rows), room=room)
        return rows[top : top + room], [more_line(top, top + room, len(rows))]

    def _widths(self, width: int) -> Widths:
        most = MOST_NAME - MORE_ROOM * self._changes
        name = max(min(self._longest, most, width - NUMBER - LEAST_BAR - 4), LEAST_NAME)
        dtype = max(map(len, self._dtypes), default=0) * (not self._changes)
        rest = max(width - name - NUMBER - dtype - 4, 0)
        bar = min(max(rest - CHANGE * self._changes, 0), MOST_BAR)
        bar = bar if bar >= LEAST_BAR else 0
        return Widths(name, bar, (rest - bar) * self._changes, min(dtype, max(width - name - NUMBER - bar - 4, 0)))

    def _heading(self, widths: Widths, width: int) -> Line:
        low, high = (f"1e{power}" for power in (self._scale.low, self._scale.high))
        scale = (
            f"  {low}{'log':^{widths.bar - len(low + high)}}{high}" if widths.bar >= 14 else "  log" * (widths.bar > 0)
        )
        change = f"  {BEFORE_AND_AFTER if widths.change > len(BEFORE_AND_AFTER) + 1 else AFTER}" * self._changes
        heading = f"  {'':<{widths.name}}{WHAT[self._trace.phase]:>{NUMBER}}{scale:<{widths.bar + 2}}{change}"
        return [(heading[:width].rstrip(), "dim")]

    def _row(self, walk: Walk, row: ModuleRow, widths: Widths, *, is_open: bool) -> Line:
        ops = self._trace.ops[row.ops.start : min(row.ops.stop, walk.place + 1)]
        here, chosen = row.part.alone and walk.place in row.ops, row.part == walk.cursor
        label = shortened(self._labels.label(row, is_open=is_open), widths.name)
        name = label.lstrip()
        style = "now" if here else "accent" if chosen else "dim" if not ops else "" if row.part.alone else "strong"
        return [
            ("▶ " if here else "→ " if chosen else "  ", "accent"),
            (" " * (len(label) - len(name)), ""),
            (name, style),
            (" " * (widths.name - len(label)), ""),
            *self._numbers(ops, row, widths.bar, here=here),
            *self._change(ops, row, widths.change),
            (self._dtypes[row.ops.start][: widths.dtype] if ops and row.part.alone else "", "accent"),
        ]

    def _numbers(self, ops: Sequence[Operation], row: ModuleRow, bar_width: int, *, here: bool) -> Line:
        """Write the norm and draw its bar, once the walk has come there."""
        if not ops:
            return [(f"{'·':>{NUMBER}}", "dim")]
        norm = norm_of(self._trace, ops[0]) if row.part.alone else norm_over(self._trace, ops)
        if norm is None:
            return [(f"{'-':>{NUMBER}}{'':{bar_width + 2}}", "dim")]
        wild = not math.isfinite(norm)
        drawn = self._scale.bar(norm, bar_width) if bar_width and not wild else ""
        ill = wild and self._trouble is not None and ops[-1].number >= self._trouble
        style = "error" if ill else "strong" if here else ""
        return [(f"{number(norm):>{NUMBER}}", style), (f"  {drawn:<{bar_width}}", "up")]

    def _change(self, ops: Sequence[Operation], row: ModuleRow, room: int) -> Line:
        """Write what a step or zero_grad has made of one parameter."""
        if not ops or not row.part.alone or not room:
            return []
        role = "value" if self._trace.phase is Phase.STEP else "grad"
        before, after = (_of_role(side, role) for side in (ops[0].inputs, ops[0].output))
        if before is None:
            return []
        told = f"  {_main(before)} → {_main(after)}"
        return [((told if len(told) <= room else f"  → {_main(after)}")[:room], "strong")]


def _dtype(trace: Trace, op: Operation) -> str:
    """Write the dtype of what an operation's norm is of."""
    values = op.output if trace.phase is Phase.FORWARD else op.grad_in
    return next((f" {dtype_words(value)}" for value in values if value is not None and dtype_words(value)), "")


def _marked(rows: Sequence[ModuleRow], walk: Walk) -> int:
    """Find the row under the cursor, else that of the operation at hand."""
    here = 0
    for place, row in enumerate(rows):
        if row.part == walk.cursor:
            return place
        if row.part.alone and walk.place in row.ops:
            here = place
    return here


def _of_role(values: Sequence[Value], role: str) -> Value | None:
    return next((value for value in values if value.role == role), None)


def _main(value: Value | None) -> str:
    """Write a tensor's one number, or else its norm."""
    if value is None:
        return "None"
    stats = value.stats
    if stats.size == 1 and stats.values:
        return terse(stats.values[0])
    return terse(stats.norm) if stats.norm is not None else "-"
