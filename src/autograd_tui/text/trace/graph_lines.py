"""The autograd graph of a small model, drawn: the loss above, the leaves below."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autograd_tui.core.command import Phase
from autograd_tui.core.trace import Operation, Trace, Value
from autograd_tui.text.frame_summary import error_line
from autograd_tui.text.numbers import number, terse
from autograd_tui.text.styled_text import Line, more_line, one_line, scrolled
from autograd_tui.text.table.table_rows import shortened
from autograd_tui.text.trace.graph_rows import GraphRow, lanes, spots
from autograd_tui.text.trace.tensor_words import dtype_words, value_words
from autograd_tui.text.trace.walk import Walk

MOST_ALIGNED = 4  # numbers of one tensor
GAP = 2  # blanks between two of them


@dataclass(frozen=True, slots=True)
class Column:
    """How the tensors of a column are written: a cell for each number, no cells where that takes too much room.

    Where a large tensor's shape and norm do not both fit, its shape is written, or of `norms` its norm.
    """

    room: int
    cell: int
    norms: bool = False

    @classmethod
    def of(cls, values: Iterable[Value | None], room: int, *, norms: bool = False) -> Column:
        """Choose for all that the column is ever to hold, so that it stays as it is."""
        numbers = [_few(value) for value in values]
        cell = max((len(number(each)) for few in numbers for each in few), default=0)
        width = max(map(len, numbers), default=0) * (cell + GAP) - GAP
        return cls(room, cell if width <= room else 0, norms)

    def write(self, value: Value | None) -> str:
        """Write one tensor; "" for None."""
        if value is None:
            return ""
        few = _few(value)
        if few and self.cell:
            aligned = (" " * GAP).join(f"{number(each):>{self.cell}}" for each in few)
            dtype = dtype_words(value)
            return aligned + (dtype if len(aligned + dtype) <= self.room else "")
        words, norm = value_words(value, self.room), value.stats.norm
        if self.norms and norm is not None and value.stats.values is None and "norm" not in words:
            alone, dtype = f"norm {terse(norm)}", dtype_words(value)
            words = alone + dtype if len(alone + dtype) <= self.room or dtype not in words else words
        return words[: self.room]


def _few(value: Value | None) -> tuple[float, ...]:
    """Give the numbers of a tensor that has few."""
    numbers = value.stats.values if value is not None else None
    return numbers if numbers is not None and len(numbers) <= MOST_ALIGNED else ()


AHEAD = "·"
COLUMN_GAP = 3  # blanks between the two columns
FORWARD, BACKWARD = "node: made for the backward", "gradient: dloss/dvalue"


class GraphColumns:
    """What the rows of one graph are about."""

    def __init__(self, trace: Trace, spots: Sequence[GraphRow]) -> None:
        self.trace, self.spots = trace, spots
        self.forward = trace.phase is Phase.FORWARD
        by_node = {op.node: op for op in trace.ops if op.node is not None}
        self.ops = [by_node.get(spot.node) if spot.node is not None else None for spot in spots]
        self._fitted: dict[int, Fitted] = {}

    def fitted(self, room: int) -> Fitted:
        """Choose how to write them in so much room."""
        if room not in self._fitted:
            values = [spot.value for spot in self.spots]
            grads = [gradient(op) for op in self.ops]
            rest = Column.of(grads, max(room // 2, 0), norms=True)
            last = [each.name for each in self.trace.nodes] if self.forward else map(rest.write, grads)
            least = max([0, *map(len, last)])
            value = Column.of(values, max(room - COLUMN_GAP - least, (room - COLUMN_GAP) // 2, 0))
            width = max(5, *(len(value.write(each)) for each in values)) + COLUMN_GAP
            self._fitted[room] = Fitted(
                self, value, width, Column.of(grads, max(room - width, 0), norms=True), room - width
            )
        return self._fitted[room]


@dataclass(frozen=True, slots=True)
class Fitted:
    """Both columns at one width."""

    columns: GraphColumns
    value: Column
    value_width: int
    grad: Column
    room: int  # for the last column

    @property
    def heading(self) -> str:
        last = FORWARD if self.columns.forward else BACKWARD
        return f"{'value':<{self.value_width}}{last if len(last) <= self.room else last.split(':')[0]}"

    def row(self, walk: Walk, row: int) -> Line:
        """Write what is known of one row."""
        spot, op = self.columns.spots[row], self.columns.ops[row]
        forward = self.columns.forward
        ahead = forward and spot.call is not None and spot.call > walk.index
        text = AHEAD if ahead else self.value.write(spot.value)
        here = spot.call == walk.op.number if forward else op is walk.op
        value = (f"{text:<{self.value_width}}", "dim" if ahead or spot.why else "strong" if here else "")
        return [value, *(self._node(spot, ahead) if forward else self._gradient(walk, spot, op))]

    def _why(self, spot: GraphRow) -> Line:
        return [(spot.why if len(spot.why) <= self.room else "not followed"[: self.room], "dim")]

    def _node(self, spot: GraphRow, ahead: bool) -> Line:
        if spot.why:
            return self._why(spot)
        if spot.node is None or spot.call is None or ahead:
            return []
        return [(self.columns.trace.nodes[spot.node].name[: self.room], "up")]

    def _gradient(self, walk: Walk, spot: GraphRow, op: Operation | None) -> Line:
        """Write the gradient once the walk has come to it, and where it goes to."""
        if spot.why:
            return self._why(spot)
        if op is None or op.number > walk.index:
            return [(AHEAD, "dim")]
        text, filled = self.grad.write(gradient(op)), ""
        if op.accumulates_into:
            filled = f"  → {op.accumulates_into}.grad" if op.grad_before is None else f"  + {op.accumulates_into}.grad"
        fits = len(text) + len(filled) <= self.room
        return [(text, "strong" if op is walk.op else "up"), (filled if fits else "", "accent")]


def gradient(op: Operation | None) -> Value | None:
    """Give the gradient that comes to a node; of several outputs, the first that has one."""
    return next((grad for grad in op.grad_in if grad is not None), None) if op else None


MOST_NODES = 20  # that are drawn; a larger graph is a tree of modules
MOST_TENSOR, MOST_NAME = 12, 16  # characters


def can_be_drawn(trace: Trace) -> bool:
    """Tell whether a phase has a graph that is small enough to be drawn."""
    return 0 < len(trace.nodes) <= MOST_NODES and trace.phase in (Phase.FORWARD, Phase.BACKWARD)


class GraphView:
    """The graph of one trace, laid out once."""

    def __init__(self, trace: Trace) -> None:
        self.spots = spots(trace)
        self._trace, self._columns = trace, GraphColumns(trace, self.spots)
        self._numbers = [_number(trace, spot) for spot in self.spots]
        self._lanes = lanes([spot.below for spot in self.spots], [spot.mark for spot in self.spots])
        widest = max((len(row) for row, _ in self._lanes), default=0)
        self._drawn = [f"{row:<{widest}} " for row, _ in self._lanes]
        names = [_shortened(spot) for spot in self.spots]
        tensors = [shortened(one_line(spot.tensor), MOST_TENSOR) for spot in self.spots]
        self._names, self._tensors = _padded(names), _padded(tensors)
        self._digits = len(str(len(trace.ops)))

    def rows_wanted(self) -> int:
        """Count the rows of all nodes, a heading, and what was raised."""
        return len(self.spots) + 1 + (self._trace.error is not None)

    def current(self, walk: Walk) -> list[int]:
        """Say in which rows the operation at hand stands."""
        op = walk.op
        return [row for row, spot in enumerate(self.spots) if _is(spot, op)]

    def moved(self, walk: Walk, by: int) -> Walk:
        """Go to the operation in a row further down, or up."""
        here = self.current(walk) or [0]
        rows = range(here[-1] + 1, len(self.spots)) if by > 0 else range(here[0] - 1, -1, -1)
        found = [number for row in rows if (number := self._numbers[row]) is not None]
        return walk.at(found[min(abs(by), len(found)) - 1]) if found else walk

    def lines(self, walk: Walk, width: int, height: int) -> list[Line]:
        """Draw as many rows as fit, those of the operation at hand always among them."""
        here = self.current(walk)
        indent = self._digits + 3 + len(self._drawn[0]) + len(self._names[0]) + len(self._tensors[0])
        columns = self._columns.fitted(width - indent)
        heading: list[Line] = [[(f"{'':{indent}}{columns.heading}"[:width], "dim")]] if height >= 5 else []
        rows = [[*self._left(walk, row, row in here), *columns.row(walk, row)] for row in range(len(self.spots))]
        raised: list[Line] = (
            [[(one_line(f"! {error_line(walk.trace.error)}", width), "error")]] if walk.trace.error else []
        )
        return [*heading, *self._fitted(rows, here, height - len(heading) - len(raised)), *raised]

    def _fitted(self, rows: list[Line], here: list[int], room: int) -> list[Line]:
        """Give the rows with lanes between them, the rows alone, or those around the ones at hand."""
        spaced = self._spaced(rows)
        if len(rows) <= room:
            return spaced if len(spaced) <= room else rows
        room = max(room - 1, 1)
        spare = max(room - len(here), 0) // 2
        wanted = range(max(here[0] - spare, 0), here[-1] + 1 + spare) if here else range(0)
        top = scrolled(0, wanted, count=len(rows), room=room)
        return [*rows[top : top + room], more_line(top, top + room, len(rows))]

    def _spaced(self, rows: list[Line]) -> list[Line]:
        """Draw the lanes between the rows too, but a leaf close below what uses it."""
        spaced: list[Line] = []
        for place, row in enumerate(rows):
            spaced.append(row)
            if place + 1 < len(rows) and (self.spots[place + 1].below or not self._drawn[place + 1].startswith("│")):
                spaced.append([(f"{'':{self._digits + 3}}{self._lanes[place][1]}", "")])
        return spaced

    def _left(self, walk: Walk, row: int, here: bool) -> Line:
        """Draw the mark of the row at hand, the operation's number, the lanes and the names."""
        number, spot = self._numbers[row], self.spots[row]
        passed = number is not None and number <= walk.index
        name = self._names[row].rstrip()
        return [
            ("▶ " if here else "  ", "accent"),
            (f"{'' if number is None else number + 1:>{self._digits}} ", "strong" if here else "dim"),
            (self._drawn[row], "accent" if here else ""),
            (name, "now" if here else "strong" if passed else "dim" if spot.why else ""),
            (self._names[row][len(name) :], ""),
            (self._tensors[row], "" if passed else "dim"),
        ]


def _shortened(spot: GraphRow) -> str:
    """Keep the beginning of an operation's name, and the end of a leaf's."""
    name = one_line(spot.name)
    if len(name) <= MOST_NAME:
        return name
    return f"{name[: MOST_NAME - 1]}…" if spot.below else shortened(name, MOST_NAME)


def _padded(texts: list[str]) -> list[str]:
    """Bring words to one width, a blank behind the longest; where there are none, to no width."""
    longest = max(map(len, texts), default=0)
    return [f"{text:<{longest + 1}}" if longest else "" for text in texts]


def _is(spot: GraphRow, op: Operation) -> bool:
    return spot.node == op.node if op.node is not None else spot.call == op.number


def _number(trace: Trace, spot: GraphRow) -> int | None:
    """Give a row's place among the operations of the phase."""
    if trace.phase is Phase.FORWARD:
        return spot.call
    return next((op.number for op in trace.ops if op.node is not None and op.node == spot.node), None)
