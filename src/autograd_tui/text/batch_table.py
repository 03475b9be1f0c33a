"""The batch and what the model made of it: value by value where they are few, or over one input feature."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autograd_tui.core.frame import Frame
from autograd_tui.core.session_protocol import SessionInfo
from autograd_tui.text.nonfinite import shows_nonfinite
from autograd_tui.text.numbers import count, fitted, measured, number, short
from autograd_tui.text.sparkline import sparkline
from autograd_tui.text.styled_text import Line, length

WORKED_ROWS = 5  # inputs, targets, prediction, error and square: kept free before there is a prediction


def outputs_and_positions(frame: Frame) -> tuple[int, int] | None:
    """Return how many outputs there are for each of how many positions; None where there is one, or no positions.

    Of (samples, a, b) the outputs are `a` where targets are (samples, b), as cross_entropy takes them, else `b`.
    """
    row = frame.prediction
    if row is None or len(row.shape) != 3 or row.min is None:
        return None
    samples, outputs, positions = row.shape
    if frame.targets is None or frame.targets.shape != (samples, positions):
        outputs, positions = positions, outputs
    return (outputs, positions) if outputs > 1 else None


def prediction_lines(frame: Frame) -> list[Line]:
    """Draw the range of all outputs with how they are spread in it, then mean and deviation."""
    row = frame.prediction
    if row is None or row.min is None:
        return []
    old = ("  old" if frame.loss_is_old else "", "warn")
    if row.nonfinite:
        # Infinities are a mask where the loss is finite all the same.
        ill = row.min != row.min or frame.loss is None or not math.isfinite(frame.loss)
        return [[(f"{count(row.nonfinite)} of {count(row.size)} are NaN or infinite", "error" if ill else "dim"), old]]
    mark = "~" * row.sampled
    spread = f"{mark}▕{sparkline(row.histogram)}▏" if row.histogram else "to"
    return [
        [(number(row.min), "strong"), (f" {spread} ", "accent"), (number(row.max), "strong"), old],
        [(f"mean {measured(row.mean, sampled=row.sampled)}   std {measured(row.std, sampled=row.sampled)}", "dim")],
    ]


def batch_lines(frame: Frame, about: SessionInfo, width: int) -> list[Line]:
    """Draw a column a value: inputs, targets, prediction, error, and the squares where the loss is their mean."""
    x, y, q = frame.inputs, frame.targets, frame.prediction
    if frame.loss_params is None and not knows_first_batch(frame):
        has_run = frame.script is not None and frame.iteration  # freely: its batch was not looked at
        return [[("not known at this stop" if has_run else "no batch here: forward takes the first", "dim")]]
    label_width = max(8, *(len(name) + 6 for name in about.names))
    columns = (width - label_width) // 10
    few = [row.values for row in (x, y, q) if row and row.values]
    if len(few) < 2 + (frame.loss_params is not None) or len({len(values) for values in few}) > 1:
        return _summary_lines(frame, about, width)
    shown = min(columns, len(few[0]))
    rows = [(about.names[0], few[0], ""), (f"{about.names[1]} truth", few[1], "")]
    rows += [(about.names[2], values, _age(frame)) for values in few[2:]]
    lines = [_row(name, values[:shown], label_width, note=note) for name, values, note in rows]
    if len(few) < 3:
        empty: list[Line] = [[] for _ in range(WORKED_ROWS - len(lines) - 1)]
        return [*lines, _awaited(about, label_width), *empty]
    errors = [prediction - target for prediction, target in zip(few[2], few[1], strict=True)]
    lines.append(_row(f"{about.names[2]} - {about.names[1]}", errors[:shown], label_width, signed=True))
    if errors_of_mean_square(frame) is not None:
        squares = [error * error for error in errors]
        lines.append(_row("squared", squares[:shown], label_width, note=f"mean {number(frame.loss)}"))
    if shown < len(few[0]):
        lines.append([(f"... {len(few[0]) - shown} more of {len(few[0])}", "dim")])
    return [_cut(line, width) for line in lines]


def knows_first_batch(frame: Frame) -> bool:
    """Return whether a batch is known that no forward has taken yet: each iteration takes the same one."""
    return frame.loss_params is None and frame.inputs is not None and frame.targets is not None


def _awaited(about: SessionInfo, name_width: int) -> Line:
    return [(f"{about.names[2]:<{name_width}}", "strong"), ("  none here: forward makes it", "dim")]


def _age(frame: Frame) -> str:
    """Return a sentence on which parameters an old prediction was made with, where they are few."""
    if not frame.loss_is_old or frame.loss_params is None:
        return ""
    if len(frame.params) > 3 or any(row.size > 1 for row in frame.params):
        return "old"
    made_with = ", ".join(f"{row.name} {short(row.values[0])}" for row in frame.loss_params if row.values)
    return f"old: {made_with}"


def errors_of_mean_square(frame: Frame) -> list[float] | None:
    """Return the errors, prediction - target, where the loss is the mean of their squares; None where it is not."""
    y, q = frame.targets, frame.prediction
    if not (y and q and y.values and q.values and len(y.values) == len(q.values)) or frame.loss is None:
        return None
    errors = [prediction - target for prediction, target in zip(q.values, y.values, strict=True)]
    mean = sum(error * error for error in errors) / len(errors)  # math.fsum would raise where it is too large
    return errors if math.isclose(mean, frame.loss, rel_tol=1e-5, abs_tol=1e-12) else None


def _row(name: str, values: Sequence[float], label: int, *, note: str = "", signed: bool = False) -> Line:
    written = "".join(f"{('+' if signed and value >= 0 else '') + _short(value):>10}" for value in values)
    note_style = "warn" if note.startswith("old") else "error" if shows_nonfinite(note) else "dim"
    return [
        (f"{name:<{label}}", "strong"),
        (written, "error" if shows_nonfinite(written) else "accent" if signed else ""),
        (f"   {note}" * bool(note), note_style),
    ]


def _short(value: float) -> str:
    return fitted(value, 8) if math.isfinite(value) else number(value)


def _cut(line: Line, width: int) -> Line:
    """Shorten the note at a row's end, or leave it out, where it would be cut off."""
    if length(line) <= width:
        return line
    note = line[-1][0].strip().partition(":")[0]  # "old: w 2, b 6" is still "old"
    shorter: Line = [*line[:-1], (f" {note}", line[-1][1])]
    return shorter if length(shorter) <= width else line[:-1]


def _summary_lines(frame: Frame, about: SessionInfo, width: int) -> list[Line]:
    """Draw a row a tensor: shape, mean, range, as far as there is room."""
    named = zip(about.names, (frame.inputs, frame.targets, frame.prediction), strict=True)
    rows = [(name, row) for name, row in named if row is not None]
    if not rows:
        beginning = "it is not known here" if frame.script else "this scenario does not say"
        return [[(f"{beginning} what {'the' if frame.script else 'its'} batch holds", "dim")]]
    name_width = max(map(len, about.names)) if knows_first_batch(frame) else max(len(name) for name, _ in rows)
    shapes = ["x".join(map(str, row.shape)) or "scalar" for _, row in rows]
    lines: list[Line] = []
    for (name, row), shape in zip(rows, shapes, strict=True):
        line: Line = [(f"{name:<{name_width}}  ", "strong"), (f"{shape:<{max(map(len, shapes))}}", "dim")]
        old = row is frame.prediction and frame.loss_is_old
        line.append(("  old" if old else "", "warn"))
        if row.mean is not None:
            texts = (f"  mean {measured(row.mean, sampled=row.sampled)}", f"  {number(row.min)} to {number(row.max)}")
            for text in texts:
                if length(line) + len(text) <= width:
                    line.append((text, ""))
        lines.append(line)
    return [*lines, _awaited(about, name_width)] if knows_first_batch(frame) else lines


def can_scatter(frame: Frame) -> bool:
    """Return whether the batch is points on a plane: one input, one target and, after a forward, a prediction each."""
    predicted = frame.loss_params is not None
    rows = (frame.inputs, frame.targets, frame.prediction) if predicted else (frame.inputs, frame.targets)
    sizes = {len(row.values) if row and row.values else 0 for row in rows}
    return len(sizes) == 1 and sizes != {0}


def scatter_title(frame: Frame, width: int) -> str:
    """Return the longest title over a content of `width` columns: what the marks are, and an old age."""
    old = ", old" * frame.loss_is_old
    titles: tuple[str, ...]
    if frame.loss_params is None:
        titles = (
            "Fit   o truth   no prediction here: forward makes one",
            "Fit   o truth   no prediction here",
            "Fit  o truth",
        )
        return next((title for title in titles if len(title) <= width - 2), "Fit")
    titles = (
        f"Fit   o truth   * prediction{old}   & both   ┊ error",
        f"Fit   o truth   * prediction{old}   & both",
        f"Fit  o truth  * prediction{old}",
        f"Fit  o y  * Q{old}",
    )
    return next((title for title in titles if len(title) <= width - 2), f"Fit{old}")


def scatter_lines(frame: Frame, width: int, height: int) -> list[Line]:
    """Draw o for the truth, * for the prediction, & for both in one row, and the error between them.

    The title says how old the prediction is: see `scatter_title`.
    """
    bare = height < 6  # no room for the axis below
    gutter, columns, rows = 8, width - 8, height if bare else height - 1
    if columns < 6 or rows < 2:
        return []
    xs, ys, qs = (row.values if row else None for row in (frame.inputs, frame.targets, frame.prediction))
    if not (can_scatter(frame) and xs and ys):
        return [[("no prediction here: forward makes one", "dim")]]
    qs = qs or (math.nan,) * len(ys)
    heights = [value for value in (*ys, *qs) if math.isfinite(value)]
    if not heights or not all(map(math.isfinite, xs)):
        return [[("no finite points to draw", "warn")]]
    low, high = min(heights), max(heights)
    left, right = min(xs), max(xs)

    def row(value: float) -> int:
        return round((high - value) / (high - low) * (rows - 1)) if 0 < high - low < math.inf else rows // 2

    def column(x: float) -> int:
        span = columns - 7
        return 3 + (round((x - left) / (right - left) * span) if 0 < right - left < math.inf else span // 2)

    cells: dict[tuple[int, int], tuple[str, str]] = {}

    def mark(cell: tuple[int, int], glyph: str, style: str) -> None:
        both = cells.get(cell, (glyph, ""))[0] not in (glyph, "┊")
        cells[cell] = ("&", "strong") if both else (glyph, style)

    for x, y, q in zip(xs, ys, qs, strict=True):
        at = column(x)
        if math.isfinite(q):
            predicted, truth = row(q), row(y) if math.isfinite(y) else row(q)
            for between in range(min(truth, predicted) + 1, max(truth, predicted)):
                cells.setdefault((between, at), ("┊", "dim"))
            mark((predicted, at), "*", "warn" if frame.loss_is_old else "accent")
        if math.isfinite(y):
            mark((row(y), at), "o", "strong")
    lines: list[Line] = []
    for index in range(rows):
        label = fitted(high, 6) if index == 0 else fitted(low, 6) if index == rows - 1 and high > low else ""
        line: Line = [(f"{label:>6} │"[:gutter], "dim")]
        line += [cells.get((index, at), (" ", "")) for at in range(columns)]
        lines.append(line)
    if bare:
        return lines
    under = f"{fitted(left, 7)} to {fitted(right, 7)}"
    if len(under) + 4 > columns:
        under = ""
    return [*lines, [(" " * 7 + "└──", "dim"), (f"{' ' * bool(under) + under:─>{columns - 2}}", "dim")]]
