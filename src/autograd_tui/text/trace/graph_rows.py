"""The rows of a drawn graph, and the edges beside them."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from autograd_tui.core.command import Phase
from autograd_tui.core.trace import Node, Operation, Trace, Value

_CORNERS = {  # by what meets there: a lane from above, one that goes on below, a line to the left, one to the right
    (True, False, True, False): "╯",
    (True, False, False, True): "╰",
    (True, False, True, True): "┴",
    (False, True, True, False): "╮",
    (False, True, False, True): "╭",
    (False, True, True, True): "┬",
    (True, True, True, False): "┤",
    (True, True, False, True): "├",
    (True, True, True, True): "┼",
}


def lanes(below: Sequence[Sequence[int]], marks: Sequence[str]) -> list[tuple[str, str]]:
    """Draw each row's node with its lanes, and the lanes alone between it and the next row.

    below: for each row, those that lines lead to, all of them further down. The first goes straight on. marks: how each
    node is drawn.
    """
    waiting: list[int | None] = []  # the row that each lane leads to
    drawn = []
    for row, targets in enumerate(below):
        above = list(waiting)
        joined = {lane for lane, target in enumerate(waiting) if target == row}
        at = min(joined) if joined else _free(waiting)
        for lane in joined:
            waiting[lane] = None
        forked = _fork(waiting, at, targets)
        node = _row(above, waiting, at, joined - {at}, forked - {at}, marks[row])
        drawn.append((node, " ".join("│" if target is not None else " " for target in waiting)))
        while waiting and waiting[-1] is None:
            waiting.pop()
    return drawn


def _free(waiting: list[int | None]) -> int:
    if None not in waiting:
        waiting.append(None)
    return waiting.index(None)


def _fork(waiting: list[int | None], at: int, targets: Sequence[int]) -> set[int]:
    """Give each target a lane, the first the one of the node; tell which."""
    taken = set()
    for place, target in enumerate(dict.fromkeys(targets)):
        lane = _free(waiting) if place else at
        waiting[lane] = target
        taken.add(lane)
    return taken


def _row(
    above: list[int | None], after: list[int | None], at: int, joined: set[int], forked: set[int], mark: str
) -> str:
    """Draw one row: its node, the lanes that meet there, and those that pass by."""
    left, right = min({at} | joined | forked), max({at} | joined | forked)
    text = ""
    for lane in range(max(len(above), len(after))):
        inside = left <= lane <= right
        corner = _CORNERS.get((lane in joined, lane in forked, left < lane <= right, left <= lane < right))
        passing = lane < len(above) and above[lane] is not None
        text += mark if lane == at else corner or ("│" if passing else "─" if inside else " ")
        text += "─" if left <= lane < right else " "
    return text.rstrip()


NODE, LEAF, DATA = "●", "◆", "○"


@dataclass(frozen=True, slots=True, eq=False)
class GraphRow:
    """A row of the graph, which stands for a tensor."""

    mark: str
    name: str  # of the call that made it, or its own where it is a leaf
    tensor: str = ""  # what the model calls it
    value: Value | None = None
    node: int | None = None
    call: int | None = None  # the operation of the forward that made it
    why: str = ""  # autograd does not follow it
    below: tuple[int, ...] = ()  # the rows that its gradient goes to, and those that it does not


def spots(trace: Trace) -> list[GraphRow]:
    """Give the rows from the loss down, in the order in which the engine runs the nodes."""
    calls = (trace.forward or trace).ops
    keys = _keys(trace, calls)
    rows = {key: row for row, key in enumerate(keys)}
    named = {value.name: value for call in reversed(calls) for value in reversed(call.inputs) if value.name}
    return [_spot(trace, calls, named, rows, key) for key in keys]


def in_engine_order(nodes: Sequence[Node]) -> Iterator[int]:
    """Give the nodes as the engine runs them: what accumulates at once, and of the others the youngest first."""
    missing = Counter(after for node in nodes for after in node.next if after is not None)
    ready = [_rank(node) for node in nodes if not missing[node.number]]
    while ready:
        *_, number = heapq.heappop(ready)
        yield number
        for after in nodes[number].next:
            if after is not None:
                missing[after] -= 1
                if not missing[after]:
                    heapq.heappush(ready, _rank(nodes[after]))


def _rank(node: Node) -> tuple[bool, int, int]:
    return node.param is None, -(node.op if node.op is not None else -1), node.number


# A row is known by its node, or by the value that is not followed, in the call that it goes into; or by a call alone.
_Key = tuple[int | None, int | None, Value | None]


def _keys(trace: Trace, calls: Sequence[Operation]) -> list[_Key]:
    keys: list[_Key] = []
    shown: set[int] = set()
    for number in in_engine_order(trace.nodes):
        keys.append((number, None, None))
        call = _call_of(trace, calls, number)
        if call is not None:
            keys += [(None, number, value) for value in _unfollowed(trace, calls, call)]
            shown.add(call.number)
    makers = {value.maker for *_, value in keys if value is not None}
    if trace.phase is Phase.FORWARD:
        keys += [(None, call.number, None) for call in calls if call.number not in shown | makers and not call.nodes]
    return keys


def _call_of(trace: Trace, calls: Sequence[Operation], number: int) -> Operation | None:
    """Give the call that created a node, where that is the first of its nodes."""
    made_by = trace.nodes[number].op
    if made_by is None or made_by >= len(calls):
        return None
    call = calls[made_by]
    return call if number == min(call.nodes, default=number) else None


def _unfollowed(trace: Trace, calls: Sequence[Operation], call: Operation) -> list[Value]:
    leaves = {node.param for node in trace.nodes if node.param}
    found: dict[object, Value] = {}
    for value in call.inputs:
        followed = value.name in leaves if value.maker is None else _has_nodes(calls, value.maker)
        if not followed and value.role not in _STATE:
            found.setdefault(value.name or value.maker, value)
    return list(found.values())


_STATE = ("running_mean", "running_var", "num_batches_tracked")  # what a layer keeps is no part of the way


def _has_nodes(calls: Sequence[Operation], maker: int) -> bool:
    return maker < len(calls) and bool(calls[maker].nodes)


def _spot(
    trace: Trace, calls: Sequence[Operation], named: dict[str, Value], rows: dict[_Key, int], key: _Key
) -> GraphRow:
    number, around, value = key
    if number is not None:
        below = [(after, None, None) for after in trace.nodes[number].next if after is not None]
        data = [each for each in rows if each[0] is None and each[1] == number and each[2] is not None]
        below = sorted(below, key=lambda each: trace.nodes[each[0]].param is not None)
        return _of_node(trace, calls, named, number, tuple(rows[each] for each in (*below, *data)))
    if value is not None:
        name = value.name or (calls[value.maker].name if value.maker is not None else "a tensor")
        return GraphRow(DATA, name, value=value, call=value.maker, why=_why(calls, value))
    assert around is not None
    call = calls[around]
    return GraphRow(DATA, _called(call), _tensor(call), _output(call), call=around, why="no node: nothing to follow")


def _of_node(
    trace: Trace, calls: Sequence[Operation], named: dict[str, Value], number: int, below: tuple[int, ...]
) -> GraphRow:
    node = trace.nodes[number]
    if node.param is not None:
        return GraphRow(LEAF, node.param or "a leaf", value=named.get(node.param), node=number)
    call = _call_of(trace, calls, number)
    if call is None:  # one of several nodes of a call
        return GraphRow(NODE, node.name.removesuffix("Backward0"), node=number, call=node.op, below=below)
    return GraphRow(NODE, _called(call), _tensor(call), _output(call), number, call.number, below=below)


def _called(call: Operation) -> str:
    """Name a call with its one setting, where that is short: "pow 2"."""
    alone = call.settings[0][1] if len(call.settings) == 1 else ""
    return f"{call.name} {alone}" if alone and len(alone) <= 3 and len(call.inputs) == 1 else call.name


def _tensor(call: Operation) -> str:
    return call.output[0].name if call.output else ""


def _output(call: Operation) -> Value | None:
    return call.output[0] if call.output else None


def _why(calls: Sequence[Operation], value: Value) -> str:
    if value.stats.dtype.startswith(("int", "uint", "bool")):
        return "whole numbers have no gradient"
    if value.maker is None:
        return "requires_grad=False"
    return "cut off by detach" if calls[value.maker].name.startswith("detach") else "made without a node"
