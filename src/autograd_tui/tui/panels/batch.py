"""The batch, what the model made of it, the fit over one input feature, and the picture of what is learned."""

from __future__ import annotations

from autograd_tui.core.frame import Frame
from autograd_tui.core.picture import Picture
from autograd_tui.text.batch_table import (
    batch_lines,
    outputs_and_positions,
    prediction_lines,
    scatter_lines,
    scatter_title,
)
from autograd_tui.text.hidden_results import HiddenResults
from autograd_tui.text.numbers import bar, number
from autograd_tui.text.picture_lines import age, legend, picture_lines
from autograd_tui.text.styled_text import Line
from autograd_tui.tui.panels.panel import Panel

MIN_BAR, MAX_BAR = 4, 20  # cells of the bars of outputs; targets stand behind them where there is room for both
MANY_ROWS = 1000  # more than any picture of text has


class DataPanel(Panel):
    """Value by value where they are few, else a row a tensor."""

    DEFAULT_CSS = "DataPanel { height: auto; }"
    _table: tuple[object, list[Line]] = None, []  # drawn last, and what of: the layout asks before each drawing

    def rows_wanted(self) -> int:
        return len(self.lines(max(self.offered_width, 40), 6)) or 1

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        if self.about is None:
            return []
        asked = frame, self.about, width
        if asked != self._table[0]:
            self._table = asked, batch_lines(*asked)
        return self._table[1]


class ScatterPanel(Panel):
    """Truth o, prediction *, both &; the title says so, and whether the prediction is old."""

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        self.retitle(scatter_title(frame, width))
        return scatter_lines(frame, width, height)

    def cover(self, hidden: HiddenResults, width: int, height: int) -> list[Line]:
        """Leave out what is hidden: where it stands would tell."""
        return self.draw(hidden.known, width, height)


class OutputPanel(Panel):
    """Five rows, of one sample in the batch; two where there are positions."""

    DRAWN_FROM = (*Panel.DRAWN_FROM, "sample")
    DEFAULT_CSS = "OutputPanel { height: auto; }"

    def rows_wanted(self) -> int:
        if self.frame is None:
            return 5
        return 2 if outputs_and_positions(self.frame) else max(len(self.frame.top_of(0)), 1)

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        if by_position := outputs_and_positions(frame):
            outputs, positions = by_position
            samples = frame.prediction.shape[0] if frame.prediction and frame.prediction.shape else 1
            together = f" × {samples} samples" if samples > 1 else ""
            self.retitle(f"Output   {outputs} × {positions} positions{together}")
            return prediction_lines(frame)
        if frame.script is not None and frame.prediction is None:  # in a free run it was not looked at
            self.retitle("Output")
            return [[("not known at this stop", "dim")]]
        sample = min(self.view.sample, max(frame.top_samples - 1, 0))
        top = frame.top_of(sample)[: height or None]
        self.retitle(top_title(frame, sample, width, len(top)))
        names = self.about.class_names if self.about else ()
        most = max((abs(value) for _, value, _ in top), default=0.0)
        name_width = max((len(_name(index, names)) for index, _, _ in top), default=0)
        targets = max((len(f"  target {number(target)}") for *_, target in top if target is not None), default=0)
        room = width - name_width - 14 - 5 * frame.loss_is_old  # for a bar, and the target behind it
        bar_width = min(room - targets if room - targets >= MIN_BAR else max(room, 0), MAX_BAR)
        lines: list[Line] = []
        for index, value, target in top:
            line: Line = [(f"{_name(index, names):<{name_width}}", "strong"), (f"{number(value):>12}  ", "")]
            line.append((f"{bar(abs(value) / most if most else 0.0, bar_width):<{bar_width}}", "accent"))
            fits = target is not None and room - targets >= MIN_BAR
            line.append((f"  target {number(target)}" if fits else "", "dim"))
            lines.append([*line, ("  old" if frame.loss_is_old else "", "warn")])
        return lines


def top_title(frame: Frame, sample: int, width: int, rows: int) -> str:
    """Return the longest title over a content of `width` columns and so many rows: which sample's outputs these are,
    and how many.
    """
    shape = frame.prediction.shape if frame.prediction else ()
    outputs = f"the largest {rows} of {shape[-1] if shape else 0}"
    if not shape or shape[0] == 1:
        return f"Output   {outputs}"
    which = f"{kind_of_sample(frame)} {sample + 1} of {shape[0]}"
    titles = (f"Output   {which}   [ ] another   {outputs}", f"Output   {which}   [ ] another", f"Output   {which}")
    return next((title for title in titles if len(title) <= width - 2), which)


def kind_of_sample(frame: Frame) -> str:
    """Return "image" where the inputs are a batch of some, else "sample"."""
    return "image" if frame.inputs is not None and len(frame.inputs.shape) == 4 else "sample"


def _name(index: int, names: tuple[str, ...]) -> str:
    return names[index] if index < len(names) else f"class {index}"


class PicturePanel(Panel):
    """The picture of the frame shown, or the newest one, with the number of steps that it was taken after."""

    DRAWN_FROM = (*Panel.DRAWN_FROM, "pictures")

    def is_text(self) -> bool:
        """Return whether the newest picture is text, which has so many rows and no more."""
        newest = self.view.pictures[-1] if self.view.pictures else None
        return newest is not None and bool(newest.texts or newest.rows)

    def rows_wanted(self) -> int:
        """Take the rows that a picture of text has."""
        if not self.is_text():
            return 1
        return len(picture_lines(self.view.pictures[-1], self.offered_width, MANY_ROWS))

    def draw(self, frame: Frame, width: int, height: int) -> list[Line]:
        """Draw the frame's own picture, where it was taken and is kept."""
        return self._draw(frame, self.view.pictures, width, height)

    def cover(self, hidden: HiddenResults, width: int, height: int) -> list[Line]:
        """Show the picture before the frame while its parameters are hidden."""
        assert self.frame is not None
        pictures = self.view.pictures
        if hidden.known.params is not self.frame.params:
            pictures = tuple(picture for picture in pictures if picture.index < self.frame.index)
        return self._draw(hidden.known, pictures, width, height)

    def _draw(self, frame: Frame, pictures: tuple[Picture, ...], width: int, height: int) -> list[Line]:
        title = (self.about.picture if self.about else "") or "Picture"
        if not pictures:
            self.retitle(title)
            return [[("the picture is being taken" if not self.view.pictures else "no picture of this frame", "dim")]]
        own = next((each for each in reversed(pictures) if each.is_of(frame)), None)
        picture = own or pictures[-1]
        age_words = age(picture, frame.index if own is None else picture.index, frame.steps)
        names, short = legend(picture), f"step {picture.steps:,}" if own else age_words
        choices = [
            [title, names, age_words],
            [names, age_words],
            [names, short],
            *([[names]] if own else []),
            [age_words],
        ]
        titles = ["   ".join(filter(None, parts)) for parts in choices]
        self.retitle(next((each for each in titles if len(each) <= width), age_words))
        hint = "O X on the wrong side" if picture.plane is not None and picture.plane.classes else ""
        if self.border_subtitle != hint:
            self.border_subtitle = hint
        return picture_lines(picture, width, height, colors=self.has_ramp)
