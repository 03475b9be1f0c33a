"""The chain rule at one node: what came in, and what goes to each input."""

from __future__ import annotations

from autograd_tui.engine.values.trace import Op, Trace, Value
from autograd_tui.text.inside.backward import (
    activations,
    arithmetic,
    attention,
    convolution,
    losses,
    normalization,
    pooling,
    powers,
    products,
    reductions,
    shapes,
)
from autograd_tui.text.inside.backward.accumulation import accumulation_lines, is_accumulation
from autograd_tui.text.inside.backward.downstream import downstream_lines
from autograd_tui.text.inside.backward.part import Rule
from autograd_tui.text.inside.backward.scene import Scene
from autograd_tui.text.inside.expression import differential, expression
from autograd_tui.text.inside.overwritten import why_it_raised
from autograd_tui.text.inside.rows import headed, rows
from autograd_tui.text.inside.value_words import dtype_change, value_words
from autograd_tui.text.line import Line, length, one_line, plain
from autograd_tui.text.numbers import terse

FAMILIES = (
    activations,
    arithmetic,
    attention,
    convolution,
    losses,
    normalization,
    pooling,
    powers,
    products,
    reductions,
    shapes,
)
RULES: dict[str, Rule] = {name: rule for family in FAMILIES for name, rule in family.BACKWARD.items()}


def backward_lines(trace: Trace, op: Op, width: int) -> list[Line]:
    """Show upstream x local = downstream."""
    if is_accumulation(op):
        return accumulation_lines(op, width, undone=trace.error is not None)
    scene = Scene(trace, op)
    rule = None if any(map(_complex, op.grad_in)) or any(op.grad_in[1:]) else RULES.get(op.name)
    lines = upstream_lines(scene, width)
    if rule is None and not op.raised:
        said = f"No formula is known here for {one_line(op.name)}: this is what came out of it."
        lines += rows(said, width, style="dim")
    for place in range(len(op.grad_out)):
        lines += downstream_lines(scene, place, rule, width)
    said = dtype_change(op.grad_in, op.grad_out)
    lines += rows(said, width) if said else []
    if op.raised:
        return [*lines, *(line for said in why_it_raised(trace, op) for line in rows(said, width, style="error"))]
    return _freed(scene, lines, width)


def _complex(value: Value | None) -> bool:
    return value is not None and value.stats.dtype.startswith("complex")


def upstream_lines(scene: Scene, width: int) -> list[Line]:
    """Show what came in, and from where."""
    lines: list[Line] = []
    for place, value in enumerate(scene.op.grad_in):
        name = _made(scene, place)
        label = "upstream" + (f" dL/{name}" if name else f" {place + 1}" * (len(scene.op.grad_in) > 1))
        room = width - 2 if value is None or value.stats.values else max(width - len(label) - 2, width // 2)
        lines += headed(label, value_words(value, room), width, style="accent")
    return [*lines, *_senders(scene, width)]


def _made(scene: Scene, place: int) -> str:
    """Name what the upstream is the gradient by; "" for something inside an operation."""
    call = scene.call
    if call is None or not call.nodes or scene.op.node != min(call.nodes) or len(call.output) != 1 or place:
        return ""
    return differential(expression(scene.trace, call.output[0]))


def _senders(scene: Scene, width: int) -> list[Line]:
    """Say where the upstream comes from: the start, or several nodes whose gradients the engine has added."""
    number, nodes = scene.op.node, scene.trace.nodes
    if number is None or len(scene.op.grad_in) != 1:
        return []
    before = [
        (op, place)
        for op in scene.trace.ops[: scene.op.number]
        if op.node is not None
        for place, after in enumerate(nodes[op.node].next)
        if after == number and place < len(op.grad_out) and op.grad_out[place] is not None
    ]
    if not before and scene.upstream and scene.upstream.values == (1.0,):
        return rows("backward starts here: dloss/dloss = 1", width, style="dim", indent="  ")
    if len(before) < 2:
        return []
    sent = " + ".join(_in_short(op.grad_out[place]) for op, place in before)
    names = ", ".join(one_line(op.name) for op, _ in before)
    said = f"used {len(before)} times, so the gradients of each use were added: {sent}, from {names}"
    return rows(said, width, style="dim", indent="  ")


def _in_short(value: Value | None) -> str:
    if value is None or value.stats.values is not None:
        return value_words(value, 200)
    return f"norm {terse(value.stats.norm or 0.0)}"


def _freed(scene: Scene, lines: list[Line], width: int) -> list[Line]:
    """Say that what the node had saved is gone; in few words behind the last row, where they fit."""
    if not (scene.node and scene.node.saved):
        return lines
    short = "   What it had saved is freed now."
    if lines and plain(lines[-1]).startswith("to ") and length(lines[-1]) + len(short) <= width:
        return [*lines[:-1], [*lines[-1], (short, "dim")]]
    said = "What it had saved is freed now: that is why a second backward fails."
    return [*lines, *rows(said, width, style="dim")]
