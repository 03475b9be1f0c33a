"""Parameters, before and after the last thing that moved them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from autograd_tui.engine.command import Phase
from autograd_tui.engine.frame import Frame
from autograd_tui.engine.stats_table import SAMPLE, TensorStats
from autograd_tui.text.layers import Layer, layers, ratio
from autograd_tui.text.line import Line, length
from autograd_tui.text.numbers import count, fitted, number
from autograd_tui.tui.panels.panel import Panel

MOST_ROWS = 12  # a model with more parameters is shown by layers


class ParametersPanel(Panel):
    """A row a parameter; a large model's are folded into its layers."""

    DEFAULT_CSS = "ParametersPanel { height: auto; max-height: 60%; }"

    def rows_wanted(self) -> int:
        """Take a row for each parameter, or for each layer."""
        if self.frame is None:
            return 2
        return len(self.frame.params) if len(self.frame.params) <= MOST_ROWS else len(layers(self.frame)) + 2

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw values where a parameter has one, else norms."""
        if len(frame.params) > min(height, MOST_ROWS):
            sampled = any(row.size > SAMPLE for row in frame.params)
            self.retitle("Parameters   update: by the last step" + ", ~ from a sample" * sampled)
            return folded(frame, layers(frame), width, height)
        before = frame.before or frame.params
        pairs = list(zip(before, frame.params, strict=True))
        name_width = max(len(row.name) for row in frame.params)
        number_width = max(len(number(main_number(row))) for pair in pairs for row in pair)
        rows = (_row(frame, old, new, name_width=name_width, width=number_width) for old, new in pairs)
        return [row if length(row) <= width else row[:-1] for row in rows]


def _row(frame: Frame, old: TensorStats, new: TensorStats, *, name_width: int, width: int) -> Line:
    was, now = main_number(old), main_number(new)
    label = "" if new.size == 1 else f"{'×'.join(map(str, new.shape))} norm "
    line: Line = [(f"{new.name:<{name_width}}  ", "strong"), (label, "dim")]
    set_by_hand = frame.mover is not None and frame.mover.phase is None
    if was is None or now is None or frame.before is None or (set_by_hand and was == now):
        return [*line, (f"{number(now):>{width}}", "")]
    by = mover(frame) if frame.error is None and frame.mover is frame.command else ""
    moved = now - was
    arrow, style = ("▲", "up") if moved > 0 else ("▼", "down") if moved < 0 else ("=", "dim")
    line += [(f"{number(was):>{width}} → ", "dim"), (f"{number(now):>{width}}", "strong" if by else "")]
    line += [(f"  {arrow} {number(moved, signed=True)}", style if by else "dim")]
    if by:
        return [*line, (f"  {'changed' if moved else 'not moved'} by {by}", "")]
    return [*line, (f"  by {mover(frame).replace('this', 'the last')}", "dim")]


def mover(frame: Frame) -> str:
    """Name what moved the parameters last."""
    return "this step" if frame.mover and frame.mover.phase is Phase.STEP else "you"


def main_number(row: TensorStats) -> float | None:
    """Give the value of a tensor that has one, else its norm."""
    return row.values[0] if row.size == 1 and row.values else row.norm


def folded(frame: Frame, found: list[Layer], width: int, height: int) -> list[Line]:
    """Draw a row a layer, as many as fit, and one for all of them together."""
    total = together(frame, found)
    name_width = max(len(layer.name) for layer in [*found, total])
    columns = [column for column in COLUMNS if column.heading in _fitting(width - name_width)]

    def row(layer: Layer, style: str = "") -> Line:
        cells = [(f"{column.write(layer):>{column.width}}", column.style or style) for column in columns]
        return [(f"{layer.name:<{name_width}}", style), *cells]

    room = height - 2
    shown = found if len(found) <= room else found[: max(room - 1, 0)]
    heading = f"{'layer':<{name_width}}" + "".join(f"{column.heading:>{column.width}}" for column in columns)
    lines: list[Line] = [[(heading, "dim")], *map(row, shown)]
    if len(shown) < len(found):
        lines.append([(f"... {len(found) - len(shown)} more layers", "dim")])
    return [*lines, row(total, "strong")]


def together(frame: Frame, found: list[Layer]) -> Layer:
    """Add up all layers."""
    update = None
    if frame.moves is not None and frame.before is not None:
        update = ratio(frame.moves, [frame.before.norm()])
    size = sum(layer.size for layer in found)
    estimated = any(layer.estimated for layer in found)
    return Layer("all", len(frame.params), size, frame.params.norm(), frame.grads.norm(), update, estimated)


def _fitting(width: int) -> set[str]:
    """Name the columns that fit; those that matter least go first."""
    kept = list(COLUMNS)
    for heading in ("tensors", "values", "|params|"):
        if sum(column.width for column in kept) > width:
            kept = [column for column in kept if column.heading != heading]
    return {column.heading for column in kept}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table by layer."""

    heading: str
    width: int
    write: Callable[[Layer], str]
    style: str = ""


def _percent(layer: Layer) -> str:
    if layer.update is None:
        return "-"
    return f"{'~' * layer.estimated}{fitted(layer.update * 100, 7)}%" if math.isfinite(layer.update) else "?"


COLUMNS = (
    Column("tensors", 9, lambda layer: str(layer.tensors), "dim"),
    Column("values", 12, lambda layer: count(layer.size), "dim"),
    Column("|params|", 11, lambda layer: number(layer.norm)),
    Column("|grad|", 11, lambda layer: "None" if layer.grad_norm is None else number(layer.grad_norm), "accent"),
    Column("update", 11, _percent),
)
