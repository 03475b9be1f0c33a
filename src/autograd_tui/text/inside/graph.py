"""The autograd graph of a small model: the loss above, the leaves below; what the walk has reached is filled in."""

from __future__ import annotations

from autograd_tui.engine.values.command import Phase
from autograd_tui.engine.values.trace import Op, Trace
from autograd_tui.text.frame_line import error_line
from autograd_tui.text.inside.graph_columns import GraphColumns
from autograd_tui.text.inside.lanes import lanes
from autograd_tui.text.inside.spots import Spot, spots
from autograd_tui.text.inside.walk import Walk
from autograd_tui.text.line import Line, one_line
from autograd_tui.text.table import shortened
from autograd_tui.text.window import more_line, scrolled

MOST_NODES = 20  # that are drawn; a larger graph is a tree of modules
MOST_TENSOR, MOST_NAME = 12, 16  # characters


def can_be_drawn(trace: Trace) -> bool:
    """Tell whether a phase has a graph that is small enough to be drawn."""
    return 0 < len(trace.nodes) <= MOST_NODES and trace.phase in (Phase.FORWARD, Phase.BACKWARD)


class Graph:
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
        passed = number is not None and number <= walk.place
        name = self._names[row].rstrip()
        return [
            ("▶ " if here else "  ", "accent"),
            (f"{'' if number is None else number + 1:>{self._digits}} ", "strong" if here else "dim"),
            (self._drawn[row], "accent" if here else ""),
            (name, "now" if here else "strong" if passed else "dim" if spot.why else ""),
            (self._names[row][len(name) :], ""),
            (self._tensors[row], "" if passed else "dim"),
        ]


def _shortened(spot: Spot) -> str:
    """Keep the beginning of an operation's name, and the end of a leaf's."""
    name = one_line(spot.name)
    if len(name) <= MOST_NAME:
        return name
    return f"{name[: MOST_NAME - 1]}…" if spot.below else shortened(name, MOST_NAME)


def _padded(texts: list[str]) -> list[str]:
    """Bring words to one width, a blank behind the longest; where there are none, to no width."""
    longest = max(map(len, texts), default=0)
    return [f"{text:<{longest + 1}}" if longest else "" for text in texts]


def _is(spot: Spot, op: Op) -> bool:
    return spot.node == op.node if op.node is not None else spot.call == op.number


def _number(trace: Trace, spot: Spot) -> int | None:
    """Give a row's place among the operations of the phase."""
    if trace.phase is Phase.FORWARD:
        return spot.call
    return next((op.number for op in trace.ops if op.node is not None and op.node == spot.node), None)
