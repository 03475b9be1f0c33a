"""An app whose colours and characters can be read, whatever the theme and the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import App
from textual.filter import LineFilter, Monochrome, NoColor
from textual.reactive import var

from autograd_tui.tui.filters import AsciiOnly, NoColour, Of256, nearest_of_256
from autograd_tui.tui.terminal import Terminal
from autograd_tui.tui.themes import USUAL, readable


class ReadableApp(App[int]):
    """Draws what the terminal can show."""

    ascii_only: var[bool] = var(False, init=False)

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal  # first, since Textual asks for the colours while it makes itself
        self._ascii = AsciiOnly(enabled=False)
        self._own_filters = (Of256(enabled=terminal.colors == 256), NoColour(enabled=terminal.colorless), self._ascii)
        super().__init__()
        self.no_color = terminal.colorless  # for Textual it is, even where NO_COLOR is set to nothing
        for usual in USUAL:
            self.register_theme(usual)
        self.stylesheet.set_variables(self.get_css_variables())

    def watch_ascii_only(self) -> None:
        """Draw everything anew."""
        self._ascii.enabled = self.ascii_only
        self.refresh_css(animate=False)

    def get_css_variables(self) -> dict[str, str]:
        """Put colours that can be read in place of the theme's own."""
        variables = super().get_css_variables()
        if self.terminal.colors == 256:
            return variables | readable(self.current_theme, variables, shown=nearest_of_256)
        return variables | readable(self.current_theme, variables)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Add those of this app; without colours Textual's leave greys."""
        filters = [each for each in super().get_line_filters() if not isinstance(each, (Monochrome, NoColor))]
        return [*filters, *(each for each in self._own_filters if each.enabled)]
