"""The model's buffers, and what the last forward has changed in them."""

from __future__ import annotations

import math

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import ROW_WIDTH, StatsTable, TensorStats
from autograd_tui.text.nonfinite import shows_nonfinite
from autograd_tui.text.numbers import count, number
from autograd_tui.text.styled_text import Line, wrapped
from autograd_tui.text.table.table_rows import shorten_name


def buffer_lines(frame: Frame, layer: str, width: int, height: int) -> list[Line]:
    """Return a line on what has changed, and the few buffers that fit, those of `layer` first."""
    names = frame.buffers.layout.names
    changed = _changed(frame)
    order = sorted(range(len(names)), key=lambda index: not f"{names[index]}.".startswith(f"{layer}."))
    lines: list[Line] = wrapped(buffer_summary(frame, sum(changed)), width, style="dim")
    room = height - len(lines)
    room -= len(names) > room  # for the row that counts the others
    shown = order[: max(room, 0)]
    name_width = min(max((len(names[index]) for index in shown), default=0), max(width - 24, 8))
    lines += [_row(frame, index, name_width=name_width, width=width) for index in shown]
    if len(shown) < len(names):
        lines.append([(f"... {len(names) - len(shown)} more", "dim")])
    return lines


def buffer_summary(frame: Frame, changed: int) -> str:
    """Return a sentence on how many of the buffers have other numbers since before the last forward."""
    buffers = len(frame.buffers)
    if frame.buffers_before is None:
        beginning = "found" if frame.script is not None else "as the model was built"
        return f"{buffers} {beginning}: forward may change them"
    now = frame.phase is Phase.FORWARD and frame.error is None
    who = "forward" if now else "the last forward"
    unknown = len(frame.buffers.layout.left_out())
    beside = f", {unknown} not measured" * bool(unknown)
    if not changed:
        return f"{who} changed the numbers of none of {buffers}{beside}"
    return f"{who} changed {'all' if changed == buffers else f'{changed} of'} {buffers}{beside}"


def _changed(frame: Frame) -> list[bool]:
    """Return for each buffer whether its numbers are others than before the last forward."""
    now, before = frame.buffers, frame.buffers_before
    if before is None or now is before:
        return [False] * len(now)
    known = {name: index for index, name in enumerate(before.layout.names)}
    return [
        name not in known or _row_bits(now, index) != _row_bits(before, known[name])
        for index, name in enumerate(now.layout.names)
    ]


def _row_bits(table: StatsTable, index: int) -> tuple[object, ...]:
    numbers = table.numbers[index * ROW_WIDTH : (index + 1) * ROW_WIDTH]
    return table.layout.shapes[index], table.layout.dtypes[index], numbers.tobytes()


def _row(frame: Frame, index: int, *, name_width: int, width: int) -> Line:
    row: TensorStats = frame.buffers[index]
    was = frame.buffers_before.named(row.name) if frame.buffers_before is not None else None
    new, old = _content(row), _content(was) if was is not None else ""
    line: Line = [(f"{shorten_name(row.name, name_width):<{name_width}}  ", "strong")]
    if old and old != new and name_width + len(old) + len(new) + 5 <= width:
        line.append((f"{old} → ", "dim"))
    return [*line, (new, "error" * shows_nonfinite(new))]


def _content(row: TensorStats) -> str:
    """Write a single value, a whole number as one, else the norm; NaN stands for what the veil hides of any dtype."""
    if row.size == 1 and row.values:
        whole = not row.dtype.startswith(("float", "bfloat")) and math.isfinite(row.values[0])
        return count(int(row.values[0])) if whole else number(row.values[0])
    return f"norm {number(row.norm)}" if row.norm is not None else row.dtype
