"""The rows of the drawn autograd graph, and the edges between them as box-drawing characters."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from autograd_tui.core.command import Phase
from autograd_tui.core.trace import Node, Operation, Trace, Value

_CORNERS = {  # by its connections: up, down, left, right
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

NODE_MARK, LEAF_MARK, UNTRACKED_MARK = "●", "◆", "○"

# Identifies a row: (its node, None, None) or, untracked, (None, the node of the call that reads it, the tensor) or, for
# a call that left no node, (None, the index of the call, None).
_GraphKey = tuple[int | None, int | None, Value | None]

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norm, which are no inputs of the graph


@dataclass(frozen=True, slots=True, eq=False)
class GraphRow:
    """A row of the graph: a node, or a tensor that autograd does not track."""

    mark: str
    name: str  # the call's that made it; a leaf's own
    tensor: str = ""  # the tensor's name in the model
    value: Value | None = None
    node: int | None = None
    call: int | None = None  # index of the forward's operation that made it
    untracked_reason: str = ""  # why autograd does not track it; "" for a node
    edges: tuple[int, ...] = ()  # the rows of its inputs, tracked ones first


def graph_rows(trace: Trace) -> list[GraphRow]:
    """Return the rows from the loss down, in the order in which autograd runs the nodes."""
    forward_ops = (trace.forward or trace).ops
    keys = _row_keys(trace, forward_ops)
    rows_by_key = {key: row for row, key in enumerate(keys)}
    tensors_by_name = {
        value.name: value for call in reversed(forward_ops) for value in reversed(call.inputs) if value.name
    }
    return [_graph_row(trace, forward_ops, tensors_by_name, rows_by_key, key) for key in keys]


def engine_order(nodes: Sequence[Node]) -> Iterator[int]:
    """Yield the nodes' indices in the order in which autograd's engine runs them.

    Of the nodes that are ready, AccumulateGrad comes first, then the node that was made last.
    """
    pending_counts = Counter(next_node for node in nodes for next_node in node.next if next_node is not None)
    ready = [_engine_priority(node) for node in nodes if not pending_counts[node.number]]
    while ready:
        *_, index = heapq.heappop(ready)
        yield index
        for next_node in nodes[index].next:
            if next_node is not None:
                pending_counts[next_node] -= 1
                if not pending_counts[next_node]:
                    heapq.heappush(ready, _engine_priority(nodes[next_node]))


def _engine_priority(node: Node) -> tuple[bool, int, int]:
    return node.param is None, -(node.op if node.op is not None else -1), node.number


def _row_keys(trace: Trace, forward_ops: Sequence[Operation]) -> list[_GraphKey]:
    keys: list[_GraphKey] = []
    shown: set[int] = set()
    for node_index in engine_order(trace.nodes):
        keys.append((node_index, None, None))
        call = _call_of_node(trace, forward_ops, node_index)
        if call is not None:
            keys += [(None, node_index, value) for value in _untracked_inputs(trace, forward_ops, call)]
            shown.add(call.number)
    makers = {value.maker for *_, value in keys if value is not None}
    if trace.phase is Phase.FORWARD:
        keys += [
            (None, call.number, None) for call in forward_ops if call.number not in shown | makers and not call.nodes
        ]
    return keys


def _call_of_node(trace: Trace, forward_ops: Sequence[Operation], node_index: int) -> Operation | None:
    """Return the call that created a node; None for a call's other nodes than the first."""
    made_by = trace.nodes[node_index].op
    if made_by is None or made_by >= len(forward_ops):
        return None
    call = forward_ops[made_by]
    return call if node_index == min(call.nodes, default=node_index) else None


def _untracked_inputs(trace: Trace, forward_ops: Sequence[Operation], call: Operation) -> list[Value]:
    leaves = {node.param for node in trace.nodes if node.param}
    inputs: dict[object, Value] = {}
    for value in call.inputs:
        is_tracked = value.name in leaves if value.maker is None else _has_nodes(forward_ops, value.maker)
        if not is_tracked and value.role not in _BUFFERS:
            inputs.setdefault(value.name or value.maker, value)
    return list(inputs.values())


def _has_nodes(forward_ops: Sequence[Operation], maker: int) -> bool:
    return maker < len(forward_ops) and bool(forward_ops[maker].nodes)


def _graph_row(
    trace: Trace,
    forward_ops: Sequence[Operation],
    tensors_by_name: dict[str, Value],
    rows_by_key: dict[_GraphKey, int],
    key: _GraphKey,
) -> GraphRow:
    node_index, call_index, value = key
    if node_index is not None:
        edges = [(next_node, None, None) for next_node in trace.nodes[node_index].next if next_node is not None]
        untracked = [each for each in rows_by_key if each[0] is None and each[1] == node_index and each[2] is not None]
        edges = sorted(edges, key=lambda each: trace.nodes[each[0]].param is not None)
        return _node_row(
            trace, forward_ops, tensors_by_name, node_index, tuple(rows_by_key[each] for each in (*edges, *untracked))
        )
    if value is not None:
        name = value.name or (forward_ops[value.maker].name if value.maker is not None else "a tensor")
        return GraphRow(
            UNTRACKED_MARK, name, value=value, call=value.maker, untracked_reason=_untracked_reason(forward_ops, value)
        )
    assert call_index is not None
    call = forward_ops[call_index]
    return GraphRow(
        UNTRACKED_MARK,
        _call_label(call),
        _tensor_name(call),
        _output(call),
        call=call_index,
        untracked_reason="no node: nothing to follow",
    )


def _node_row(
    trace: Trace,
    forward_ops: Sequence[Operation],
    tensors_by_name: dict[str, Value],
    node_index: int,
    edges: tuple[int, ...],
) -> GraphRow:
    node = trace.nodes[node_index]
    if node.param is not None:
        return GraphRow(LEAF_MARK, node.param or "a leaf", value=tensors_by_name.get(node.param), node=node_index)
    call = _call_of_node(trace, forward_ops, node_index)
    if call is None:  # one of several nodes of a call
        return GraphRow(NODE_MARK, node.name.removesuffix("Backward0"), node=node_index, call=node.op, edges=edges)
    return GraphRow(
        NODE_MARK, _call_label(call), _tensor_name(call), _output(call), node_index, call.number, edges=edges
    )


def _call_label(call: Operation) -> str:
    """Name a call, with its setting where that is the only one and short: "pow 2"."""
    setting = call.settings[0][1] if len(call.settings) == 1 else ""
    return f"{call.name} {setting}" if setting and len(setting) <= 3 and len(call.inputs) == 1 else call.name


def _tensor_name(call: Operation) -> str:
    return call.output[0].name if call.output else ""


def _output(call: Operation) -> Value | None:
    return call.output[0] if call.output else None


def _untracked_reason(forward_ops: Sequence[Operation], value: Value) -> str:
    if value.stats.dtype.startswith(("int", "uint", "bool")):
        return "whole numbers have no gradient"
    if value.maker is None:
        return "requires_grad=False"
    return "cut off by detach" if forward_ops[value.maker].name.startswith("detach") else "made without a node"


def draw_edges(edges: Sequence[Sequence[int]], marks: Sequence[str]) -> list[tuple[str, str]]:
    """Draw the edges of a graph whose nodes stand one a row; return two texts for each row.

    The first text has the row's node, the second the lanes between it and the next row. A lane is a column of the
    drawing that an edge runs down in. `edges` has for each row the rows that its edges lead to, all further down; the
    first keeps the node's lane. `marks` has each node's character.
    """
    lane_targets: list[int | None] = []  # the row that each lane leads to; None where it is free
    lines = []
    for row, targets in enumerate(edges):
        targets_above = list(lane_targets)
        merging = {each for each, target in enumerate(lane_targets) if target == row}
        lane = min(merging) if merging else _free_lane(lane_targets)
        for each in merging:
            lane_targets[each] = None
        leaving = _assign_lanes(lane_targets, lane, targets)
        node = _draw_row(targets_above, lane_targets, lane, merging - {lane}, leaving - {lane}, marks[row])
        lines.append((node, " ".join("│" if target is not None else " " for target in lane_targets)))
        while lane_targets and lane_targets[-1] is None:
            lane_targets.pop()
    return lines


def _free_lane(lane_targets: list[int | None]) -> int:
    if None not in lane_targets:
        lane_targets.append(None)
    return lane_targets.index(None)


def _assign_lanes(lane_targets: list[int | None], node_lane: int, targets: Sequence[int]) -> set[int]:
    """Give each target a lane, the first target the node's own; return the lanes."""
    lanes = set()
    for index, target in enumerate(dict.fromkeys(targets)):
        lane = _free_lane(lane_targets) if index else node_lane
        lane_targets[lane] = target
        lanes.add(lane)
    return lanes


def _draw_row(
    targets_above: list[int | None],
    targets_below: list[int | None],
    node_lane: int,
    merging: set[int],
    leaving: set[int],
    mark: str,
) -> str:
    """Draw one row: its node, the lanes that merge into it or leave it, and those that pass by."""
    left, right = min({node_lane} | merging | leaving), max({node_lane} | merging | leaving)
    text = ""
    for lane in range(max(len(targets_above), len(targets_below))):
        is_between = left <= lane <= right
        corner = _CORNERS.get((lane in merging, lane in leaving, left < lane <= right, left <= lane < right))
        is_passing = lane < len(targets_above) and targets_above[lane] is not None
        text += mark if lane == node_lane else corner or ("│" if is_passing else "─" if is_between else " ")
        text += "─" if left <= lane < right else " "
    return text.rstrip()
