"""Why an operation of a backward could not run: what it had kept was changed in place, or freed."""

from __future__ import annotations

from collections.abc import Iterator

from autograd_tui.core.trace import InplaceHazard, Node, Operation, Trace
from autograd_tui.text.styled_text import one_line
from autograd_tui.text.trace.tensor_words import kept_name, op_name

AGAIN = "a second time"  # of PyTorch's own words
MOST = 3  # lines that are named


def overwritten(forward: Trace) -> Iterator[str]:
    """Name what was changed though a node keeps it for its backward, and by which line."""
    for node in forward.nodes:
        for each in node.overwritten:
            yield f"{_said(forward, node, each)} {one_line(node.name)} keeps it as it was: its backward will raise."


def why_it_raised(trace: Trace, op: Operation) -> list[str]:
    """Say why an operation of a backward could not run; nothing where what PyTorch raised says all that is known."""
    node = trace.nodes[op.node] if op.raised and op.node is not None else None
    if node is None:
        return []
    if trace.error is not None and AGAIN in trace.error.message:
        return ["What it had saved was freed by the backward before: that is why this one fails."]
    return [_said(trace, node, each) for each in node.overwritten]


def _said(trace: Trace, node: Node, what: InplaceHazard) -> str:
    kept = f"{kept_name(trace, node, what.value)} was kept at version {what.value.version}"
    if not what.changed_by:
        who = (
            f"{one_line(what.mover)} changed it after the forward" if what.mover else "it was changed after the forward"
        )
        return f"{kept}; {who}: version {what.version}."
    lines: dict[tuple[str, int], str] = {}  # a line with several operations, as h[0] += 1, is named by the first
    for place in what.changed_by:
        source = (trace.forward or trace).ops[place].source
        at = ("", place) if source is None else (source.file, source.line)
        lines.setdefault(at, op_name(trace, place) + (f" (line {source.line})" if source else ""))
    more = " and more" * (len(lines) > MOST)
    return f"{kept}; {', '.join([*lines.values()][:MOST])}{more} changed it: version {what.version}."
