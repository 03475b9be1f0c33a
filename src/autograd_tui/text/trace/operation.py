"""One operation in full: its source lines, what went in and came out, and what its nodes saved."""

from __future__ import annotations

import linecache
from collections.abc import Sequence
from pathlib import PurePath
from textwrap import dedent

from autograd_tui.core.command import Phase
from autograd_tui.core.trace import Node, Operation, Source, Trace, Value
from autograd_tui.text.derivation.backward_lines import is_accumulation
from autograd_tui.text.equation import rows
from autograd_tui.text.styled_text import Line, one_line, printable, spread
from autograd_tui.text.trace.inplace_hazards import SECOND_BACKWARD, why_it_raised
from autograd_tui.text.trace.tensor_words import kept_name, name_of, op_name, value_words
from autograd_tui.text.trace.walk import Walk

ROOMY = 8  # rows, from which on lines stay where they are


def source_lines(walk: Walk, listing: Sequence[str], width: int, height: int) -> list[Line]:
    """Give as many lines as fit, that of the operation lit; without a source of its own, the phase's in `listing`."""
    source = walk.op.source
    if source is None:
        return [[("▶ ", "accent"), (printable(code)[: width - 2], "strong")] for code in listing[:height]]
    if height < 2:
        named = f"{PurePath(source.file).name}:{source.line} "
        return [spread([("▶ ", "accent"), (printable(source.text), "strong")], [(named, "dim")], width)]
    return _around(source, width, height)


def _first(place: int, height: int) -> int:
    """Give the line to begin with: the same for lines near each other, so that a key repaints little."""
    if height < ROOMY:
        return place - (height - 1) // 2
    half = height // 2
    return place // half * half - half // 2


def _around(source: Source, width: int, height: int) -> list[Line]:
    """Read the file again; where it no longer holds that line, that line alone is shown."""
    code = linecache.getlines(source.file)
    if not 0 < source.line <= len(code) or code[source.line - 1].strip() != source.text:
        return [[("▶ ", "accent"), (f"{source.line}  ", "dim"), (printable(source.text)[: width - 8], "now")]]
    first = max(min(_first(source.line - 1, height), len(code) - height), 0)
    digits = len(str(first + height))
    shown = dedent("".join(code[first : first + height])).splitlines()
    rows: list[Line] = []
    for place, text in enumerate(shown, first + 1):
        here = place == source.line
        line = printable(text.rstrip())[: width - digits - 4]
        rows.append(
            [("▶ " if here else "  ", "accent"), (f"{place:>{digits}}  ", "dim"), (line, "now" if here else "")]
        )
    return rows


LABEL = 9  # characters, blank included
FEW = 4  # nodes of one operation that are all named
WIDE = 40  # characters from which labels stand in a column of their own


def operation_lines(trace: Trace, op: Operation, width: int) -> list[Line]:
    """Describe an operation of any phase."""
    lines = [*_title(trace, op, width), *_source(op, width)]
    if trace.phase is Phase.BACKWARD:
        return [*lines, *_backward(trace, op, width)]
    for place, value in enumerate(op.inputs):
        lines += _labelled(
            "before" if _is_step(trace) else "from", _tensor(trace, value, width), width, again=place > 0
        )
    for place, value in enumerate(op.output):
        lines += _labelled("after" if _is_step(trace) else "to", _tensor(trace, value, width), width, again=place > 0)
    if op.settings:
        written = ", ".join(f"{one_line(name) or 'argument'} {one_line(value)}" for name, value in op.settings)
        lines += _labelled("settings", written, width)
    if op.raised:
        lines += _labelled("to", "nothing: it raised", width)
    lines += _graph(trace, op, width)
    if op.dead is not None:
        lines += _labelled("dead", f"{op.dead[0]} of {op.dead[1]} units are 0 for the whole batch", width)
    return lines


def _graph(trace: Trace, op: Operation, width: int) -> list[Line]:
    """Name the nodes that a call left; of many, those that keep something."""
    nodes = [trace.nodes[number] for number in op.nodes]
    shown = nodes if len(nodes) <= FEW else [node for node in nodes if node.saved or node.saved is None]
    lines = [line for node in shown for line in _node(trace, node, width, freed="")]
    others = len(nodes) - len(shown)
    return [*lines, *_labelled("", f"{others} more nodes keep no tensor", width, again=True)] if others else lines


def _is_step(trace: Trace) -> bool:
    return trace.phase in (Phase.STEP, Phase.ZERO_GRAD)


def _title(trace: Trace, op: Operation, width: int) -> list[Line]:
    kind = {Phase.FORWARD: "operation", Phase.BACKWARD: "node"}.get(trace.phase, "parameter")
    name, rest = one_line(op.name), f"{kind} {op.number + 1} of {len(trace.ops)}"
    module = f" · in {one_line(op.module)}" if op.module and not _is_step(trace) else ""
    line = f"{name} · {rest}{module}"
    if len(line) <= width:
        return [[(name, "strong"), (line.removeprefix(name), "dim")]]
    return [*rows(name, width, style="strong"), *rows(f"{rest}{module}", width, style="dim")]


def _source(op: Operation, width: int) -> list[Line]:
    if op.source is None:
        return []
    where = f"{one_line(op.source.file.replace(chr(92), '/').rpartition('/')[2])}:{op.source.line}"
    return _labelled("line", f"{where}  {one_line(op.source.text)}", width)


def _labelled(label: str, text: str, width: int, *, again: bool = False) -> list[Line]:
    """Write a label and a text behind it; `again`: under the same label as the row before."""
    if width < WIDE:
        return rows(f"{label} {text}", width)
    broken = rows(text, width - LABEL)
    first = [(" " * LABEL if again else f"{label:<{LABEL}}", "dim")]
    return [(first if row == 0 else [(" " * LABEL, "")]) + line for row, line in enumerate(broken)]


def _tensor(trace: Trace, value: Value, width: int, *, name: str = "") -> str:
    """Write a tensor's name and numbers, in one row where there is room."""
    stepped = bool(value.role) and _is_step(trace)
    plain = bool(name) or stepped or value.role in ("", "self", "other", "grad")
    name = name or (one_line(value.role) if stepped else name_of(trace, value))
    role = "" if plain or name.endswith(value.role) else f" as {one_line(value.role)}"
    head = f"{name}{role}  "
    return head + value_words(value, max(width - LABEL - len(head), 16))


def _backward(trace: Trace, op: Operation, width: int) -> list[Line]:
    lines: list[Line] = []
    if op.made_by is not None and trace.forward is not None:
        lines += _labelled("made by", f"{op_name(trace, op.made_by)} of the forward", width)
    for place, value in enumerate(op.grad_in):
        lines += _labelled("came in", value_words(value, width - LABEL), width, again=place > 0)
    node = trace.nodes[op.node] if op.node is not None else None
    for place, value in enumerate(op.grad_out):
        lines += _labelled("went out", _sent(trace, node, place, value, width), width, again=place > 0)
    if is_accumulation(op):
        into = f"{one_line(op.accumulates_into)}.grad" if op.accumulates_into else "the .grad of a leaf"
        lines += _labelled("fills", into, width)
    state = _state_of(trace, op)
    return [*lines, *_node(trace, node, width, freed=state, named=False)] if node else lines


def _state_of(trace: Trace, op: Operation) -> str:
    """Say what has become of what a node had kept, once its turn has come."""
    if not op.raised:
        return "freed: it has run"
    again = trace.error is not None and SECOND_BACKWARD in trace.error.message
    return "freed by the backward before" if again else "not freed: it could not run"


def _sent(trace: Trace, node: Node | None, place: int, value: Value | None, width: int) -> str:
    after = node.next[place] if node and place < len(node.next) else None
    to = f"  to {_goal(trace, trace.nodes[after])}" if after is not None else ""
    return f"{value_words(value, max(width - LABEL - len(to), 16))}{to}"


def _goal(trace: Trace, node: Node) -> str:
    return one_line(node.param or "a leaf") if node.param is not None else one_line(node.name)


def _node(trace: Trace, node: Node, width: int, *, freed: str, named: bool = True) -> list[Line]:
    """Say what a node keeps, and what has become of it: `freed` in words, "" where its backward has not come yet."""
    name = f"{one_line(node.name)} " if named else ""
    if node.param is not None:
        return []
    if node.saved is None:
        return _labelled("graph", f"{name}keeps what is not known", width)
    if not node.saved:
        return _labelled("graph", f"{name}keeps no tensor", width)
    lines = _labelled("graph", f"{name}{'kept' if freed else 'keeps'}, {freed or 'alive until its backward'}:", width)
    for value in node.saved:
        words = _tensor(trace, value, width, name=kept_name(trace, node, value)) + _renewed(trace, node, value)
        lines += _labelled("", words, width, again=True)
    return lines


def _renewed(trace: Trace, node: Node, value: Value) -> str:
    """Say that a call has put new numbers into what its node keeps, as batch norm does into its buffers."""
    call = (trace.forward or trace).ops[node.op] if node.op is not None else None
    before = next((each for each in call.inputs if each.name and each.name == value.name), None) if call else None
    return ", as this call has left it" if before is not None and before.stats != value.stats else ""


WIDTH = 48  # columns for one tensor's values


def trace_lines(trace: Trace) -> list[str]:
    """Write what each operation was given and what came of it; notes about the recording stand last."""
    lines = [f"{op.number + 1:>10}  {op.name:<24}  {_what(trace, op)}{_where(op)}" for op in trace.ops]
    return [printable(line) for line in (*lines, *(f"{'':>10}  {note}" for note in trace.notes))]


def _what(trace: Trace, op: Operation) -> str:
    if op.accumulates_into:
        undone = ", then taken back" if trace.error and op.grad_after is not None else ""
        return f"{op.accumulates_into}.grad  {_values((op.grad_before,))} -> {_values((op.grad_after,))}{undone}"
    if op.raised and trace.phase is Phase.BACKWARD:
        return " ".join((f"{_values(op.grad_in)} -> raised.", *why_it_raised(trace, op)))
    if op.grad_in or op.grad_out:
        return f"{_values(op.grad_in)} -> {_values(op.grad_out)}"
    given = ", ".join(f"{name_of(trace, value)} {value_words(value, WIDTH)}" for value in op.inputs)
    if op.raised:
        return f"{given or 'None'} -> raised"
    made = op.output if trace.phase is not Phase.STEP else tuple(each for each in op.output if each.role != "grad")
    return f"{given or 'None'} -> {_values(made) or 'None'}"


def _values(values: tuple[Value | None, ...]) -> str:
    return ", ".join(value_words(value, WIDTH) for value in values)


def _where(op: Operation) -> str:
    return f"  in {op.module}" if op.module and op.module != op.name.rpartition(".")[0] else ""
