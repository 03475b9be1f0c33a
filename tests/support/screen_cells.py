"""What stands in each cell of the running app's screen, as its terminal gets it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.color import Color as RichColor
from rich.style import Style
from textual.app import App
from textual.color import Color

from autograd_tui.tui.themes import contrast

MAP = "▀"  # two heights of a map, one over the other
FRAMES = MAP + "▔▁" + "".join(map(chr, range(0x2500, 0x2580)))  # borders and axes: nothing to read


@dataclass(frozen=True)
class Cell:
    character: str
    style: Style

    @property
    def colors(self) -> list[RichColor]:
        """Give the colours that are set, of the character and of what it stands on."""
        return [color for color in (self.style.color, self.style.bgcolor) if color]

    @property
    def contrast(self) -> float:
        assert not self.style.dim  # each terminal has its own idea of that
        return contrast(_rgb(self.style.color), _rgb(self.style.bgcolor))


def _rgb(color: RichColor | None) -> Color:
    assert color is not None
    return Color(*color.get_truecolor())


def cells(app: App[int]) -> Iterator[Cell]:
    """Read the screen; what shows beside a dialog is not to be read, and left out."""
    update = app.screen._compositor.render_update(full=True, screen_stack=app._background_screens)
    dialog = len(app.screen_stack) > 2
    for y, strips in enumerate(update.strips):  # type: ignore[union-attr]
        row = [(one, style) for strip in strips for text, style, _ in strip for one in text]
        for x, (character, style) in enumerate(row):
            if not (dialog and app.screen.get_widget_at(x, y)[0] is app.screen):
                yield Cell(character, style or Style.null())


def words(app: App[int]) -> list[Cell]:
    """Give the cells that are there to be read, as a scrollbar's are not."""
    written = (cell for cell in cells(app) if not cell.character.isspace() and cell.character not in FRAMES)
    return [cell for cell in written if "@mouse.down" not in cell.style.meta]
