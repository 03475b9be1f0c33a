"""The chain rule at one node: what came in, and what goes to each input."""

from __future__ import annotations

from autograd_tui.engine.trace import Op, Trace, Value
from autograd_tui.text.inside import (
    activations,
    arithmetic,
    convolution,
    losses,
    normalization,
    pooling,
    products,
    reductions,
    shapes,
)
from autograd_tui.text.inside.accumulation import accumulation_lines, is_accumulation
from autograd_tui.text.inside.downstream import downstream_lines
from autograd_tui.text.inside.expression import differential, expression
from autograd_tui.text.inside.part import Rule
from autograd_tui.text.inside.rows import headed, rows
from autograd_tui.text.inside.scene import Scene
from autograd_tui.text.inside.value_words import value_words
from autograd_tui.text.line import Line, one_line

FAMILIES = (
    arithmetic,
    reductions,
    products,
    activations,
    losses,
    convolution,
    normalization,
    pooling,
    shapes,
)
RULES: dict[str, Rule] = {name: rule for family in FAMILIES for name, rule in family.BACKWARD.items()}


def backward_lines(trace: Trace, op: Op, width: int) -> list[Line]:
    """Show upstream x local = downstream."""
    if is_accumulation(op):
        return accumulation_lines(trace, op, width)
    scene = Scene(trace, op)
    rule = None if any(map(_complex, op.grad_in)) or len(op.grad_in) > 1 else RULES.get(op.name)
    lines = upstream_lines(scene, width)
    if rule is None:
        said = f"No formula is known here for {one_line(op.name)}: this is what came out of it."
        lines += rows(said, width, style="dim")
    for place in range(len(op.grad_out)):
        lines += downstream_lines(scene, place, rule, width)
    return [*lines, *_freed(scene, width)]


def _complex(value: Value | None) -> bool:
    return value is not None and value.stats.dtype.startswith("complex")


def upstream_lines(scene: Scene, width: int) -> list[Line]:
    """Show what came in, and from where."""
    lines: list[Line] = []
    for place, value in enumerate(scene.op.grad_in):
        name = _made(scene, place)
        label = f"upstream{f' dL/{name}' if name else ''}"
        lines += headed(label, value_words(value, max(width - len(label) - 2, width // 2)), width, style="accent")
    return [*lines, *_senders(scene, width)]


def _made(scene: Scene, place: int) -> str:
    """Name what the upstream is the gradient by; "" for something inside an operation."""
    call = scene.call
    if call is None or not call.nodes or scene.op.node != min(call.nodes) or place >= len(call.output):
        return ""
    return differential(expression(scene.trace, call.output[place]))


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
    sent = " + ".join(value_words(op.grad_out[place], width // len(before)) for op, place in before)
    names = ", ".join(one_line(op.name) for op, _ in before)
    said = f"used {len(before)} times, so the gradients of each use were added: {sent}, from {names}"
    return rows(said, width, style="dim", indent="  ")


def _freed(scene: Scene, width: int) -> list[Line]:
    """Say that what the node had saved is gone."""
    if not (scene.node and scene.node.saved):
        return []
    said = "What it had saved is freed now: that is why a second backward fails."
    return rows(said, width, style="dim")
