"""What is under the cursor, in full: a parameter with its gradient and optimizer state, or a layer's sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import HISTOGRAM_BINS, SAMPLE_SIZE, Inspection, TensorStats
from autograd_tui.text.nonfinite import shows_nonfinite
from autograd_tui.text.numbers import count, measured, number, percentage, rate
from autograd_tui.text.sparkline import columns_up, sparkline
from autograd_tui.text.styled_text import Line, wrapped
from autograd_tui.text.table.gradient_status import full_status, gradient_status, largest_gradient, status_counts
from autograd_tui.text.table.layers import ParameterColumns
from autograd_tui.text.table.table_rows import shorten_name

WIDE_WIDTH = 40  # characters from which there is room for more than the least
MIN_HISTOGRAM_ROWS = 3  # of a histogram drawn below the numbers
HISTOGRAM_GAP = 2  # columns between two of them
MAX_BIN_WIDTH = 4  # columns of each of its bins
COUNTER = "step"  # torch's name for the number of steps that an optimizer has made
LABEL_WIDTH = 10  # characters of a label where labels are aligned
Brevity = tuple[int, int, int]  # how little is said of a value, its gradient and the optimizer's state: 0 all, 2 norms
BREVITIES: tuple[Brevity, ...] = ((0, 0, 0), (1, 0, 1), (1, 1, 1), (2, 0, 2), (2, 1, 2), (2, 2, 2))
HINT = "Nothing yet: ↑ and ↓ move the cursor, / finds a name, enter opens a layer or measures a parameter."


def best_to_show(frame: Frame) -> int | None:
    """Return the index of the parameter that says most until somebody chooses: of those of several values, the one with
    the largest gradient, or else the largest norm.
    """
    sizes = list(map(math.prod, frame.params.layout.shapes))
    several = [index for index, size in enumerate(sizes) if size > 1]
    grads, norms = frame.grads.norms(), frame.params.norms()
    for numbers in (grads, norms):
        known = [(index, number) for index in several if (number := numbers[index]) is not None]
        if known:
            return max(known, key=lambda each: (not math.isfinite(each[1]), each[1]))[0]
    return None


def no_selection_lines(width: int) -> list[Line]:
    """Return a line on how to select something."""
    return wrapped(HINT, width, style="dim")


def parameter_lines(
    frame: Frame,
    index: int,
    *,
    inspection: Inspection | None,
    width: int,
    height: int = 0,
    also: Sequence[str] = (),
) -> list[Line]:
    """Describe one parameter; with an inspection of this very frame, in exact numbers. `also`: its other names.

    Where `height` leaves room for it, histograms of the value, the gradient and the optimizer's state stand side by
    side below the numbers, else in them. Where not all has room, less is said of each: none of them is left out.
    """
    exact = _exact(frame, index, inspection)
    lines = _numbers(frame, index, exact=exact, width=width, also=also, inline=False)
    pictures = _histograms(frame, index, exact=exact, width=width, height=height - len(lines) - 1)
    if pictures:
        return [*lines, [], *pictures]
    for brevity in BREVITIES:
        lines = _numbers(frame, index, exact=exact, width=width, also=also, inline=True, brevity=brevity)
        if not 0 < height < len(lines):
            break
    return lines


def _exact(frame: Frame, index: int, inspection: Inspection | None) -> Inspection | None:
    """Return an inspection if it is of this parameter at this frame."""
    here = frame.params.layout.names[index], frame.index
    return inspection if inspection and (inspection.name, inspection.index) == here else None


def _numbers(
    frame: Frame,
    index: int,
    *,
    exact: Inspection | None,
    width: int,
    also: Sequence[str],
    inline: bool,
    brevity: Brevity = (0, 0, 0),
) -> list[Line]:
    row, grad = frame.params[index], frame.grads[index]
    value, slope = (exact.value, exact.grad) if exact else (row, grad)
    wide = width >= WIDE_WIDTH
    cells = 0 if not inline else HISTOGRAM_BINS if wide else HISTOGRAM_BINS // 2
    lines = _heading(row, width, note=" · exact" * bool(exact))
    if also:
        lines += wrapped(f"the same tensor as {', '.join(also)}", width, style="dim")
    lines += _packed_lines("value", _stats_words(value, cells=cells, norm_first=not wide, brevity=brevity[0]), width)
    if frame.groups:
        lines += _group_lines(frame, index, width)
    words = _no_gradient(frame, index)
    if grad is not None and slope is not None:
        word = full_status(frame, grad, index) if wide else gradient_status(frame, index)
        words = (
            [*_stats_words(slope, signed=True), word]
            if slope.size == 1
            else [word, *_stats_words(slope, cells=cells, norm_first=not wide, brevity=brevity[1])]
        )
    lines += _packed_lines("gradient", words, width)
    for each in exact.state if exact else _state_rows(frame, row.name):
        turned = [f"cosine to the gradient {exact.cosine:.4f}"] if exact and _turns(each, exact) else []
        counted = each.name == COUNTER and each.values is not None and each.size == 1 and each.values[0].is_integer()
        numbers = (
            [f"{each.values[0]:.0f}"]
            if counted and each.values
            else _stats_words(_without_values(each), brevity=brevity[2])
        )
        lines += _packed_lines(each.name, turned + numbers, width)
    if row.size > SAMPLE_SIZE and not exact:
        lines += wrapped("~ sampled: enter measures all", width, style="dim")
    return lines


def _histograms(frame: Frame, index: int, *, exact: Inspection | None, width: int, height: int) -> list[Line]:
    """Draw the histograms that there are side by side; nothing where there is no room, or none."""
    row, grad = frame.params[index], frame.grads[index]
    value, slope = (exact.value, exact.grad) if exact else (row, grad)
    tensors = [("value", value), ("gradient", slope)]
    tensors += [(each.name, each) for each in (exact.state if exact else _state_rows(frame, row.name))]
    drawn = [(name, each) for name, each in tensors if each is not None and each.histogram and not each.nonfinite]
    ends = [_ends(each) for _, each in drawn]
    least = max((HISTOGRAM_BINS, *(len(low) + 1 + len(high) for low, high in ends))) + HISTOGRAM_GAP
    del drawn[width // least :], ends[width // least :]
    if not drawn or height < MIN_HISTOGRAM_ROWS + 2:
        return []
    room = width // len(drawn)
    columns = min((room - HISTOGRAM_GAP) // HISTOGRAM_BINS, MAX_BIN_WIDTH) * HISTOGRAM_BINS
    pictures = [columns_up(each.histogram or (), columns, height - 2) for _, each in drawn]
    lines: list[Line] = [
        [(f"{'~' * each.sampled}{name:<{columns}}"[:columns].ljust(room), "dim") for name, each in drawn]
    ]
    styles = ["accent" if name == "value" else "up" if name == "gradient" else "" for name, _ in drawn]
    for picture in zip(*pictures, strict=True):
        lines.append([(part.ljust(room), style) for part, style in zip(picture, styles, strict=True)])
    lines.append([(f"{low}{high:>{max(columns - len(low), len(high) + 1)}}".ljust(room), "dim") for low, high in ends])
    return lines


def layer_lines(frame: Frame, name: str, indices: Sequence[int], *, width: int) -> list[Line]:
    """Describe a layer by what its parameters add up to."""
    columns = ParameterColumns.of(frame)
    sums = f"{_plural(len(indices), 'parameter')} · {_plural(columns.size(indices), 'value')}"
    lines: list[Line] = [[(shorten_name(name, width), "strong")], [(sums, "dim")]]
    lines += _packed_lines("value", [f"norm {columns.norm_words(indices)}"], width)
    held = any(frame.grads.backwards[index] for index in indices)
    norm = [f"norm {columns.grad_words(indices)}"] if held else []
    lines += _packed_lines("gradient", [status_counts(frame, indices), *norm], width)
    most = largest_gradient(frame.grads, indices)
    if most is not None:
        lines += _packed_lines("largest", [f"{most.name.removeprefix(name)}, norm {number(most.norm)}"], width)
    update = columns.update(indices)
    if update is not None and math.isfinite(update):
        moved = f"{percentage(update, sampled=columns.estimated(indices))} of its norm"
        by = f"the last {frame.mover.phase.value}" if frame.mover and frame.mover.phase else "you"
        lines += _packed_lines("moved", [f"{moved} by {by}"], width)
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
    return [[(shorten_name(row.name, width), "strong")], [(about, "dim"), (note, "accent")]]


def _plural(amount: int, word: str) -> str:
    return f"{count(amount)} {word}{'s' * (amount != 1)}"


def _state_rows(frame: Frame, name: str) -> list[TensorStats]:
    """Return what the optimizer remembers of a parameter, named by torch's keys."""
    table, beginning = frame.optimizer_state, f"{name}."
    found = [index for index, each in enumerate(table.layout.names) if each.startswith(beginning)]
    return [replace(table[index], name=table.layout.names[index].removeprefix(beginning)) for index in found]


def _without_values(row: TensorStats) -> TensorStats:
    """Leave out what is said of the parameter alone: many values, the histogram."""
    return replace(row, values=row.values if row.size == 1 else None, histogram=None)


def _turns(row: TensorStats, exact: Inspection) -> bool:
    return exact.cosine is not None and row.name in ("momentum_buffer", "exp_avg")


def _stats_words(
    row: TensorStats,
    *,
    signed: bool = False,
    cells: int = HISTOGRAM_BINS,
    norm_first: bool = False,
    brevity: int = 0,
) -> list[str]:
    """Write all values where they are few, else norm, mean, std, and the histogram between its ends.

    brevity: 1 leaves mean and std out where the norm is known, 2 all but the norm and what is made of it.
    """
    if row.values is not None and (row.size == 1 or brevity < 2):
        norm = [f"norm {number(row.norm)}"] if row.size > 1 else []
        return [*(number(value, signed=signed) for value in row.values), *norm]
    mark = "~" * (row.sampled and not row.range_sampled)  # else the ends have it
    written = [f"{count(row.nonfinite)} are NaN or infinite"] if row.nonfinite else []
    if row.histogram is not None and not row.nonfinite and cells and brevity < 2:
        low, high = _ends(row)
        written.append(f"{low} {mark}▕{sparkline(_rebinned(row.histogram, cells))}▏ {high}")
    rms = None if row.norm is None or row.size < 2 else row.norm / math.sqrt(row.size)
    known = [("norm", row.norm, False), ("rms", rms, False)]
    if not brevity or row.norm is None:  # of the optimizer's state nothing else is known
        known += [("mean", row.mean, row.sampled), ("std", row.std, row.sampled)]
    numbers = [f"{word} {measured(value, sampled=sampled)}" for word, value, sampled in known if value is not None]
    first = 2 * (norm_first and rms is not None and not row.nonfinite)  # the norm, and the rms that is made of it
    written = [*numbers[:first], *written, *numbers[first:]]
    if row.stored is not None:
        ends = [] if row.nonfinite or row.min is None else [f"{number(row.min)} to {number(row.max)}"]
        written += [*ends, f"sparse: {count(row.stored)} of {count(row.size)} values stored"]
    return written or ["not measured" if row.size else "no values"]


def _ends(row: TensorStats) -> tuple[str, str]:
    """Write the minimum and the maximum."""
    return measured(row.min, sampled=row.range_sampled), measured(row.max, sampled=row.range_sampled)


def _rebinned(histogram: Sequence[int], cells: int) -> list[int]:
    """Join neighbours, so that so many are left."""
    joined = len(histogram) // cells
    return [sum(histogram[start : start + joined]) for start in range(0, len(histogram), joined)]


def _group_lines(frame: Frame, index: int, width: int) -> list[Line]:
    group = frame.groups.of[index] if frame.groups else None
    if group is None:
        return _packed_lines("group", ["none: the optimizer does not hold it"], width)
    name = frame.group_name(group)
    label, shown = ("group", str(group)) if name == f"group {group}" else ("held by", name)
    return _packed_lines(label, [shown, f"lr {rate(frame.learning_rates[group])}", frame.optimizer_of(index)], width)


def _no_gradient(frame: Frame, index: int) -> list[str]:
    if index in frame.frozen:
        return ["None: it is frozen, requires_grad=False"]
    if index in frame.unused:
        return ["None: no gradient reached it"]
    last = frame.last_grads and frame.last_grads[index]
    return ["None", f"norm was {number(last.norm)}"] if last else ["None"]


def _packed_lines(label: str, parts: Sequence[str], width: int) -> list[Line]:
    """Write a label and as many parts a row as fit, further rows set in; what no row can hold is left out."""
    indent = LABEL_WIDTH + 1 if width >= WIDE_WIDTH else 3
    rows: list[list[str]] = [[]]
    used = max(len(label) + 1, indent)
    for part in parts:
        if indent + len(part) > width:
            continue  # a number that is cut off would be another number
        if used + len(part) > width:
            rows.append([])
            used = indent
        rows[-1].append(part)
        used += len(part) + 2
    lines: list[Line] = []
    for row in _without_one_alone(rows, width - indent):
        line: Line = [(" " * indent, "") if lines else (f"{label:<{indent - 1}} ", "strong")]
        for part in row:
            wrong = shows_nonfinite(part) or part.rstrip().endswith("NaN or infinite")
            line.append((part + "  ", "error" * wrong))
        lines.append(line)
    return lines


def _without_one_alone(rows: list[list[str]], width: int) -> list[list[str]]:
    """Write two parts in each of the last two rows, one below the other, where the last row has one and that before
    it three.
    """
    if len(rows) < 2 or (len(rows[-2]), len(rows[-1])) != (3, 1):
        return rows
    first, second, third = rows[-2]
    pairs = [[first, second], [third, *rows[-1]]]
    columns = [max(map(len, column)) for column in zip(*pairs, strict=True)]
    if sum(columns) + 2 > width:
        return rows
    aligned = [[part.ljust(columns[index]) for index, part in enumerate(pair)] for pair in pairs]
    return [*rows[:-2], *aligned]
