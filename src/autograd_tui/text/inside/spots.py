"""What stands in the graph: a row for each node, and for each tensor that autograd does not follow."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from autograd_tui.engine.values.command import Phase
from autograd_tui.engine.values.trace import Node, Op, Trace, Value

NODE, LEAF, DATA = "●", "◆", "○"


@dataclass(frozen=True, slots=True, eq=False)
class Spot:
    """A row of the graph, which stands for a tensor."""

    mark: str
    name: str  # of the call that made it, or its own where it is a leaf
    tensor: str = ""  # what the model calls it
    value: Value | None = None
    node: int | None = None
    call: int | None = None  # the operation of the forward that made it
    why: str = ""  # autograd does not follow it
    below: tuple[int, ...] = ()  # the rows that its gradient goes to, and those that it does not


def spots(trace: Trace) -> list[Spot]:
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


def _keys(trace: Trace, calls: Sequence[Op]) -> list[_Key]:
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


def _call_of(trace: Trace, calls: Sequence[Op], number: int) -> Op | None:
    """Give the call that created a node, where that is the first of its nodes."""
    made_by = trace.nodes[number].op
    if made_by is None or made_by >= len(calls):
        return None
    call = calls[made_by]
    return call if number == min(call.nodes, default=number) else None


def _unfollowed(trace: Trace, calls: Sequence[Op], call: Op) -> list[Value]:
    leaves = {node.param for node in trace.nodes if node.param}
    found: dict[object, Value] = {}
    for value in call.inputs:
        followed = value.name in leaves if value.maker is None else _has_nodes(calls, value.maker)
        if not followed and value.role not in _STATE:
            found.setdefault(value.name or value.maker, value)
    return list(found.values())


_STATE = ("running_mean", "running_var", "num_batches_tracked")  # what a layer keeps is no part of the way


def _has_nodes(calls: Sequence[Op], maker: int) -> bool:
    return maker < len(calls) and bool(calls[maker].nodes)


def _spot(trace: Trace, calls: Sequence[Op], named: dict[str, Value], rows: dict[_Key, int], key: _Key) -> Spot:
    number, around, value = key
    if number is not None:
        below = [(after, None, None) for after in trace.nodes[number].next if after is not None]
        data = [each for each in rows if each[0] is None and each[1] == number and each[2] is not None]
        below = sorted(below, key=lambda each: trace.nodes[each[0]].param is not None)
        return _of_node(trace, calls, named, number, tuple(rows[each] for each in (*below, *data)))
    if value is not None:
        name = value.name or (calls[value.maker].name if value.maker is not None else "a tensor")
        return Spot(DATA, name, value=value, call=value.maker, why=_why(calls, value))
    assert around is not None
    call = calls[around]
    return Spot(DATA, _called(call), _tensor(call), _output(call), call=around, why="no node: nothing to follow")


def _of_node(trace: Trace, calls: Sequence[Op], named: dict[str, Value], number: int, below: tuple[int, ...]) -> Spot:
    node = trace.nodes[number]
    if node.param is not None:
        return Spot(LEAF, node.param or "a leaf", value=named.get(node.param), node=number)
    call = _call_of(trace, calls, number)
    if call is None:  # one of several nodes of a call
        return Spot(NODE, node.name.removesuffix("Backward0"), node=number, call=node.op, below=below)
    return Spot(NODE, _called(call), _tensor(call), _output(call), number, call.number, below=below)


def _called(call: Op) -> str:
    """Name a call with its one setting, where that is short: "pow 2"."""
    alone = call.settings[0][1] if len(call.settings) == 1 else ""
    return f"{call.name} {alone}" if alone and len(alone) <= 3 and len(call.inputs) == 1 else call.name


def _tensor(call: Op) -> str:
    return call.output[0].name if call.output else ""


def _output(call: Op) -> Value | None:
    return call.output[0] if call.output else None


def _why(calls: Sequence[Op], value: Value) -> str:
    if value.stats.dtype.startswith(("int", "uint", "bool")):
        return "whole numbers have no gradient"
    if value.maker is None:
        return "requires_grad=False"
    return "cut off by detach" if calls[value.maker].name.startswith("detach") else "made without a node"
