"""The autograd graph of a small model, laid out on rows and drawn: the loss above, the leaves below."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from autograd_tui.core.command import Phase
from autograd_tui.core.trace import Node, Operation, Trace, Value
from autograd_tui.text.frame_summary import error_line
from autograd_tui.text.numbers import number, terse
from autograd_tui.text.styled_text import Line, more_line, one_line, scrolled
from autograd_tui.text.table.table_rows import shorten_name
from autograd_tui.text.trace.tensor_words import dtype_words, value_words
from autograd_tui.text.trace.trace_position import TracePosition

MAX_ALIGNED = 4  # values of one tensor that are written in columns
CELL_GAP = 2  # spaces between two of them

NOT_REACHED = "·"
COLUMN_GAP = 3  # spaces between the two columns
FORWARD_HEADING, BACKWARD_HEADING = "node: made for the backward", "gradient: dloss/dvalue"

MAX_NODES = 20  # of a graph that is drawn; a larger one is shown as a tree of modules
MAX_TENSOR_NAME, MAX_NAME = 12, 16  # characters
WIDE, MAX_WIDE_NAME = 100, 32  # columns from which on names of both kinds may be so long
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


def can_be_drawn(trace: Trace) -> bool:
    """Return whether a phase has a graph that is small enough to draw."""
    return 0 < len(trace.nodes) <= MAX_NODES and trace.phase in (Phase.FORWARD, Phase.BACKWARD)


class GraphView:
    """Draws the graph of one trace."""

    def __init__(self, trace: Trace) -> None:
        self.rows = graph_rows(trace)
        self._trace = trace
        self._row_ops = _row_operations(trace, self.rows)
        self._columns: dict[int, GraphColumns] = {}  # by their width
        self._edge_lines = draw_edges([row.edges for row in self.rows], [row.mark for row in self.rows])
        widest = max((len(row) for row, _ in self._edge_lines), default=0)
        self._edge_cells = [f"{row:<{widest}} " for row, _ in self._edge_lines]
        self._set_width(0)
        self._digits = len(str(len(trace.ops)))

    def _set_width(self, width: int) -> None:
        """Write the names for a drawing in so many columns."""
        limit, tensor_limit = (MAX_WIDE_NAME, MAX_WIDE_NAME) if width >= WIDE else (MAX_NAME, MAX_TENSOR_NAME)
        self._name_cells = _pad(_short_name(row, limit) for row in self.rows)
        self._tensor_cells = _pad(shorten_name(one_line(row.tensor), tensor_limit) for row in self.rows)
        self._width = width

    def rows_wanted(self) -> int:
        """Return the height that shows everything: all rows, a heading and the error."""
        return len(self.rows) + 1 + (self._trace.error is not None)

    def current_rows(self, position: TracePosition) -> list[int]:
        """Return the indices of the rows that show the current operation."""
        return [index for index, op in enumerate(self._row_ops) if op is position.op]

    def moved(self, position: TracePosition, by: int) -> TracePosition:
        """Go to the operation that is drawn `by` rows further down; up for a negative number."""
        current = self.current_rows(position) or [0]
        rows = range(current[-1] + 1, len(self.rows)) if by > 0 else range(current[0] - 1, -1, -1)
        indices = [op.number for row in rows if (op := self._row_ops[row]) is not None]
        return position.at(indices[min(abs(by), len(indices)) - 1]) if indices else position

    def lines(self, position: TracePosition, width: int, height: int) -> list[Line]:
        """Draw as many rows as fit, always with those of the current operation."""
        if width != self._width:
            self._set_width(width)
        current = self.current_rows(position)
        indent = self._digits + 3 + len(self._edge_cells[0]) + len(self._name_cells[0]) + len(self._tensor_cells[0])
        room = width - indent
        if room not in self._columns:
            self._columns[room] = GraphColumns(self._trace, self.rows, self._row_ops, room)
        columns = self._columns[room]
        heading: list[Line] = [[(f"{'':{indent}}{columns.heading}"[:width], "dim")]] if height >= 5 else []
        lines = [
            [*self._left_cells(position, index, index in current), *columns.row(position, index)]
            for index in range(len(self.rows))
        ]
        error = position.trace.error
        error_row: list[Line] = [[(one_line(f"! {error_line(error)}", width), "error")]] if error else []
        return [*heading, *self._fitted(lines, current, height - len(heading) - len(error_row)), *error_row]

    def _fitted(self, lines: list[Line], current: list[int], room: int) -> list[Line]:
        """Return the rows spaced by edges, without spacing, or cut around the current ones, whichever fits."""
        spaced = self._with_edges_between(lines)
        if len(lines) <= room:
            return spaced if len(spaced) <= room else lines
        room = max(room - 1, 1)
        spare = max(room - len(current), 0) // 2
        range_in_sight = range(max(current[0] - spare, 0), current[-1] + 1 + spare) if current else range(0)
        top = scrolled(0, range_in_sight, count=len(lines), room=room)
        return [*lines[top : top + room], more_line(top, top + room, len(lines))]

    def _with_edges_between(self, lines: list[Line]) -> list[Line]:
        """Put rows of edges between the rows, except between an operation and its leaf."""
        spaced: list[Line] = []
        for index, line in enumerate(lines):
            spaced.append(line)
            below = index + 1
            if below < len(lines) and (self.rows[below].edges or not self._edge_cells[below].startswith("│")):
                spaced.append([(f"{'':{self._digits + 3}}{self._edge_lines[index][1]}", "")])
        return spaced

    def _left_cells(self, position: TracePosition, index: int, is_current: bool) -> Line:
        """Return a row's mark, operation number, edges and names."""
        op, row = self._row_ops[index], self.rows[index]
        is_reached = op is not None and op.number <= position.index
        name = self._name_cells[index].rstrip()
        return [
            ("▶ " if is_current else "  ", "accent"),
            (f"{'' if op is None else op.number + 1:>{self._digits}} ", "strong" if is_current else "dim"),
            (self._edge_cells[index], "accent" if is_current else ""),
            (name, "now" if is_current else "strong" if is_reached else "dim" if row.untracked_reason else ""),
            (self._name_cells[index][len(name) :], ""),
            (self._tensor_cells[index], "" if is_reached else "dim"),
        ]


def _short_name(row: GraphRow, limit: int) -> str:
    """Shorten a name: an operation's at its end, a leaf's at its beginning."""
    name = one_line(row.name)
    if len(name) <= limit:
        return name
    return f"{name[: limit - 1]}…" if row.edges else shorten_name(name, limit)


def _pad(texts: Iterable[str]) -> list[str]:
    """Pad texts to one width, a space longer than the longest; empty ones to nothing if all are empty."""
    texts = list(texts)
    longest = max(map(len, texts), default=0)
    return [f"{text:<{longest + 1}}" if longest else "" for text in texts]


def _row_operations(trace: Trace, rows: Sequence[GraphRow]) -> list[Operation | None]:
    """Return each row's operation in the trace; None where the phase has none."""
    if trace.phase is Phase.FORWARD:
        calls = {op.number: op for op in trace.ops}
        return [None if row.call is None else calls.get(row.call) for row in rows]
    node_ops = {op.node: op for op in trace.ops if op.node is not None}
    return [None if row.node is None else node_ops.get(row.node) for row in rows]


class GraphColumns:
    """The two columns beside a graph, `room` characters together: a tensor's value, and its node or gradient."""

    def __init__(self, trace: Trace, rows: Sequence[GraphRow], ops: Sequence[Operation | None], room: int) -> None:
        self._trace, self._rows, self._ops = trace, rows, ops
        self._is_forward = trace.phase is Phase.FORWARD
        values, grads = [row.value for row in rows], [_incoming_gradient(op) for op in ops]
        widest = ValueColumn.of(grads, max(room // 2, 0), norms=True)
        texts = [node.name for node in trace.nodes] if self._is_forward else map(widest.write, grads)
        min_last = max([0, *map(len, texts)])
        self._value = ValueColumn.of(values, max(room - COLUMN_GAP - min_last, (room - COLUMN_GAP) // 2, 0))
        self._value_width = max(5, *(len(self._value.write(value)) for value in values)) + COLUMN_GAP
        self._room = room - self._value_width  # for the last column
        self._grad = ValueColumn.of(grads, max(self._room, 0), norms=True)

    @property
    def heading(self) -> str:
        heading = FORWARD_HEADING if self._is_forward else BACKWARD_HEADING
        return f"{'value':<{self._value_width}}{heading if len(heading) <= self._room else heading.split(':')[0]}"

    def row(self, position: TracePosition, row_index: int) -> Line:
        """Write one row: what lies ahead of the position is left out."""
        row, op = self._rows[row_index], self._ops[row_index]
        is_ahead = self._is_forward and op is not None and op.number > position.index
        text = NOT_REACHED if is_ahead else self._value.write(row.value)
        style = "dim" if is_ahead or row.untracked_reason else "strong" if op is position.op else ""
        value = (f"{text:<{self._value_width}}", style)
        cells = self._node_cell(row, is_ahead) if self._is_forward else self._gradient_cell(position, row, op)
        return [value, *cells]

    def _reason_cell(self, row: GraphRow) -> Line:
        reason = row.untracked_reason
        return [(reason if len(reason) <= self._room else "not followed"[: self._room], "dim")]

    def _node_cell(self, row: GraphRow, is_ahead: bool) -> Line:
        if row.untracked_reason:
            return self._reason_cell(row)
        if row.node is None or row.call is None or is_ahead:
            return []
        return [(self._trace.nodes[row.node].name[: self._room], "up")]

    def _gradient_cell(self, position: TracePosition, row: GraphRow, op: Operation | None) -> Line:
        """Write the gradient, and the `.grad` that it fills, once the position has reached it."""
        if row.untracked_reason:
            return self._reason_cell(row)
        if op is None or op.number > position.index:
            return [(NOT_REACHED, "dim")]
        text, target = self._grad.write(_incoming_gradient(op)), ""
        if op.accumulates_into:
            target = f"  → {op.accumulates_into}.grad" if op.grad_before is None else f"  + {op.accumulates_into}.grad"
        fits = len(text) + len(target) <= self._room
        return [(text, "strong" if op is position.op else "up"), (target if fits else "", "accent")]


def _incoming_gradient(op: Operation | None) -> Value | None:
    """Return the gradient that a node receives; of a node with several outputs, the first one there is."""
    return next((grad for grad in op.grad_in if grad is not None), None) if op else None


@dataclass(frozen=True, slots=True)
class ValueColumn:
    """A column of tensors: small ones as aligned values, where there is room for that, others as shape and norm."""

    room: int  # characters of a tensor
    cell: int  # characters of a value; 0 for no alignment
    norms: bool = False  # whether a norm is written, not a shape, where there is no room for both

    @classmethod
    def of(cls, values: Iterable[Value | None], room: int, *, norms: bool = False) -> ValueColumn:
        """Choose the widths for all tensors that the column will ever have, so that they do not change."""
        numbers = [_small_values(value) for value in values]
        cell = max((len(number(each)) for values in numbers for each in values), default=0)
        width = max(map(len, numbers), default=0) * (cell + CELL_GAP) - CELL_GAP
        return cls(room, cell if width <= room else 0, norms)

    def write(self, value: Value | None) -> str:
        """Write one tensor in at most `room` characters; "" for None."""
        if value is None:
            return ""
        values = _small_values(value)
        if values and self.cell:
            aligned = (" " * CELL_GAP).join(f"{number(each):>{self.cell}}" for each in values)
            dtype = dtype_words(value)
            return aligned + (dtype if len(aligned + dtype) <= self.room else "")
        words, norm = value_words(value, self.room), value.stats.norm
        if self.norms and norm is not None and value.stats.values is None and "norm" not in words:
            norm_text, dtype = f"norm {terse(norm)}", dtype_words(value)
            words = norm_text + dtype if len(norm_text + dtype) <= self.room or dtype not in words else words
        return words[: self.room]


def _small_values(value: Value | None) -> tuple[float, ...]:
    """Return the values of a small tensor; () for a large one."""
    values = value.stats.values if value is not None else None
    return values if values is not None and len(values) <= MAX_ALIGNED else ()


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
