"""The panel of a small model's parameters: a row each, with the value, how it moved, and its gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.loss_surface import LossSurface
from autograd_tui.core.tensor_stats import GradStats, TensorStats
from autograd_tui.text.hidden_results import HiddenResults, cover_hidden
from autograd_tui.text.nonfinite import number_style, shows_nonfinite
from autograd_tui.text.numbers import bar, number
from autograd_tui.text.styled_text import Line, Span
from autograd_tui.text.table.gradient_status import FULL_WORDS, gradient_statuses, largest_number, main_words
from autograd_tui.text.table.gradient_status import main_number as grad_number
from autograd_tui.text.table.layers import ParameterColumns
from autograd_tui.text.table.table_rows import shorten_names
from autograd_tui.tui.panels.table import RowPanel

MIN_BAR, MAX_BAR = 3, 10  # cells of a gradient's bar, on each side of its axis
MIN_NAME_WIDTH = 6
GAP = 2  # blanks before a column


@dataclass(frozen=True, slots=True)
class ParameterColumn:
    """What stands over a column, and in it for each parameter; numbers are aligned at the right, words at the left."""

    heading: Span
    cells: Sequence[Span]
    words: bool = False
    gap: int = GAP  # blanks before it
    least: int = 0  # characters that it takes at least

    @property
    def width(self) -> int:
        """The characters of the longest cell, or of the heading; 0 where every cell is empty."""
        longest = max((len(text) for text, _ in self.cells), default=0)
        return max(longest, len(self.heading[0]), self.least) if longest else 0

    def cell(self, index: int) -> Span:
        """Return a cell as wide as the column; -1 is the heading."""
        text, style = self.heading if index < 0 else self.cells[index]
        return (f"{text:<{self.width}}" if self.words else f"{text:>{self.width}}"), style


class ParametersPanel(RowPanel):
    """A row a parameter: before and now, how far it moved, the gradient with its bar, and what has become of that."""

    DRAWN_FROM = (*RowPanel.DRAWN_FROM, "surface")

    def __init__(self, *, title: str = "") -> None:
        super().__init__(title=title)
        self._columns: dict[str, ParameterColumn] = {}  # as drawn last
        self._covered: dict[str, ParameterColumn] | None = None  # those that others are drawn to lie over

    def rows_wanted(self) -> int:
        """Take a row for each parameter, and one for the headings."""
        return self.count() + 1

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw the columns that there is room for, and the headings where all rows have room besides."""
        listed = self.listed(frame, ParameterColumns.of(frame))
        heading = height > len(listed)
        visible, more = self.fitting(listed, height - heading)
        self._shown = [*[None] * heading, *visible]
        indent = 2 * (self.view.table.cursor is not None)
        surface, covered = self.view.surface, self._covered
        self._columns = _columns(frame, width - indent, heading=heading, surface=surface, covered=covered)
        columns = list(self._columns.values())
        lines = [self.marked(row, _line(columns, row.parameter or 0)) for row in visible]
        if heading:
            lines.insert(0, [(" " * indent, ""), *_line(columns, -1)])
        return lines + more

    def cover(self, hidden: HiddenResults, width: int, height: int) -> list[Line]:
        """Cover what is hidden; what is known stands in the same columns, though its numbers have other widths."""
        assert self.frame is not None
        lines = self.draw(self.frame, width, height)
        self._covered = self._columns
        known = self.draw(hidden.known, width, height)
        self._covered = None
        return cover_hidden(lines, known)


def _line(columns: Sequence[ParameterColumn], index: int) -> Line:
    cells = [(column.gap * bool(place), *column.cell(index)) for place, column in enumerate(columns)]
    return [(f"{'':{gap}}{text}", style) for gap, text, style in cells]


def _columns(
    frame: Frame,
    width: int,
    *,
    heading: bool,
    surface: LossSurface | None,
    covered: Mapping[str, ParameterColumn] | None = None,
) -> dict[str, ParameterColumn]:
    """Return the columns that fit, from left to right; those that matter least go first.

    covered: the columns of another frame, over which these are to lie.
    """
    pairs = list(zip(frame.before or frame.params, frame.params, strict=True))
    statuses = gradient_statuses(frame)
    alike = statuses[0] if heading and all(frame.grads.backwards) and len(set(statuses)) == 1 else ""
    now = ParameterColumn(("now", "dim"), [_value(new, "strong" if _is_new(frame) else "") for _, new in pairs])
    grad = ParameterColumn((".grad", "dim"), [_gradient(frame, index) for index in range(len(pairs))])
    longest = max(len(new.name) for _, new in pairs)
    least = sum(column.width + GAP for column in (now, grad))
    bar_width = max(2 * MIN_BAR + 1, len(alike))
    if alike and width < min(longest, MIN_NAME_WIDTH) + least + bar_width + GAP:
        alike = ""  # there is no room for bars, and so none for it above them
    ages = [] if alike else _ages(frame, statuses)
    age = ParameterColumn(("", ""), ages, words=True, gap=GAP if any(frame.grads.backwards) else 1)  # "None was 1.3"
    left = width - least - (age.width + age.gap if age.width else 0)
    name_width = min(longest, max(left, MIN_NAME_WIDTH))
    left -= name_width

    moves = [_moved(frame, index, *pair) for index, pair in enumerate(pairs)]
    before = [_value(old, "dim", " →") if move[0] else ("", "") for move, (old, _) in zip(moves, pairs, strict=True)]
    optional = {
        "label": ParameterColumn(
            ("", ""), [("norm" * (not _is_one_value(new)), "dim") for _, new in pairs], words=True
        ),
        "bar": ParameterColumn(("", ""), [(" " * bar_width, "")] * any(frame.grads.backwards)),
        "moved": ParameterColumn((_moved_by(frame), "dim"), moves, words=True),
        "before": ParameterColumn(("before  ", "dim"), before),
        "lowest": ParameterColumn(("lowest", "dim"), _lowest(frame, surface)),
        "shape": ParameterColumn(("", ""), [(_shape(new), "dim") for _, new in pairs], words=True),
    }
    kept: dict[str, ParameterColumn] = {}
    for key, column in optional.items():
        gaps = 1 if key == "before" else GAP  # between it and the value now is a blank less
        if 0 < column.width <= left - gaps if covered is None else column.width and key in covered:
            kept[key] = column
            left -= column.width + gaps
    if "bar" in kept:
        bar_width = min(bar_width + max(left, 0), 2 * MAX_BAR + 1)
        kept["bar"] = _bars(frame, bar_width if covered is None else covered["bar"].width, alike)
    if "shape" in kept and "label" in kept:
        kept["label"] = replace(kept["label"], gap=1)
    if "before" in kept:
        now = replace(now, gap=1)
    names = [(name, "strong") for name in shorten_names([new.name for _, new in pairs], name_width)]
    kept |= {"name": ParameterColumn(("", ""), names, words=True), "now": now, "gradient": grad, "age": age}
    order = ("name", "shape", "label", "before", "now", "moved", "gradient", "bar", "age", "lowest")
    columns = {key: kept[key] for key in order if key in kept and (kept[key].width or key == "name")}
    if covered is None:
        return columns
    return {key: replace(each, least=covered[key].width if key in covered else 0) for key, each in columns.items()}


def _is_new(frame: Frame) -> bool:
    """Return whether the command that led to this frame has moved parameters."""
    return frame.mover is not None and frame.mover is frame.command and frame.error is None


def _value(row: TensorStats, style: str, after: str = "") -> Span:
    value = value_or_norm(row)
    return number(value) + after, number_style(value, style)


def _is_one_value(row: TensorStats) -> bool:
    """Return whether a tensor's only value stands for it, not its norm."""
    return row.size == 1 and bool(row.values)


def _shape(row: TensorStats) -> str:
    return "" if _is_one_value(row) else "×".join(map(str, row.shape))


def _moved_by(frame: Frame) -> str:
    if frame.mover is None:
        return ""
    return ("this step" if _is_new(frame) else "last step") if frame.mover.phase is Phase.STEP else "by you"


def _moved(frame: Frame, index: int, old: TensorStats, new: TensorStats) -> Span:
    """Write the way from a value, or a norm, to the next, with an arrow; nothing where no command has moved it."""
    was, now = value_or_norm(old), value_or_norm(new)
    by_you = frame.mover is not None and frame.mover.phase is not Phase.STEP
    if was is None or now is None or frame.before is None or (by_you and was == now):
        return "", ""
    moved = now - was
    arrow, style = way_of(was, now)
    if arrow == "=" and index in frame.frozen:
        return "", ""
    text = f"{arrow} {number(moved, signed=True)}"
    return text, number_style(moved, style if _is_new(frame) else "dim")


def way_of(was: float, now: float) -> tuple[str, str]:
    """Return the arrow from one number to another, and its style: "!" where one of them is NaN or infinite."""
    if not (math.isfinite(was) and math.isfinite(now)):
        return ("=", "dim") if was == now or (was != was and now != now) else ("!", "error")
    return ("▲", "positive") if now > was else ("▼", "negative") if now < was else ("=", "dim")


def value_or_norm(row: TensorStats) -> float | None:
    """Return the value of a tensor that has one, else its norm."""
    return row.values[0] if row.size == 1 and row.values else row.norm


def _gradient(frame: Frame, index: int) -> Span:
    grad: GradStats | None = frame.grads[index]
    if grad is None:
        return ("frozen", "dim") if index in frame.frozen else ("None", "")
    return main_words(grad), number_style(grad_number(grad), "" if grad.used else "strong")


def _ages(frame: Frame, statuses: Sequence[str]) -> list[Span]:
    """Return what has become of each gradient; of one that is not there, why, or what the last one was."""
    return [_age(frame, index, status) for index, status in enumerate(statuses)]


def _age(frame: Frame, index: int, status: str) -> Span:
    if frame.grads[index] is not None:
        return status, "" if status == "fresh" else "warn"
    if index in frame.frozen:
        return "", ""
    if index in frame.unused:
        return status, "dim"
    last = frame.last_grads and frame.last_grads[index]
    words = f"was {main_words(last)}" if last else ""
    return words, "error" if shows_nonfinite(words) else "dim"


def _bars(frame: Frame, width: int, heading: str) -> ParameterColumn:
    """Draw how large the gradients are: from an axis to the side of their sign where each is a single value.

    heading: what has become of all of them.
    """
    held = [grad for grad in frame.grads if grad is not None]
    signed = all(grad.size == 1 and grad.values for grad in held)
    largest = largest_number(frame)
    cells = [_bar(grad, width, largest=largest, signed=signed) if grad else ("", "") for grad in frame.grads]
    words = FULL_WORDS.get(heading, heading)
    words = words if len(words) <= width else heading
    drawn = [(f"{text:<{width}}", style) for text, style in cells]
    return ParameterColumn((words, "dim" if heading == "fresh" else "warn"), drawn, words=True)


def _bar(grad: GradStats, width: int, *, largest: float, signed: bool) -> Span:
    value = grad_number(grad)
    style = number_style(value, "dim" if grad.used else _sign_style(grad))
    if value is None or not math.isfinite(value):
        return ("?" if value is not None else ""), style
    share = abs(value) / largest if largest else 0.0
    if not signed:
        return bar(share, width), style
    side = (width - 1) // 2
    blocks = "█" * max(round(share * side) - 1, 0)
    drawn = f"{blocks}▶" if value > 0 else f"◀{blocks}" if value < 0 else ""
    return (f"{'':>{side}}|{drawn}" if value > 0 else f"{drawn:>{side}}|"), style


def _sign_style(grad: GradStats) -> str:
    """Return the style of a fresh gradient's bar: that of its sign, where it is a single value."""
    if grad.size > 1 or not grad.values:
        return "up"
    return "positive" if grad.values[0] > 0 else "negative"


def _lowest(frame: Frame, surface: LossSurface | None) -> list[Span]:
    """Return the value at which the loss is lowest, of each of two parameters of one value; else nothing."""
    quadratic = surface.quadratic if surface is not None else None
    if surface is None or quadratic is None or tuple(frame.params.layout.names) != surface.names:
        return []
    return [(number(quadratic.x), "dim"), (number(quadratic.y), "dim")]
