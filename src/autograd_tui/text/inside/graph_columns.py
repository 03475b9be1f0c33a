"""The numbers beside the graph: each row's value, and the gradient by it or the node that was made for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autograd_tui.engine.values.command import Phase
from autograd_tui.engine.values.trace import Op, Trace, Value
from autograd_tui.text.inside.columns import Column
from autograd_tui.text.inside.spots import Spot
from autograd_tui.text.inside.walk import Walk
from autograd_tui.text.line import Line

AHEAD = "·"
GAP = 3  # blanks between the two columns
FORWARD, BACKWARD = "node: made for the backward", "gradient: dloss/dvalue"


class GraphColumns:
    """What the rows of one graph are about."""

    def __init__(self, trace: Trace, spots: Sequence[Spot]) -> None:
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
            value = Column.of(values, max(room - GAP - least, (room - GAP) // 2, 0))
            width = max(5, *(len(value.write(each)) for each in values)) + GAP
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
        ahead = forward and spot.call is not None and spot.call > walk.place
        text = AHEAD if ahead else self.value.write(spot.value)
        here = spot.call == walk.op.number if forward else op is walk.op
        value = (f"{text:<{self.value_width}}", "dim" if ahead or spot.why else "strong" if here else "")
        return [value, *(self._node(spot, ahead) if forward else self._gradient(walk, spot, op))]

    def _why(self, spot: Spot) -> Line:
        return [(spot.why if len(spot.why) <= self.room else "not followed"[: self.room], "dim")]

    def _node(self, spot: Spot, ahead: bool) -> Line:
        if spot.why:
            return self._why(spot)
        if spot.node is None or spot.call is None or ahead:
            return []
        return [(self.columns.trace.nodes[spot.node].name[: self.room], "up")]

    def _gradient(self, walk: Walk, spot: Spot, op: Op | None) -> Line:
        """Write the gradient once the walk has come to it, and where it goes to."""
        if spot.why:
            return self._why(spot)
        if op is None or op.number > walk.place:
            return [(AHEAD, "dim")]
        text, filled = self.grad.write(gradient(op)), ""
        if op.accumulates_into:
            filled = f"  → {op.accumulates_into}.grad" if op.grad_before is None else f"  + {op.accumulates_into}.grad"
        fits = len(text) + len(filled) <= self.room
        return [(text, "strong" if op is walk.op else "up"), (filled if fits else "", "accent")]


def gradient(op: Op | None) -> Value | None:
    """Give the gradient that comes to a node; of several outputs, the first that has one."""
    return next((grad for grad in op.grad_in if grad is not None), None) if op else None
