"""The autograd graph of a small model: the loss above, the leaves below; what the walk has reached is filled in."""

from __future__ import annotations

from collections.abc import Sequence

from autograd_tui.engine.command import Phase
from autograd_tui.engine.trace import Op, Trace, Value
from autograd_tui.text.frame_line import error_line
from autograd_tui.text.inside.columns import column
from autograd_tui.text.inside.lanes import lanes
from autograd_tui.text.inside.spots import Spot, spots
from autograd_tui.text.inside.walk import Walk
from autograd_tui.text.line import Line, one_line, plain
from autograd_tui.text.window import more_line, scrolled

MOST_NODES = 24  # that are drawn whole; a larger graph is a tree of modules
MOST_TENSOR, MOST_NAME = 12, 16  # characters
AHEAD = "·"


def can_be_drawn(trace: Trace) -> bool:
    """Tell whether a phase has a graph that is small enough to be drawn."""
    return 0 < len(trace.nodes) <= MOST_NODES and trace.phase in (Phase.FORWARD, Phase.BACKWARD)


class Graph:
    """The graph of one trace, laid out once."""

    def __init__(self, trace: Trace) -> None:
        self.spots = spots(trace)
        self._trace = trace
        self._lanes = lanes([spot.below for spot in self.spots], [spot.mark for spot in self.spots])
        self._lane_width = max((len(row) for row, _ in self._lanes), default=0)

    def rows_wanted(self) -> int:
        """Count the rows of all nodes, a heading, and what was raised."""
        return len(self.spots) + 1 + (self._trace.error is not None)

    def current(self, walk: Walk) -> range:
        """Say which rows the operation at hand stands in."""
        rows = [row for row, spot in enumerate(self.spots) if _is(spot, walk.op)]
        return range(rows[0], rows[-1] + 1) if rows else range(0)

    def moved(self, walk: Walk, by: int) -> Walk:
        """Go to the operation in a row further down, or up."""
        here = self.current(walk)
        rows = range(here.stop, len(self.spots)) if by > 0 else range(here.start - 1, -1, -1)
        numbers = (self._number(walk, self.spots[row]) for row in rows)
        found = [number for number in numbers if number is not None and number != walk.place]
        return walk.at(found[min(abs(by), len(found)) - 1]) if found else walk

    def lines(self, walk: Walk, width: int, height: int) -> list[Line]:
        """Draw as many rows as fit, those of the operation at hand always among them."""
        heading, rows = self._rows(walk, width)
        last: list[Line] = [[(f"! {error_line(walk.trace.error)}", "error")]] if walk.trace.error else []
        room = height - len(last) - 1
        if self._airy(room):
            return [heading, *self._spaced(rows), *last]
        if len(rows) <= room:
            return [heading, *rows, *last]
        room -= 1
        top = scrolled(0, _around(self.current(walk), room), count=len(rows), room=room)
        return [heading, *rows[top : top + room], more_line(top, top + room, len(rows)), *last]

    def _airy(self, room: int) -> bool:
        return len(self._spaced([[] for _ in self.spots])) <= room

    def _spaced(self, rows: Sequence[Line]) -> list[Line]:
        """Draw the lanes between the rows too, but a leaf close below what uses it."""
        spaced: list[Line] = []
        indent = len(self._gutter)
        for place, row in enumerate(rows):
            spaced.append(row)
            follower = self.spots[place + 1] if place + 1 < len(rows) else None
            if follower is not None and (follower.below or not self._is_side(place + 1)):
                spaced.append([(f"{'':{indent}}{self._lanes[place][1]}", "dim")])
        return spaced

    def _is_side(self, place: int) -> bool:
        """Tell whether a row stands beside a lane that goes on to a row further down."""
        return self._lanes[place][0].startswith("│")

    @property
    def _gutter(self) -> str:
        return f"{'':{len(str(len(self._trace.ops)))}}   "  # the mark, the number, a blank

    def _rows(self, walk: Walk, width: int) -> tuple[Line, list[Line]]:
        reached: dict[int | None, Op] = {op.node: op for op in walk.trace.ops[: walk.place + 1] if op.node is not None}
        names = [one_line(spot.name)[:MOST_NAME] for spot in self.spots]
        tensors = [one_line(spot.tensor)[:MOST_TENSOR] for spot in self.spots]
        left = [self._lane_width + 1, max(map(len, names)) + 1, max(map(len, tensors)) + 1]
        if not any(tensors):
            left[2] = 0
        indent = len(self._gutter)
        room = width - indent - sum(left)
        values = column([_value(walk, spot) for spot in self.spots], (room - 2) // 2)
        value_width = max(5, *map(len, values)) + 2
        rest, heading = self._last_column(walk, reached, room - value_width)
        rows = [
            self._row(walk, place, (names[place], tensors[place]), left, (values[place], value_width), rest[place])
            for place in range(len(self.spots))
        ]
        return [(f"{'':{indent + sum(left)}}{'value':<{value_width}}{heading}"[:width], "dim")], rows

    def _row(
        self, walk: Walk, place: int, called: tuple[str, str], left: Sequence[int], value: tuple[str, int], rest: Line
    ) -> Line:
        spot, here = self.spots[place], place in self.current(walk)
        number = self._number(walk, spot)
        digits = len(self._gutter) - 3
        passed = _passed(walk, number)
        drawn = f"{self._lanes[place][0]:<{left[0]}}"
        name = f"{called[0]:<{left[1]}}"
        return [
            ("▶ " if here else "  ", "accent"),
            (f"{'' if number is None else number + 1:>{digits}} ", "strong" if here else "dim"),
            (drawn, "accent" if here else ""),
            (name, "now" if here else "strong" if passed else "dim" if spot.why else ""),
            (f"{called[1]:<{left[2]}}" if left[2] else "", "" if passed else "dim"),
            (f"{value[0]:<{value[1]}}", "strong" if here else "dim" if spot.why else ""),
            *rest,
        ]

    def _number(self, walk: Walk, spot: Spot) -> int | None:
        """Give a row's place among the operations of the phase."""
        if walk.trace.phase is Phase.FORWARD:
            return spot.call
        return next((op.number for op in walk.trace.ops if op.node is not None and op.node == spot.node), None)

    def _last_column(self, walk: Walk, reached: dict[int | None, Op], room: int) -> tuple[list[Line], str]:
        if walk.trace.phase is Phase.FORWARD:
            return [_grad_fn(walk, spot, room) for spot in self.spots], "node made for the backward"[:room]
        grads = column([_gradient(reached.get(spot.node)) for spot in self.spots], room)
        pairs = zip(self.spots, grads, strict=True)
        return [
            _arrived(walk, spot, reached.get(spot.node), text, room) for spot, text in pairs
        ], "gradient: d loss / d value"[:room]


def _is(spot: Spot, op: Op) -> bool:
    return spot.node == op.node if op.node is not None else spot.call == op.number


def _around(rows: range, room: int) -> range:
    """Give what is to be seen: the rows at hand in the middle."""
    spare = max(room - len(rows), 0) // 2
    return range(max(rows.start - spare, 0), rows.stop + spare)


def _passed(walk: Walk, number: int | None) -> bool:
    return number is not None and number <= walk.place


def _value(walk: Walk, spot: Spot) -> Value | None:
    """Give a row's value once there is one."""
    ahead = walk.trace.phase is Phase.FORWARD and spot.call is not None and spot.call > walk.place
    return None if ahead else spot.value


def _gradient(op: Op | None) -> Value | None:
    return next((grad for grad in op.grad_in if grad is not None), None) if op else None


def _grad_fn(walk: Walk, spot: Spot, room: int) -> Line:
    if spot.why:
        return [(spot.why[:room], "dim")]
    if spot.node is None or spot.call is None:
        return []
    node = walk.trace.nodes[spot.node].name[:room]
    return [(node, "up")] if spot.call <= walk.place else [(AHEAD, "dim")]


def _arrived(walk: Walk, spot: Spot, op: Op | None, text: str, room: int) -> Line:
    """Write the gradient once the walk has come to it, and where it goes to."""
    if spot.why:
        return [(spot.why[:room], "dim")]
    if op is None:
        return [(AHEAD, "dim")]
    line: Line = [(text, "strong" if op is walk.op else "up")]
    filled = f"  → {op.accumulates_into}.grad" if op.accumulates_into else ""
    return [*line, (filled, "accent")] if len(plain(line)) + len(filled) <= room else line
