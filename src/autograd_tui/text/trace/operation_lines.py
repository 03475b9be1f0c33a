"""Describes one operation: its source lines, its inputs and outputs, and what its nodes saved; or all of a trace."""

from __future__ import annotations

import linecache
from collections.abc import Sequence
from pathlib import PurePath
from textwrap import dedent

from autograd_tui.core.command import Phase
from autograd_tui.core.errors import clipped
from autograd_tui.core.trace import Node, Operation, Source, Trace, Value
from autograd_tui.text.equation import wrapped_rows
from autograd_tui.text.styled_text import Line, justified, one_line, printable
from autograd_tui.text.trace.health import is_second_backward, why_it_raised
from autograd_tui.text.trace.tensor_words import name_of, op_name, saved_name, value_words
from autograd_tui.text.trace.trace_position import TracePosition

MIN_STEADY_HEIGHT = 8  # rows; from here on, source lines scroll by half the height
LABEL_WIDTH = 9  # characters, with the space after a label
MAX_LISTED_NODES = 4  # of one operation; of more nodes, those without saved tensors are only counted
MIN_COLUMN_WIDTH = 40  # of the panel, in characters, for labels in a column of their own
MAX_VALUE_WIDTH = 48  # characters, for one tensor in `trace_lines`


def operation_lines(trace: Trace, op: Operation, width: int) -> list[Line]:
    """Describe an operation of any phase, a row or more for each tensor."""
    lines = [*_title_rows(trace, op, width), *_source_rows(op, width)]
    if trace.phase is Phase.BACKWARD:
        return [*lines, *_backward_rows(trace, op, width)]
    input_label, output_label = ("before", "after") if trace.is_by_parameter else ("from", "to")
    for label, values in ((input_label, op.inputs), (output_label, op.output)):
        for index, value in enumerate(values):
            lines += _labelled_rows(label, _tensor_words(trace, value, width), width, continued=index > 0)
    if op.settings:
        settings = ", ".join(f"{one_line(name) or 'argument'} {one_line(value)}" for name, value in op.settings)
        lines += _labelled_rows("settings", settings, width)
    if op.raised:
        lines += _labelled_rows("to", "nothing: it raised", width)
    lines += _graph_rows(trace, op, width)
    if op.dead is not None:
        lines += _labelled_rows("dead", f"{op.dead[0]} of {op.dead[1]} units are 0 for the whole batch", width)
    return lines


def _title_rows(trace: Trace, op: Operation, width: int) -> list[Line]:
    kind = {Phase.FORWARD: "operation", Phase.BACKWARD: "node"}.get(trace.phase, "parameter")
    name, rest = one_line(op.name), f"{kind} {op.number + 1} of {len(trace.ops)}"
    module = f" · in {one_line(op.module)}" if op.module and not trace.is_by_parameter else ""
    line = f"{name} · {rest}{module}"
    if len(line) <= width:
        return [[(name, "strong"), (line.removeprefix(name), "dim")]]
    return [*wrapped_rows(name, width, style="strong"), *wrapped_rows(f"{rest}{module}", width, style="dim")]


def _source_rows(op: Operation, width: int) -> list[Line]:
    if op.source is None:
        return []
    file_and_line = f"{one_line(op.source.file.replace(chr(92), '/').rpartition('/')[2])}:{op.source.line}"
    return _labelled_rows("line", f"{file_and_line}  {one_line(op.source.text)}", width)


def _backward_rows(trace: Trace, op: Operation, width: int) -> list[Line]:
    lines: list[Line] = []
    if op.made_by is not None and trace.forward is not None:
        lines += _labelled_rows("made by", f"{op_name(trace, op.made_by)} of the forward", width)
    for index, value in enumerate(op.grad_in):
        lines += _labelled_rows("came in", value_words(value, width - LABEL_WIDTH), width, continued=index > 0)
    node = trace.node_of(op)
    for index, value in enumerate(op.grad_out):
        words = _outgoing_words(trace, node, index, value, width)
        lines += _labelled_rows("went out", words, width, continued=index > 0)
    if op.is_accumulation:
        target = f"{one_line(op.accumulates_into)}.grad" if op.accumulates_into else "the .grad of a leaf"
        lines += _labelled_rows("fills", target, width)
    state = _saved_state(trace, op)
    return [*lines, *_node_rows(trace, node, width, fate=state, has_name=False)] if node else lines


def _saved_state(trace: Trace, op: Operation) -> str:
    """Return what became of a node's saved tensors once the backward reached it."""
    if not op.raised:
        return "freed: it has run"
    return "freed by the backward before" if is_second_backward(trace) else "not freed: it could not run"


def _outgoing_words(trace: Trace, node: Node | None, index: int, value: Value | None, width: int) -> str:
    next_node = node.next[index] if node and index < len(node.next) else None
    to = f"  to {_target_name(trace.nodes[next_node])}" if next_node is not None else ""
    return f"{value_words(value, max(width - LABEL_WIDTH - len(to), 16))}{to}"


def _target_name(node: Node) -> str:
    return one_line(node.param or "a leaf") if node.param is not None else one_line(node.name)


def _graph_rows(trace: Trace, op: Operation, width: int) -> list[Line]:
    """Describe the autograd nodes that a call made; of many, those that saved tensors."""
    nodes = [trace.nodes[number] for number in op.nodes]
    listed = nodes if len(nodes) <= MAX_LISTED_NODES else [node for node in nodes if node.saved or node.saved is None]
    lines = [line for node in listed for line in _node_rows(trace, node, width, fate="")]
    other_count = len(nodes) - len(listed)
    if other_count:
        lines += _labelled_rows("", f"{other_count} more nodes keep no tensor", width, continued=True)
    return lines


def _node_rows(trace: Trace, node: Node, width: int, *, fate: str, has_name: bool = True) -> list[Line]:
    """Describe a node's saved tensors. `fate` says what became of them, "" before its backward."""
    name = f"{one_line(node.name)} " if has_name else ""
    if node.param is not None:
        return []
    if node.saved is None:
        return _labelled_rows("graph", f"{name}keeps what is not known", width)
    if not node.saved:
        return _labelled_rows("graph", f"{name}keeps no tensor", width)
    words = f"{name}{'kept' if fate else 'keeps'}, {fate or 'alive until its backward'}:"
    lines = _labelled_rows("graph", words, width)
    for value in node.saved:
        words = _tensor_words(trace, value, width, name=saved_name(trace, node, value))
        lines += _labelled_rows("", words + _buffer_note(trace, node, value), width, continued=True)
    return lines


def _buffer_note(trace: Trace, node: Node, value: Value) -> str:
    """Return a note where a call changed a tensor that its node saved, as batch norm changes its buffers."""
    call = trace.forward_ops[node.op] if node.op is not None else None
    before = next((each for each in call.inputs if each.name and each.name == value.name), None) if call else None
    return ", as this call has left it" if before is not None and before.stats != value.stats else ""


def _tensor_words(trace: Trace, value: Value, width: int, *, name: str = "") -> str:
    """Write a tensor's name and values, in one row where there is room."""
    is_updated = bool(value.role) and trace.is_by_parameter
    hides_role = bool(name) or is_updated or value.role in ("", "self", "other", "grad")
    name = name or (one_line(value.role) if is_updated else name_of(trace, value))
    role = "" if hides_role or name.endswith(value.role) else f" as {one_line(value.role)}"
    head = f"{name}{role}  "
    return head + value_words(value, max(width - LABEL_WIDTH - len(head), 16))


def _labelled_rows(label: str, text: str, width: int, *, continued: bool = False) -> list[Line]:
    """Return a text behind a label; where it is `continued`, under the label of the row before."""
    if width < MIN_COLUMN_WIDTH:
        return wrapped_rows(f"{label} {text}", width)
    wrapped = wrapped_rows(text, width - LABEL_WIDTH)
    label_cell = [(" " * LABEL_WIDTH if continued else f"{label:<{LABEL_WIDTH}}", "dim")]
    return [(label_cell if row == 0 else [(" " * LABEL_WIDTH, "")]) + line for row, line in enumerate(wrapped)]


def source_lines(position: TracePosition, listing: Sequence[str], width: int, height: int) -> list[Line]:
    """Return the source lines around an operation, its own highlighted; without a source, the lines of `listing`."""
    source = position.op.source
    if source is None:
        return [[("▶ ", "accent"), (clipped(printable(line), width - 2), "strong")] for line in listing[:height]]
    if height < 2:
        file_and_line = f"{PurePath(source.file).name}:{source.line} "
        code = clipped(printable(source.text), width - 2)
        return [justified([("▶ ", "accent"), (code, "strong")], [(file_and_line, "dim")], width)]
    return _file_lines(source, width, height)


def _file_lines(source: Source, width: int, height: int) -> list[Line]:
    """Return lines of the file; only the traced one where the file has changed since."""
    file_lines = linecache.getlines(source.file)
    if not 0 < source.line <= len(file_lines) or file_lines[source.line - 1].strip() != source.text:
        return [[("▶ ", "accent"), (f"{source.line}  ", "dim"), (clipped(printable(source.text), width - 8), "now")]]
    first = max(min(_first_visible(source.line - 1, height), len(file_lines) - height), 0)
    digits = len(str(first + height))
    texts = dedent("".join(file_lines[first : first + height])).splitlines()
    lines: list[Line] = []
    for number, text in enumerate(texts, first + 1):
        is_current = number == source.line
        code = clipped(printable(text.rstrip()), width - digits - 4)
        mark, style = ("▶ ", "now") if is_current else ("  ", "")
        lines.append([(mark, "accent"), (f"{number:>{digits}}  ", "dim"), (code, style)])
    return lines


def _first_visible(index: int, height: int) -> int:
    """Return the index of the first line to show. Nearby lines share it, so that a key repaints little."""
    if height < MIN_STEADY_HEIGHT:
        return index - (height - 1) // 2
    half = height // 2
    return index // half * half - half // 2


def trace_lines(trace: Trace) -> list[str]:
    """Return a line for each operation with its inputs and outputs, and then the notes about the recording."""
    lines = [f"{op.number + 1:>10}  {op.name:<24}  {_change_words(trace, op)}{_module_words(op)}" for op in trace.ops]
    return [printable(line) for line in (*lines, *(f"{'':>10}  {note}" for note in trace.notes))]


def _change_words(trace: Trace, op: Operation) -> str:
    if op.accumulates_into:
        reverted = ", then taken back" if trace.error and op.grad_after is not None else ""
        before, after = (value_words(grad, MAX_VALUE_WIDTH) for grad in (op.grad_before, op.grad_after))
        return f"{op.accumulates_into}.grad  {before} -> {after}{reverted}"
    if op.raised and trace.phase is Phase.BACKWARD:
        return " ".join((f"{_values_words(op.grad_in)} -> raised.", *why_it_raised(trace, op)))
    if op.grad_in or op.grad_out:
        return f"{_values_words(op.grad_in)} -> {_values_words(op.grad_out)}"
    inputs = ", ".join(f"{name_of(trace, value)} {value_words(value, MAX_VALUE_WIDTH)}" for value in op.inputs)
    if op.raised:
        return f"{inputs or 'None'} -> raised"
    outputs = op.output if trace.phase is not Phase.STEP else tuple(each for each in op.output if each.role != "grad")
    return f"{inputs or 'None'} -> {_values_words(outputs) or 'None'}"


def _values_words(values: tuple[Value | None, ...]) -> str:
    return ", ".join(value_words(value, MAX_VALUE_WIDTH) for value in values)


def _module_words(op: Operation) -> str:
    return f"  in {op.module}" if op.module and op.module != op.name.rpartition(".")[0] else ""
