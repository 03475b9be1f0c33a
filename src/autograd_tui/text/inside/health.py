"""What is wrong inside a phase: NaN and infinity, dead units, gradients that vanish or explode, changes in place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from autograd_tui.engine.values.command import Phase
from autograd_tui.engine.values.trace import Op, Trace, Value
from autograd_tui.text.inside.gradients import gradient_sentences
from autograd_tui.text.inside.overwritten import overwritten
from autograd_tui.text.inside.rows import rows
from autograd_tui.text.inside.value_words import name_of
from autograd_tui.text.line import Line, one_line
from autograd_tui.text.numbers import count

MOST = 3  # cases of one kind that are named
MANY_DEAD = 0.5  # share of a layer's units from which it is worth a warning


def first_trouble(trace: Trace) -> int | None:
    """Find the place of the first operation out of which NaN or infinity came."""
    return next((op.number for op in trace.ops if any(_is_wrong(trace, op, value) for value in _went(op))), None)


def _is_wrong(trace: Trace, maker: Op | None, value: Value) -> bool:
    """Tell whether a tensor has NaN or infinity, and is no mask: -inf alone, made apart from the graph."""
    stats, apart = value.stats, trace.phase is Phase.FORWARD and maker is not None and not maker.nodes
    numbers = [each for each in (stats.min, stats.max) if each is not None]
    masks = apart and -math.inf in numbers and all(each < math.inf for each in numbers)
    return bool(value.nonfinite) and not masks


def health_lines(trace: Trace, width: int = 80) -> list[Line]:
    """Say what is wrong in this phase, the worst first; nothing where nothing is."""
    sentences = [*_nonfinite(trace), *overwritten(trace.forward or trace)]
    if trace.phase is Phase.FORWARD:
        sentences += _dead(trace)
    if trace.phase is Phase.BACKWARD:
        sentences += gradient_sentences(trace)
    return [line for sentence, style in sentences for line in rows(sentence, width, style=style)]


def _nonfinite(trace: Trace) -> Iterator[tuple[str, str]]:
    place = first_trouble(trace)
    if place is None:
        return
    op = trace.ops[place]
    came, went = _came(op), _went(op)
    wrong = next(value for value in went if _is_wrong(trace, op, value))
    where = f" in {one_line(op.module)}" if op.module and trace.phase is not Phase.STEP else ""
    said = (
        f"First {kind_of(wrong)}: {_amount(wrong)} out of {one_line(op.name)}{where}, {place + 1} of {len(trace.ops)}. "
    )
    ill = [value for value in came if _is_wrong(trace, _maker(trace, value), value)]
    if ill:
        had = ", ".join(f"{_called(trace, value)} ({_amount(value)})" for value in ill[:MOST])
        yield f"{said}It was already in what went in: {had}.", "error"
    elif came:
        yield f"{said}Everything that went in was finite: it was made here.", "error"
    else:
        yield f"{said}What went in is not known.", "error"


def _maker(trace: Trace, value: Value) -> Op | None:
    return trace.ops[value.maker] if trace.phase is Phase.FORWARD and value.maker is not None else None


def kind_of(value: Value) -> str:
    """Say which of the two it is; NaN wins."""
    numbers = value.stats.values or (value.stats.min, value.stats.max)
    nan = any(number is not None and number != number for number in numbers)
    return "NaN" if nan else "infinity"


def _amount(value: Value) -> str:
    return f"{count(value.nonfinite)} of {count(value.stats.size)} values"


def _called(trace: Trace, value: Value) -> str:
    if value.role == "grad" and not value.name:
        return "the upstream gradient"
    return name_of(trace, value)


def _came(op: Op) -> list[Value]:
    """Give what went into an operation: of a backward the upstream, and what was there to add to."""
    given: Iterable[Value | None] = (*op.grad_in, op.grad_before, *op.inputs) if op.grad_in else op.inputs
    return [value for value in given if value is not None]


def _went(op: Op) -> list[Value]:
    given: Iterable[Value | None] = (*op.grad_out, op.grad_after) if op.grad_in else op.output
    return [value for value in given if value is not None]


def _dead(trace: Trace) -> Iterator[tuple[str, str]]:
    """Name the relus most of whose units are 0 for every example of the batch."""
    found = [(op.dead[0] / op.dead[1], op) for op in trace.ops if op.dead and op.dead[0]]
    bad = sorted((pair for pair in found if pair[0] >= MANY_DEAD), key=lambda pair: -pair[0])
    for _, op in bad[:MOST]:
        assert op.dead is not None
        where = f" in {one_line(op.module)}" if op.module else ""
        yield (
            f"{one_line(op.name)} {op.number + 1}{where}: {op.dead[0]} of {op.dead[1]} units are 0 for all inputs.",
            "warn",
        )
    others = len(found) - min(len(bad), MOST)
    if others:
        dead, units = (sum(op.dead[side] for _, op in found if op.dead) for side in (0, 1))
        yield f"Dead units in {len(found)} relus together: {dead} of {units}, 0 for the whole batch.", "dim"
