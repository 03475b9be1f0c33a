"""The rows of the drawn autograd graph, and the edges between them as box-drawing characters."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

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
    """Return the rows from the loss down, in the order in which autograd runs the nodes.

    Below each node are the tensors without a node that its call reads; at the end of a forward, the calls that left no
    node and whose results nothing shown reads.
    """
    rows: list[GraphRow] = []
    node_rows, untracked_rows = dict[int, int](), dict[int, range]()  # by node: its row, and those of its inputs
    for node_index in engine_order(trace.nodes):
        call = _call_of_node(trace, node_index)
        node_rows[node_index] = len(rows)
        rows.append(_node_row(trace, node_index, call))
        rows += [_untracked_row(trace, value) for value in _untracked_inputs(trace, call)] if call else []
        untracked_rows[node_index] = range(node_rows[node_index] + 1, len(rows))
    for node_index, row in node_rows.items():
        next_nodes = [node for node in trace.nodes[node_index].next if node is not None]
        next_nodes.sort(key=lambda node: trace.nodes[node].param is not None)
        rows[row] = replace(rows[row], edges=(*(node_rows[node] for node in next_nodes), *untracked_rows[node_index]))
    if trace.phase is Phase.FORWARD:
        shown = {row.call for row in rows}
        rows += [_nodeless_row(call) for call in trace.forward_ops if call.number not in shown and not call.nodes]
    return rows


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


def _call_of_node(trace: Trace, node_index: int) -> Operation | None:
    """Return the call that created a node; None for a call's other nodes than the first."""
    made_by = trace.nodes[node_index].op
    if made_by is None or made_by >= len(trace.forward_ops):
        return None
    call = trace.forward_ops[made_by]
    return call if node_index == min(call.nodes, default=node_index) else None


def _untracked_inputs(trace: Trace, call: Operation) -> list[Value]:
    leaves, ops = {node.param for node in trace.nodes if node.param}, trace.forward_ops
    inputs: dict[object, Value] = {}
    for value in call.inputs:
        has_nodes = value.maker is not None and value.maker < len(ops) and bool(ops[value.maker].nodes)
        is_tracked = value.name in leaves if value.maker is None else has_nodes
        if not is_tracked and value.role not in _BUFFERS:
            inputs.setdefault(value.name or value.maker, value)
    return list(inputs.values())


def _node_row(trace: Trace, node_index: int, call: Operation | None) -> GraphRow:
    """Return the row of a node, without its edges."""
    node = trace.nodes[node_index]
    if node.param is not None:
        inputs = (value for op in trace.forward_ops for value in op.inputs)
        value = next((value for value in inputs if node.param and value.name == node.param), None)
        return GraphRow(LEAF_MARK, node.param or "a leaf", value=value, node=node_index)
    if call is None:  # one of several nodes of a call
        return GraphRow(NODE_MARK, node.name.removesuffix("Backward0"), node=node_index, call=node.op)
    return GraphRow(NODE_MARK, _call_label(call), _tensor_name(call), _output(call), node_index, call.number)


def _untracked_row(trace: Trace, value: Value) -> GraphRow:
    made_by = trace.forward_ops[value.maker].name if value.maker is not None else "a tensor"
    reason = _untracked_reason(trace, value)
    return GraphRow(UNTRACKED_MARK, value.name or made_by, value=value, call=value.maker, untracked_reason=reason)


def _nodeless_row(call: Operation) -> GraphRow:
    row = GraphRow(UNTRACKED_MARK, _call_label(call), _tensor_name(call), _output(call), call=call.number)
    return replace(row, untracked_reason="no node: nothing to follow")


def _call_label(call: Operation) -> str:
    """Return a call's name, with its setting where that is the only one and short: "pow 2"."""
    setting = call.settings[0][1] if len(call.settings) == 1 else ""
    return f"{call.name} {setting}" if setting and len(setting) <= 3 and len(call.inputs) == 1 else call.name


def _tensor_name(call: Operation) -> str:
    return call.output[0].name if call.output else ""


def _output(call: Operation) -> Value | None:
    return call.output[0] if call.output else None


def _untracked_reason(trace: Trace, value: Value) -> str:
    if value.stats.dtype.startswith(("int", "uint", "bool")):
        return "whole numbers have no gradient"
    if value.maker is None:
        return "requires_grad=False"
    return "cut off by detach" if trace.forward_ops[value.maker].name.startswith("detach") else "made without a node"


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
    """Assign each target a lane, the first target the node's own; return the lanes."""
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
