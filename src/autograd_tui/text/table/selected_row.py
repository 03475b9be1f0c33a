"""What is under the cursor, in full: a parameter with its gradient and optimizer state, or a layer's sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import BINS, SAMPLE, Inspection, TensorStats
from autograd_tui.text.nonfinite import shows_one
from autograd_tui.text.numbers import count, measured, number, percentage, rate
from autograd_tui.text.sparkline import sparkline
from autograd_tui.text.styled_text import Line, wrapped
from autograd_tui.text.table.gradient_status import age, age_in_full, in_words, largest
from autograd_tui.text.table.layers import Columns
from autograd_tui.text.table.table_rows import shortened

WIDE = 40  # characters from which there is room for more than the least
LABEL = 10  # characters of a label where labels are aligned
HINT = "Nothing yet: ↑ and ↓ move the cursor, / finds a name, enter opens a layer or measures a parameter."


def nothing_lines(width: int) -> list[Line]:
    """Say how to select something."""
    return wrapped(HINT, width, style="dim")


def parameter_lines(
    frame: Frame, place: int, *, inspection: Inspection | None, width: int, also: Sequence[str] = ()
) -> list[Line]:
    """Describe one parameter; with an inspection of this very frame, in exact numbers. `also`: its other names."""
    row, grad = frame.params[place], frame.grads[place]
    state = _state_rows(frame, row.name)
    exact = inspection if inspection and (inspection.name, inspection.index) == (row.name, frame.index) else None
    value, slope = (exact.value, exact.grad) if exact else (row, grad)
    cells = BINS if width >= WIDE else BINS // 2
    lines = _heading(row, width, note=" · exact" * bool(exact))
    if also:
        lines += wrapped(f"the same tensor as {', '.join(also)}", width, style="dim")
    lines += _packed("value", _numbers(value, cells=cells), width)
    if frame.groups:
        lines += _packed("group", _group(frame, place), width)
    said = _gone(frame, place)
    if grad is not None and slope is not None:
        word = age_in_full(frame, grad, place) if width >= WIDE else age(frame, place)
        said = [*_numbers(slope, signed=True), word] if slope.size == 1 else [word, *_numbers(slope, cells=cells)]
    lines += _packed("gradient", said, width)
    for each in exact.state if exact else state:
        turned = [f"cosine to the gradient {exact.cosine:.4f}"] if exact and _turns(each, exact) else []
        lines += _packed(each.name, turned + _numbers(_in_short(each)), width)
    if row.size > SAMPLE and not exact:
        lines += wrapped("~ sampled: enter measures all", width, style="dim")
    return lines


def layer_lines(frame: Frame, name: str, places: Sequence[int], *, width: int) -> list[Line]:
    """Describe a layer by what its parameters add up to."""
    columns = Columns.of(frame)
    sums = f"{_plural(len(places), 'parameter')} · {_plural(columns.size(places), 'value')}"
    lines: list[Line] = [[(shortened(name, width), "strong")], [(sums, "dim")]]
    lines += _packed("value", [f"norm {columns.norm_words(places)}"], width)
    held = any(frame.grads.backwards[place] for place in places)
    norm = [f"norm {columns.grad_words(places)}"] if held else []
    lines += _packed("gradient", [in_words(frame, places), *norm], width)
    most = largest(frame.grads, places)
    if most is not None:
        lines += _packed("largest", [f"{most.name.removeprefix(name)}, norm {number(most.norm)}"], width)
    update = columns.update(places)
    if update is not None and math.isfinite(update):
        moved = f"{percentage(update, sampled=columns.estimated(places))} of its norm"
        by = f"the last {frame.mover.phase.value}" if frame.mover and frame.mover.phase else "you"
        lines += _packed("moved", [f"{moved} by {by}"], width)
    return lines


def _heading(row: TensorStats, width: int, *, note: str) -> list[Line]:
    """Write the name, then shape, values and dtype, in one row where they fit."""
    shape = ["×".join(map(str, row.shape))] if row.size > 1 else []
    parts = [*shape, _plural(row.size, "value"), row.dtype]
    while len(parts) > 1 and len(" · ".join(parts)) + len(note) > width:
        parts.pop()
    about = " · ".join(parts)
    if len(row.name) + len(about) + len(note) + 3 <= width:
        return [[(row.name, "strong"), (f"   {about}", "dim"), (note, "accent")]]
    return [[(shortened(row.name, width), "strong")], [(about, "dim"), (note, "accent")]]


def _plural(amount: int, word: str) -> str:
    return f"{count(amount)} {word}{'s' * (amount != 1)}"


def _state_rows(frame: Frame, name: str) -> list[TensorStats]:
    """Give what the optimizer remembers of a parameter, named by torch's keys."""
    table, beginning = frame.optimizer_state, f"{name}."
    found = [place for place, each in enumerate(table.layout.names) if each.startswith(beginning)]
    return [replace(table[place], name=table.layout.names[place].removeprefix(beginning)) for place in found]


def _in_short(row: TensorStats) -> TensorStats:
    """Leave out what is said of the parameter alone: many values, the histogram."""
    return replace(row, values=row.values if row.size == 1 else None, histogram=None)


def _turns(row: TensorStats, exact: Inspection) -> bool:
    return exact.cosine is not None and row.name in ("momentum_buffer", "exp_avg")


def _numbers(row: TensorStats, *, signed: bool = False, cells: int = BINS) -> list[str]:
    """Write all values where they are few, else norm, mean, std, and the histogram between its ends."""
    if row.values is not None:
        norm = [f"norm {number(row.norm)}"] if row.size > 1 else []
        return [*(number(value, signed=signed) for value in row.values), *norm]
    mark = "~" * row.sampled
    known = [("norm", row.norm, False), ("mean", row.mean, row.sampled), ("std", row.std, row.sampled)]
    written = [f"{word} {measured(value, sampled=sampled)}" for word, value, sampled in known if value is not None]
    if row.nonfinite:
        written.insert(0, f"{count(row.nonfinite)} are NaN or infinite")
    if row.histogram is not None and not row.nonfinite:
        written.append(f"{number(row.min)} {mark}▕{sparkline(_fewer(row.histogram, cells))}▏ {number(row.max)}")
    if row.stored is not None:
        ends = [] if row.nonfinite or row.min is None else [f"{number(row.min)} to {number(row.max)}"]
        written += [*ends, f"sparse: {count(row.stored)} of {count(row.size)} values stored"]
    return written or ["not measured" if row.size else "no values"]


def _fewer(histogram: Sequence[int], cells: int) -> list[int]:
    """Join neighbours, so that so many are left."""
    joined = len(histogram) // cells
    return [sum(histogram[start : start + joined]) for start in range(0, len(histogram), joined)]


def _group(frame: Frame, place: int) -> list[str]:
    group = frame.groups.of[place] if frame.groups else None
    if group is None:
        return ["none: the optimizer does not hold it"]
    return [str(group), f"lr {rate(frame.learning_rates[group])}", frame.optimizer_of(place)]


def _gone(frame: Frame, place: int) -> list[str]:
    if place in frame.frozen:
        return ["None: it is frozen, requires_grad=False"]
    if place in frame.unused:
        return ["None: no gradient reached it"]
    last = frame.last_grads and frame.last_grads[place]
    return ["None", f"norm was {number(last.norm)}"] if last else ["None"]


def _packed(label: str, parts: Sequence[str], width: int) -> list[Line]:
    """Write a label and as many parts a row as fit, further rows set in; what no row can hold is left out."""
    indent = LABEL + 1 if width >= WIDE else 3
    lines: list[Line] = [[(f"{label:<{indent - 1}} ", "strong")]]
    used = max(len(label) + 1, indent)
    for part in parts:
        if indent + len(part) > width:
            continue  # a number that is cut off would be another number
        if used + len(part) > width:
            lines.append([(" " * indent, "")])
            used = indent
        wrong = shows_one(part) or part.endswith("NaN or infinite")
        lines[-1].append((part + "  ", "error" * wrong))
        used += len(part) + 2
    return lines
