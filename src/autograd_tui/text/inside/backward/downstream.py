"""One downstream gradient in rows: formula, numbers, what was summed, and whether it is what PyTorch has."""

from __future__ import annotations

import math
import re

from autograd_tui.engine.values.trace import NotFinite, Value
from autograd_tui.text.equation import exact, with_digits, worked
from autograd_tui.text.inside.agreement import agrees, near, overflow, rounding
from autograd_tui.text.inside.backward.part import MOST_LISTED, Part, Rule
from autograd_tui.text.inside.backward.scene import LETTERS, Scene
from autograd_tui.text.inside.not_finite import found_in, not_finite_lines
from autograd_tui.text.inside.rows import headed, rows
from autograd_tui.text.inside.small import Small, broadcast, summed_to
from autograd_tui.text.inside.value_words import kept_name, nested, shape_words, value_words
from autograd_tui.text.line import Line
from autograd_tui.text.numbers import terse

MOST_SUMMED = 8  # terms of a sum that is written out
NO_GRADIENT = "None: it needs no gradient."
NO_TENSOR = "None: it is no tensor."


def downstream_lines(scene: Scene, place: int, rule: Rule | None, width: int) -> list[Line]:
    """Show the gradient that goes to one input."""
    lines, found = _downstream(scene, place, rule, width), found_in(scene.op, place)
    return lines if found is None else [*lines, *_not_finite(scene, found, rule, width)]


def _not_finite(scene: Scene, found: NotFinite, rule: Rule | None, width: int) -> list[Line]:
    """Say of a gradient how much is not finite, and how the first of it came about."""
    made, kept = scene.op.grad_out[found.output], (scene.node and scene.node.saved) or ()
    assert made is not None
    names = [] if scene.node is None else [kept_name(scene.trace, scene.node, value) for value in kept]
    given = [*(("upstream", value) for value in scene.op.grad_in if value is not None), *zip(names, kept, strict=False)]
    one = _part(Scene(scene.trace, scene.op, first=True, at=found), found.output, rule)
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


def _part(scene: Scene, place: int, rule: Rule | None) -> Part | None:
    return next((each for each in rule(scene) if each.place == place), None) if rule else None


def _downstream(scene: Scene, place: int, rule: Rule | None, width: int) -> list[Line]:
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


def _why_none(scene: Scene, place: int) -> str:
    node = scene.node
    if node is None or place >= len(node.next) or node.next[place] is not None:
        return "None: the node gave no gradient for it."
    if not scene.alone:
        return "None: autograd follows nothing there."
    return NO_GRADIENT if scene.given(place) else NO_TENSOR


def _told(scene: Scene, part: Part, recorded: Value, rule: Rule | None, width: int) -> list[Line] | None:
    """Work the numbers; None where the formula does not hold and nothing says that it should."""
    known = Small.of(recorded)
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


def _error(scene: Scene, recorded: Value) -> float:
    saved = (scene.node and scene.node.saved) or ()
    return rounding((recorded, *scene.op.grad_in, *saved))


def _size(part: Part, total: Small) -> float:
    assert part.result is not None
    return max(part.size, part.result.largest) * math.sqrt(max(len(part.result.values) / len(total.values), 1))


def _worked(scene: Scene, part: Part, recorded: Value, known: Small, width: int) -> list[Line]:
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


def _handed_on(scene: Scene, recorded: Value) -> str:
    """Say that a gradient goes on unchanged, but for what its dtype rounds."""
    came = scene.op.grad_in[0] if scene.op.grad_in else None
    same = came is None or came.stats.dtype == recorded.stats.dtype
    return "handed on as it is" if same else f"handed on as {recorded.stats.dtype}"


def _terms(part: Part, width: int) -> list[Line]:
    """Write what is added up, unless that is the upstream as it came."""
    terms = part.result
    assert terms is not None
    first = part.worked.startswith("first value")
    shown = terse(terms.values[0]) if first else nested(terms.values, terms.shape)
    if first:
        return rows(worked(part.worked, terms.values[:1], shown), width, indent="  ")
    return [] if part.unchanged else _equation(part.worked, terms, shown, width)


def _equation(written: str, result: Small, shown: str, width: int, *, style: str = "") -> list[Line]:
    """Write a calculation and what came out; that alone where there is none to show."""
    text = worked(written, result.values, shown) if written else f"= {shown}"
    return rows(text, width, indent="  ", style=style)


def _first_value(written: str, known: Small, width: int) -> list[Line]:
    return rows(worked(written, known.values[:1], terse(known.values[0])), width, indent="  ")


def _sum(terms: Small, known: Small, width: int) -> list[Line]:
    shown = nested(known.values, known.shape)
    if len(known.values) == 1 and len(terms.values) <= MOST_SUMMED:
        return _equation(added(terms), known, shown, width, style="now")
    return _result(shown, width)


def added(terms: Small) -> str:
    """Write a sum with its signs, its numbers in full: 2 + 1.3333 - 2."""
    first, *rest = terms.values
    signed = [f"{'-' if math.copysign(1, each) < 0 else '+'} {exact(abs(each))}" for each in rest]
    return " ".join([exact(first), *signed])


def _result(written: str, width: int) -> list[Line]:
    return rows(f"= {written}", width, indent="  ", style="now")


def _first(scene: Scene, part: Part, recorded: Value, rule: Rule | None, width: int) -> list[Line] | None:
    """Work the first value of a large tensor; None where that is not what PyTorch has."""
    above, at = scene.op.grad_in[0] if scene.op.grad_in else None, Scene(scene.trace, scene.op, first=True)
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


def _stretched(scene: Scene, part: Part, recorded: Value) -> str:
    """Say that what came of an input which broadcasting had stretched was added up; "" where none was."""
    above = scene.op.grad_in[0] if part.by_value and scene.op.grad_in else None
    shape = part.result.shape if part.result else above.stats.shape if above else recorded.stats.shape
    many = math.prod(shape) // max(recorded.stats.size, 1)
    if many < 2:
        return ""
    name, shapes = scene.target(part.place), f"{shape_words(recorded.stats.shape)} to {shape_words(shape)}"
    return f"summed over {many}: {name} was stretched from {shapes}"


def _contradicted(computed: Small, recorded: Value, width: int) -> list[Line]:
    """Say that the formula and PyTorch differ."""
    worked = f"this formula gives {nested(computed.values, computed.shape)},"
    came = f"but {value_words(recorded, width - 8)} came out: something else was computed, or changed it."
    return [*rows(worked, width, indent="  ", style="warn"), *rows(came, width, indent="  ", style="warn")]
