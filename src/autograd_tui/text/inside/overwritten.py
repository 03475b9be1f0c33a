"""Tensors that a node had kept for its backward, and that were changed in place afterwards."""

from __future__ import annotations

from collections.abc import Iterator

from autograd_tui.engine.trace import Op, Trace, Value
from autograd_tui.text.inside.value_words import name_of
from autograd_tui.text.line import one_line


def overwritten(forward: Trace) -> Iterator[tuple[str, str]]:
    """Name each such change: its backward raises, since the version counter no longer fits."""
    for op in forward.ops:
        if not (op.mutates and op.inputs):
            continue
        changed = op.inputs[0]
        for node in forward.nodes:
            before = node.op is not None and node.op < op.number
            if before and any(_same(changed, value) for value in node.saved or ()):
                yield _said(forward, op, changed, node.name), "error"


def _same(changed: Value, saved: Value) -> bool:
    """Tell whether what was changed is what was kept, as it was kept."""
    alike = changed.maker == saved.maker and changed.name == saved.name and changed.version == saved.version
    return alike and changed.stats == saved.stats and (bool(changed.name) or changed.maker is not None)


def _said(forward: Trace, op: Op, changed: Value, node: str) -> str:
    name = name_of(forward, changed)
    return (
        f"{one_line(op.name)} {op.number + 1} changed {name} in place (version {changed.version} before it), "
        f"which {one_line(node)} keeps as it was: its backward raises."
    )
