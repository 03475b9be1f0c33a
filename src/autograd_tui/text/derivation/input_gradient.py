"""The gradient of one input of a node, worked out by a rule, in rows: formula, numbers, and whether it agrees."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autograd_tui.core.trace import NonFinite, Value
from autograd_tui.text.derivation.node_context import LETTERS, NodeContext
from autograd_tui.text.derivation.small_tensor import (
    SmallTensor,
    agrees,
    broadcast,
    each,
    filled,
    near,
    overflow,
    rounding,
    summed_to,
)
from autograd_tui.text.equation import enclosed, exact, headed, rows, with_digits, worked
from autograd_tui.text.numbers import terse
from autograd_tui.text.styled_text import Line
from autograd_tui.text.trace.first_nonfinite import found_in, not_finite_lines
from autograd_tui.text.trace.tensor_words import kept_name, nested, shape_words, value_words

MOST_PAIRS = 4  # products that are written one by one
MOST_LISTED = 8  # values above which only the first is worked


@dataclass(frozen=True, slots=True)
class InputGradient:
    """One downstream gradient: in a formula, and in numbers where they are all known."""

    place: int  # which input of the node
    formula: str  # "d(w × x)/dw = x"
    result: SmallTensor | None = None  # upstream x local, before what was stretched is summed
    worked: str = ""  # the arithmetic of `result`, its numbers in full, "" where there is nothing to show
    local: str = ""  # the local derivative in numbers, where the formula does not show them
    size: float = 0.0  # of the largest number that entered: rounding is judged by it
    by_value: bool = False  # value by value, so that it can be shown with the first values alone
    unchanged: bool = False


Rule = Callable[[NodeContext], Sequence[InputGradient]]


def times(
    scene: NodeContext, place: int, formula: str, local: SmallTensor | None, *, by: str | None = None
) -> InputGradient:
    """Multiply the upstream with the local derivative, value by value.

    `by`: how that was worked out, "" where it is only to be shown; None where the formula names it.
    """
    upstream = scene.upstream
    result = each(lambda up, by: up * by, upstream, local)
    if upstream is None or local is None or result is None:
        return InputGradient(place, formula, by_value=True)
    shown = "" if by is None or len(result.values) > MOST_LISTED else f"local: {_local(by, local)}"
    return InputGradient(place, formula, result, products(upstream, local), shown, size(upstream, local), by_value=True)


def _local(by: str, local: SmallTensor) -> str:
    text = with_digits(listed(local))
    return worked(by, local.values, text) if by else text


def scaled(scene: NodeContext, place: int, formula: str, by: float | None, *, words: str = "") -> InputGradient:
    """Multiply the upstream with one number; 1 hands it on as it is."""
    upstream = scene.upstream
    result = each(lambda up: up * (by or 0.0), upstream) if by is not None else None
    if upstream is None or by is None or result is None:
        return InputGradient(place, formula, by_value=True)
    few = len(upstream.values) <= MOST_LISTED
    up = listed(upstream) if few else f"first value: {exact(upstream.values[0])}"
    product = "" if by == 1 else f"{up} × {words or enclosed(by)}"
    scale = size(upstream, filled((), by))
    return InputGradient(place, formula, result, product, "", scale, by_value=True, unchanged=by == 1)


def whole(
    scene: NodeContext, place: int, formula: str, result: SmallTensor | None, *, worked: str = "", largest: float = 0
) -> InputGradient:
    """Take a gradient that is not made value by value."""
    upstream = scene.upstream
    return InputGradient(place, formula, result, worked, "", max(largest, upstream.largest if upstream else 0.0))


def size(upstream: SmallTensor, local: SmallTensor) -> float:
    """Give the size of the largest number in a product, by which rounding is judged."""
    return upstream.largest * max(local.largest, 1.0)


def listed(tensor: SmallTensor) -> str:
    """Write values in full in one row, whatever their shape."""
    written = ", ".join(map(exact, tensor.values))
    return written if len(tensor.values) == 1 else f"[{written}]"


def products(upstream: SmallTensor, local: SmallTensor) -> str:
    """Write a product value by value where they are few: [2 × 1, 3 × 2]; else list by list, of many the first."""
    shape = broadcast(upstream.shape, local.shape)
    both = each(lambda up, _: up, upstream, local), each(lambda _, by: by, upstream, local)
    if both[0] is None or both[1] is None or len(both[0].values) > MOST_LISTED:
        ups, bys = upstream.values, local.values
        return f"first value: {exact(ups[0])} × {enclosed(bys[0])}"
    if len(both[0].values) > MOST_PAIRS:
        return f"{listed(both[0])} × {listed(both[1])}"
    terms = [f"{exact(up)} × {enclosed(by)}" for up, by in zip(both[0].values, both[1].values, strict=True)]
    return terms[0] if not shape or len(terms) == 1 else f"[{', '.join(terms)}]"


def added_products(pairs: Sequence[tuple[float, float]]) -> str:
    """Write a sum of products with its signs: 2 × 3 - 1 × (-4)."""
    signed = [f"{'-' if a < 0 else '+'} {exact(abs(a))} × {enclosed(b)}" for a, b in pairs]
    return re.sub("^- ", "-", " ".join(signed).removeprefix("+ "))


MOST_SUMMED = 8  # terms of a sum that is written out
NO_GRADIENT = "None: it needs no gradient."
NO_TENSOR = "None: it is no tensor."


def downstream_lines(scene: NodeContext, place: int, rule: Rule | None, width: int) -> list[Line]:
    """Show the gradient that goes to one input."""
    lines, found = _downstream(scene, place, rule, width), found_in(scene.op, place)
    return lines if found is None else [*lines, *_not_finite(scene, found, rule, width)]


def _not_finite(scene: NodeContext, found: NonFinite, rule: Rule | None, width: int) -> list[Line]:
    """Say of a gradient how much is not finite, and how the first of it came about."""
    made, kept = scene.op.grad_out[found.output], (scene.node and scene.node.saved) or ()
    assert made is not None
    names = [] if scene.node is None else [kept_name(scene.trace, scene.node, value) for value in kept]
    given = [*(("upstream", value) for value in scene.op.grad_in if value is not None), *zip(names, kept, strict=False)]
    one = _part(NodeContext(scene.trace, scene.op, first=True, at=found), found.output, rule)
    equation = ""
    if one and one.by_value and one.result and one.worked:
        size = max(one.size, one.result.largest)
        if near(one.result.values[0], found.value, error=_error(scene, made), size=size) or overflow(one.result, made):
            there = zip(names, found.given[len(scene.op.grad_in) :], strict=False)
            where = ", ".join(
                f"{name} is {terse(value)}" for name, value in there if value is not None and name != terse(value)
            )
            equation = f"{with_digits(one.worked)} = {terse(found.value)}" + (f", where {where}" if where else "")
    return not_finite_lines(found, made, given, equation, width, there=rule is None)


def _part(scene: NodeContext, place: int, rule: Rule | None) -> InputGradient | None:
    return next((each for each in rule(scene) if each.place == place), None) if rule else None


def _downstream(scene: NodeContext, place: int, rule: Rule | None, width: int) -> list[Line]:
    recorded = scene.op.grad_out[place]
    head = f"to {scene.target(place)}"
    if recorded is None:
        return headed(head, _why_none(scene, place), width)
    part = _part(scene, place, rule)
    if part is None:
        return headed(head, f"got {value_words(recorded, width - 6)}", width)
    told = _told(scene, part, recorded, rule, width)
    if told is None:  # of an operation that is made of several, whose settings need not be this node's
        return headed(head, f"got {value_words(recorded, width - 6)}", width)
    letter = LETTERS[place % len(LETTERS)]
    if re.search(rf"\b{letter}\b", part.formula) and scene.name(place) == letter:
        head = f"{head} ({letter})"
    local = rows(part.local, width, indent="  ") if part.local else []
    return [*_headline(head, part.formula, _stretched(scene, part, recorded), width), *local, *told]


def _headline(head: str, formula: str, stretched: str, width: int) -> list[Line]:
    """Write where the gradient goes and by which formula; what was stretched in the same row if it fits."""
    whole = f"{formula}, {stretched}" if stretched else formula
    if not stretched or len(head) + 2 + len(whole) <= width:
        return headed(head, whole, width)
    return [*headed(head, formula, width), *rows(stretched, width, indent="  ")]


def _why_none(scene: NodeContext, place: int) -> str:
    node = scene.node
    if node is None or place >= len(node.next) or node.next[place] is not None:
        return "None: the node gave no gradient for it."
    if not scene.alone:
        return "None: autograd follows nothing there."
    return NO_GRADIENT if scene.given(place) else NO_TENSOR


def _told(scene: NodeContext, part: InputGradient, recorded: Value, rule: Rule | None, width: int) -> list[Line] | None:
    """Work the numbers; None where the formula does not hold and nothing says that it should."""
    known = SmallTensor.of(recorded)
    if part.result and known and broadcast(part.result.shape, known.shape) == part.result.shape:
        total = summed_to(part.result, known.shape)
        if agrees(total, known, error=_error(scene, recorded), size=_size(part, total)):
            return _worked(scene, part, recorded, known, width)
        if said := overflow(part.result, recorded):
            return [*rows(said, width, indent="  "), *_result(value_words(recorded, width - 4), width)]
        return _contradicted(total, recorded, width) if scene.alone else None
    first = _first(scene, part, recorded, rule, width)
    if first is None:
        return None
    return [*first, *_result(value_words(recorded, width - 4), width)]


def _error(scene: NodeContext, recorded: Value) -> float:
    saved = (scene.node and scene.node.saved) or ()
    return rounding((recorded, *scene.op.grad_in, *saved))


def _size(part: InputGradient, total: SmallTensor) -> float:
    assert part.result is not None
    return max(part.size, part.result.largest) * math.sqrt(max(len(part.result.values) / len(total.values), 1))


def _worked(scene: NodeContext, part: InputGradient, recorded: Value, known: SmallTensor, width: int) -> list[Line]:
    """Write the arithmetic, the sum of what was stretched last."""
    assert part.result is not None
    few = len(known.values) <= MOST_LISTED
    shown = nested(known.values, known.shape) if few else value_words(recorded, width - 4)
    if len(part.result.values) > len(known.values):
        return [*_terms(part, width), *_sum(part.result, known, width)]
    if part.unchanged:
        return rows(f"{_handed_on(scene, recorded)}: {shown}", width, indent="  ", style="now")
    if part.worked.startswith("first value") and found_in(scene.op, part.place):
        return _result(shown, width)
    if part.worked.startswith("first value"):
        return [*_first_value(part.worked, known, width), *_result(shown, width)]
    return _equation(part.worked, known, shown, width, style="now")


def _handed_on(scene: NodeContext, recorded: Value) -> str:
    """Say that a gradient goes on unchanged, but for what its dtype rounds."""
    came = scene.op.grad_in[0] if scene.op.grad_in else None
    same = came is None or came.stats.dtype == recorded.stats.dtype
    return "handed on as it is" if same else f"handed on as {recorded.stats.dtype}"


def _terms(part: InputGradient, width: int) -> list[Line]:
    """Write what is added up, unless that is the upstream as it came."""
    terms = part.result
    assert terms is not None
    first = part.worked.startswith("first value")
    shown = terse(terms.values[0]) if first else nested(terms.values, terms.shape)
    if first:
        return rows(worked(part.worked, terms.values[:1], shown), width, indent="  ")
    return [] if part.unchanged else _equation(part.worked, terms, shown, width)


def _equation(written: str, result: SmallTensor, shown: str, width: int, *, style: str = "") -> list[Line]:
    """Write a calculation and what came out; that alone where there is none to show."""
    text = worked(written, result.values, shown) if written else f"= {shown}"
    return rows(text, width, indent="  ", style=style)


def _first_value(written: str, known: SmallTensor, width: int) -> list[Line]:
    return rows(worked(written, known.values[:1], terse(known.values[0])), width, indent="  ")


def _sum(terms: SmallTensor, known: SmallTensor, width: int) -> list[Line]:
    shown = nested(known.values, known.shape)
    if len(known.values) == 1 and len(terms.values) <= MOST_SUMMED:
        return _equation(added(terms), known, shown, width, style="now")
    return _result(shown, width)


def added(terms: SmallTensor) -> str:
    """Write a sum with its signs, its numbers in full: 2 + 1.3333 - 2."""
    first, *rest = terms.values
    signed = [f"{'-' if math.copysign(1, each) < 0 else '+'} {exact(abs(each))}" for each in rest]
    return " ".join([exact(first), *signed])


def _result(written: str, width: int) -> list[Line]:
    return rows(f"= {written}", width, indent="  ", style="now")


def _first(
    scene: NodeContext, part: InputGradient, recorded: Value, rule: Rule | None, width: int
) -> list[Line] | None:
    """Work the first value of a large tensor; None where that is not what PyTorch has."""
    above, at = scene.op.grad_in[0] if scene.op.grad_in else None, NodeContext(scene.trace, scene.op, first=True)
    known = at.small(recorded)
    if not (part.by_value and rule and known and above) or above.stats.shape != recorded.stats.shape:
        return []
    one = _part(at, part.place, rule)
    if found_in(scene.op, part.place):  # of which another value is worked
        return []
    if one is None or one.result is None:
        return []
    size = max(one.size, one.result.largest)
    if not near(one.result.values[0], known.values[0], error=_error(scene, recorded), size=size):
        return _contradicted(one.result, recorded, width) if scene.alone else None
    if one.unchanged:
        return rows(_handed_on(scene, recorded), width, indent="  ")
    return _first_value(f"first value: {one.worked}", known, width)


def _stretched(scene: NodeContext, part: InputGradient, recorded: Value) -> str:
    """Say that what came of an input which broadcasting had stretched was added up; "" where none was."""
    above = scene.op.grad_in[0] if part.by_value and scene.op.grad_in else None
    shape = part.result.shape if part.result else above.stats.shape if above else recorded.stats.shape
    many = math.prod(shape) // max(recorded.stats.size, 1)
    if many < 2:
        return ""
    name, shapes = scene.target(part.place), f"{shape_words(recorded.stats.shape)} to {shape_words(shape)}"
    return f"summed over {many}: {name} was stretched from {shapes}"


def _contradicted(computed: SmallTensor, recorded: Value, width: int) -> list[Line]:
    """Say that the formula and PyTorch differ."""
    worked = f"this formula gives {nested(computed.values, computed.shape)},"
    came = f"but {value_words(recorded, width - 8)} came out: something else was computed, or changed it."
    return [*rows(worked, width, indent="  ", style="warn"), *rows(came, width, indent="  ", style="warn")]
