"""Tensors that a node had kept for its backward, and that were changed in place afterwards."""

from __future__ import annotations

from collections.abc import Iterator

from autograd_tui.engine.values.trace import Node, Op, Trace, Value
from autograd_tui.text.inside.value_words import name_of
from autograd_tui.text.line import one_line


def overwritten(forward: Trace) -> Iterator[tuple[str, str]]:
    """Name each such change: its backward raises, since the version counter no longer fits."""
    kept: dict[tuple[object, ...], list[tuple[Node, Value]]] = {}
    for node in forward.nodes:
        for value in node.saved or ():
            kept.setdefault(_state(value), []).append((node, value))
    for op in forward.ops:
        changed = op.inputs[0] if op.mutates and op.inputs else None
        if changed is None or not (changed.name or changed.maker is not None):
            continue
        for node, value in kept.get(_state(changed), ()):
            if node.op is not None and node.op < op.number and value.stats == changed.stats:
                yield _said(forward, op, changed, node.name), "error"


def _state(value: Value) -> tuple[object, ...]:
    """Tell a tensor at one moment from others: by its name, who made it, and how often it had been changed."""
    return value.name, value.maker, value.version, value.stats.shape


def _said(forward: Trace, op: Op, changed: Value, node: str) -> str:
    name = name_of(forward, changed)
    return (
        f"{one_line(op.name)} {op.number + 1} changed {name} in place (version {changed.version} before it), "
        f"which {one_line(node)} keeps as it was: its backward raises."
    )
