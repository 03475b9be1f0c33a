"""Where the walk is: the phase, the operation and its module."""

from __future__ import annotations

from autograd_tui.engine.values.command import Phase
from autograd_tui.engine.values.trace import Op, Trace
from autograd_tui.text.inside.walk import Walk
from autograd_tui.text.line import Line, length, one_line, spread
from autograd_tui.text.numbers import count
from autograd_tui.text.status import marked

SHORT, LONG = "─▶ ", "──────▶ "
ROOMY = 100  # columns, from which on the arrows are long


def where_lines(walk: Walk, width: int, *, unkept: str = "") -> list[Line]:
    """Write the phases, that of the trace lit, over the operation at hand; and in front that the run is `unkept`."""
    trace = walk.trace
    right: Line = [(f"iteration {trace.iteration}   ", ""), (f"inside frame {trace.index} ", "accent")]
    left = [*marked(unkept), *_phases(trace, LONG if width >= ROOMY else SHORT)]
    return [spread(left, right, width), _operation(walk, width)]


def _phases(trace: Trace, arrow: str) -> Line:
    line: Line = [(" ", "")]
    for phase in Phase:
        here = phase is trace.phase
        line.append((f"▌{phase.value.upper()}▐" if here else f" {phase.value} ", "now" if here else "dim"))
        if phase is not Phase.ZERO_GRAD:
            line.append((arrow, "dim"))
    return line


def _operation(walk: Walk, width: int) -> Line:
    op, places = walk.op, len(walk.trace.ops)
    unit = "operation" if walk.trace.phase in (Phase.FORWARD, Phase.BACKWARD) else "parameter"
    line: Line = [(f" {unit} {count(op.number + 1)} of {count(places)}  ", "accent"), (one_line(op.name), "strong")]
    for told in (_made_by(walk.trace, op), f"  in {op.module}" if op.module else ""):
        if length(line) + len(told) < width:
            line.append((one_line(told) and f"  {one_line(told)}", ""))
    return line


def _made_by(trace: Trace, op: Op) -> str:
    """Say what created a node, or what it fills."""
    if op.accumulates_into is not None:
        return (
            f"  fills {op.accumulates_into}.grad" if op.grad_before is None else f"  adds to {op.accumulates_into}.grad"
        )
    if op.made_by is None or trace.forward is None or op.made_by >= len(trace.forward.ops):
        return ""
    return f"  made by {trace.forward.ops[op.made_by].name} {op.made_by + 1} of the forward"
