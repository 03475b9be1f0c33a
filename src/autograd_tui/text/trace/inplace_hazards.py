"""Why a node of a backward cannot run: a tensor that it saved was changed in place, or freed."""

from __future__ import annotations

from collections.abc import Iterator

from autograd_tui.core.trace import InplaceHazard, Node, Operation, Trace
from autograd_tui.text.styled_text import one_line
from autograd_tui.text.trace.tensor_words import op_name, saved_name

SECOND_BACKWARD = "a second time"  # in PyTorch's message
MAX_LISTED_LINES = 3  # of code, in one sentence


def inplace_hazards(forward: Trace) -> Iterator[str]:
    """Yield a sentence for each saved tensor that was changed in place, with the lines that changed it."""
    for node in forward.nodes:
        for hazard in node.inplace_hazards:
            name = one_line(node.name)
            yield f"{_hazard_sentence(forward, node, hazard)} {name} keeps it as it was: its backward will raise."


def why_it_raised(trace: Trace, op: Operation) -> list[str]:
    """Return sentences that say why a node raised; none where PyTorch's message says all that is known."""
    node = trace.nodes[op.node] if op.raised and op.node is not None else None
    if node is None:
        return []
    if trace.error is not None and SECOND_BACKWARD in trace.error.message:
        return ["What it had saved was freed by the backward before: that is why this one fails."]
    return [_hazard_sentence(trace, node, hazard) for hazard in node.inplace_hazards]


def _hazard_sentence(trace: Trace, node: Node, hazard: InplaceHazard) -> str:
    saved = f"{saved_name(trace, node, hazard.value)} was kept at version {hazard.value.version}"
    if not hazard.changed_by:
        change = f"{one_line(hazard.command)} changed it" if hazard.command else "it was changed"
        return f"{saved}; {change} after the forward: version {hazard.version}."
    lines: dict[tuple[str, int], str] = {}  # a line with several operations, as h[0] += 1, is named by the first
    for index in hazard.changed_by:
        source = trace.forward_ops[index].source
        position = ("", index) if source is None else (source.file, source.line)
        lines.setdefault(position, op_name(trace, index) + (f" (line {source.line})" if source else ""))
    more = " and more" * (len(lines) > MAX_LISTED_LINES)
    return f"{saved}; {', '.join([*lines.values()][:MAX_LISTED_LINES])}{more} changed it: version {hazard.version}."
