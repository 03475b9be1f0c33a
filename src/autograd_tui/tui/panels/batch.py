"""The batch, what the model made of it, and the fit over one input feature."""

from __future__ import annotations

from autograd_tui.core.frame import Frame
from autograd_tui.text.batch_table import batch_lines, outputs_and_positions, prediction_lines
from autograd_tui.text.hidden_results import HiddenResults
from autograd_tui.text.numbers import bar, number
from autograd_tui.text.scatter import scatter_lines, scatter_title
from autograd_tui.text.styled_text import Line
from autograd_tui.tui.panels.panel import Panel


class DataPanel(Panel):
    """Value by value where they are few, else a row a tensor."""

    DEFAULT_CSS = "DataPanel { height: auto; }"

    def rows_wanted(self) -> int:
        """Take a row for each line."""
        return len(self.lines(max(self.content_size.width, 40), 6)) or 1

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw the table."""
        return batch_lines(frame, self.about, width) if self.about else []


class ScatterPanel(Panel):
    """Truth o, prediction *, both @; the title says so, and whether the prediction is old."""

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw the points."""
        self.retitle(scatter_title(frame, width))
        return scatter_lines(frame, width, height)

    def cover(self, hidden: HiddenResults, width: int, height: int) -> list[Line]:
        """Leave out what is hidden: where it stands would tell."""
        return self.draw(hidden.known, width, height)


class OutputPanel(Panel):
    """Five rows, of the first sample in the batch; two where there are positions."""

    DEFAULT_CSS = "OutputPanel { height: auto; }"

    def rows_wanted(self) -> int:
        """Take a row for each output shown."""
        if self.frame is None:
            return 5
        return 2 if outputs_and_positions(self.frame) else max(len(self.frame.top), 1)

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw names, numbers and bars."""
        shape = frame.prediction.shape if frame.prediction else ()
        samples = shape[0] if shape else 1
        if by_position := outputs_and_positions(frame):
            outputs, positions = by_position
            together = f" × {samples} samples" if samples > 1 else ""
            self.retitle(f"Output   {outputs} × {positions} positions{together}")
            return prediction_lines(frame)
        which = f"sample 1 of {samples}, " if samples > 1 else ""
        self.retitle(f"Output   {which}the largest 5 of {shape[-1] if shape else 0}")
        names = self.about.class_names if self.about else ()
        most = max((abs(value) for _, value, _ in frame.top), default=0.0)
        name_width = max((len(_name(place, names)) for place, _, _ in frame.top), default=0)
        bar_width = max(min(width - name_width - 39, 20), 0)
        lines: list[Line] = []
        for place, value, target in frame.top:
            line: Line = [(f"{_name(place, names):<{name_width}}", "strong"), (f"{number(value):>12}  ", "")]
            line.append((f"{bar(abs(value) / most if most else 0.0, bar_width):<{bar_width}}", "accent"))
            line.append((f"  label {number(target)}" if target is not None else "", "dim"))
            lines.append([*line, ("  old" if frame.loss_is_old else "", "warn")])
        return lines


def _name(place: int, names: tuple[str, ...]) -> str:
    return names[place] if place < len(names) else f"class {place}"
