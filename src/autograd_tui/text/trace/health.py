"""What is wrong inside a phase: NaN and infinity, dead units, gradients that vanish or explode."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from autograd_tui.core.command import Phase
from autograd_tui.core.trace import Operation, Trace, Value
from autograd_tui.text.derivation.backward_node import is_accumulation
from autograd_tui.text.derivation.node_context import parsed_whole
from autograd_tui.text.equation import rows
from autograd_tui.text.numbers import count, terse
from autograd_tui.text.styled_text import Line, one_line
from autograd_tui.text.trace.inplace_hazards import overwritten, why_it_raised
from autograd_tui.text.trace.nonfinite_alarm import Masks, came, first_trouble, is_mask, went
from autograd_tui.text.trace.tensor_words import has_nan, kept_name, name_of, op_name

VANISHED = 1e-4  # of the largest layer's norm
EXPLODED = 1e4  # a norm of one layer
Layers = dict[str, float]


def gradient_sentences(trace: Trace) -> Iterator[tuple[str, str]]:
    """Compare the norms of what arrived at each layer's parameters in this backward."""
    norms = layer_norms(trace)
    finite = {name: norm for name, norm in norms.items() if math.isfinite(norm)}
    zero = [name for name, norm in finite.items() if norm == 0]
    if zero:
        yield f"The gradient is exactly 0 for {_listed(zero)}: a step by it alone moves nothing there.", "warn"
    living = {name: norm for name, norm in finite.items() if norm > 0}
    if not living:
        return
    least, most = (choose(living, key=living.__getitem__) for choose in (min, max))
    if living[least] <= VANISHED * living[most]:
        yield _on_the_way_down(living, least, most), "warn"
    elif living[most] >= EXPLODED:
        yield f"Gradients explode: norm {terse(living[most])} in {one_line(most)}.", "warn"


def _on_the_way_down(norms: Layers, least: str, most: str) -> str:
    """Say which way they change, from the layer that the engine reached first to the other."""
    order = list(norms)
    first, last = sorted((least, most), key=order.index)
    word = "explode" if last == most else "vanish"
    ends = (f"norm {terse(norms[layer])} in {one_line(layer)}" for layer in (first, last))
    return f"Gradients {word} on their way back from the loss: {', then '.join(ends)}."


def layer_norms(trace: Trace) -> Layers:
    """Give the norm of this backward's gradient by the module that holds them, in the engine's order."""
    squares: dict[str, float] = {}
    for op in trace.ops:
        if not (is_accumulation(op) and op.accumulates_into and op.grad_in and op.grad_in[0]):
            continue
        layer, norm = op.accumulates_into.rpartition(".")[0] or op.accumulates_into, op.grad_in[0].stats.norm
        if norm is not None:
            squares[layer] = math.hypot(squares.get(layer, 0.0), norm)
    return squares


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(one_line, names[:3]))
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


MOST = 3  # cases of one kind that are named
SOFTMAX = ("softmax", "log_softmax")
ATTENTION = ("multi_head_attention_forward", "scaled_dot_product_attention")
MANY_DEAD = 0.5  # share of a layer's units from which it is worth a warning


def health_lines(trace: Trace, width: int = 80) -> list[Line]:
    """Say what is wrong in this phase, the worst first; nothing where nothing is."""
    sentences = [*_nonfinite(trace)]
    if trace.phase is Phase.FORWARD:
        sentences += [*((each, "error") for each in overwritten(trace)), *_dead(trace)]
    if trace.phase is Phase.BACKWARD:
        raised = (said for op in trace.ops if op.raised for said in why_it_raised(trace, op))
        sentences += [*((each, "error") for each in raised), *(() if trace.error else gradient_sentences(trace))]
    return [line for sentence, style in sentences for line in rows(sentence, width, style=style)]


def _nonfinite(trace: Trace) -> Iterator[tuple[str, str]]:
    place = first_trouble(trace)
    if place is None:
        return
    op = trace.ops[place]
    made = [value for value in went(op) if value.nonfinite]
    wrong = next((value for value in made if has_nan(value)), made[0])
    where = f" in {one_line(op.module)}" if op.module and trace.phase is not Phase.STEP else ""
    who = f"{one_line(op.name)}{where}, {place + 1} of {len(trace.ops)}"
    yield (
        f"First {kind_of(wrong)}: {_amount(wrong, _many(op, wrong))} out of {who}. {_whence(trace, op, wrong)}",
        "error",
    )


def _whence(trace: Trace, op: Operation, wrong: Value) -> str:
    """Say whether what is wrong was there before, or was made here, and of what."""
    forward = trace.forward or trace
    masks, wild = Masks(forward), [value for value in came(trace, op) if value.nonfinite]
    ill = [value for value in wild if not (has_nan(wrong) and masks.has(value))]
    ill = [value for value in ill if has_nan(value)] or ill
    if ill:
        return f"It was already in what went in: {_counted(trace, op, ill)}.{_origin(trace, ill)}"
    if masks.has(wrong):
        return "The code asked for it, and it comes to the loss."
    if wild:
        return f"It was made here. {_wholly_masked(trace, op) or f'A mask went in: {_counted(trace, op, wild)}.'}"
    return "Everything that went in was finite: it was made here." if came(trace, op) else "What went in is not known."


def _origin(trace: Trace, ill: Sequence[Value]) -> str:
    """Say of a backward where in the forward it began, if what the forward left had it already."""
    makers = [value.maker for value in ill if value.maker is not None]
    place = first_trouble(trace.forward) if trace.forward and makers else None
    if place is None or trace.forward is None or place > max(makers):
        return ""
    began = "" if place in makers else f"It began in the forward, at {op_name(trace, place)}."
    return "".join(f" {said}" for said in (began, _wholly_masked(trace.forward, trace.forward.ops[place])) if said)


def kind_of(value: Value) -> str:
    """Say which of the two it is; NaN wins."""
    return "NaN" if has_nan(value) else "infinity"


def _many(op: Operation, wrong: Value) -> int:
    """Count the values of the worse kind, NaN before infinity."""
    made = (*op.grad_out,) if op.grad_in else op.output
    found = next((each for each in op.not_finite if made[each.output] is wrong), None)
    return wrong.nonfinite if found is None else found.nans or found.infinities


def _amount(value: Value, many: int | None = None) -> str:
    return f"{count(value.nonfinite if many is None else many)} of {count(value.stats.size)} values"


def _counted(trace: Trace, op: Operation, values: Sequence[Value]) -> str:
    """Name tensors, each with how much of it is not finite."""
    return ", ".join(f"{_called(trace, op, value)} ({_amount(value)})" for value in values[:MOST])


def _called(trace: Trace, op: Operation, value: Value) -> str:
    if value.role == "grad" and not value.name:
        return "the upstream gradient"
    node = trace.nodes[op.node] if op.node is not None else None
    return name_of(trace, value) if node is None or value.role == "grad" else kept_name(trace, node, value)


def _wholly_masked(trace: Trace, op: Operation) -> str:
    """Say which rows made a softmax NaN: without NaN or infinity in them, only those of nothing but -inf do."""
    masks, after = [value for value in op.inputs if is_mask(value)], op.output[:1]
    if not masks or not any(map(has_nan, after)) or any(map(has_nan, op.inputs)):
        return ""
    if op.name in ATTENTION:
        return f"A mask went in, {_counted(trace, op, masks)}: a row that it masks wholly is 0 / 0 in the softmax."
    if op.name not in SOFTMAX:
        return ""
    dim, shape = parsed_whole(dict(op.settings).get("dim")), masks[0].stats.shape
    many = after[0].nonfinite // max(shape[dim[0]] if dim and shape else 1, 1)
    have = "A row of {} has" if many == 1 else f"{count(many)} rows of {{}} have"
    return f"{have.format(name_of(trace, masks[0]))} nothing but -inf: softmax has 0 / 0 there."


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
