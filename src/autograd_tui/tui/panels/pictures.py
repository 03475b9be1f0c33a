"""What the model has learned, as the scenario's own picture function shows it."""

from __future__ import annotations

from autograd_tui.core.frame import Frame
from autograd_tui.core.picture import Picture
from autograd_tui.text.hidden_results import HiddenResults
from autograd_tui.text.picture_lines import age, legend, picture_lines
from autograd_tui.text.styled_text import Line
from autograd_tui.tui.panels.panel import Panel

MANY_ROWS = 1000  # more than any picture of text has


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
