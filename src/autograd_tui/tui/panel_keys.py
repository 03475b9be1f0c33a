"""The keys that choose a panel and show it alone, and what the console shows."""

from __future__ import annotations

from autograd_tui.core.errors import Refused
from autograd_tui.tui.layout_screen import LayoutScreen
from autograd_tui.tui.panels.console import ConsolePanel
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.panels.status import Note

MOST_LINES = 200  # of what a model prints, on the screen
NO_CHOICE = Note("there is room for one panel alone here", "warn")
PRINT_SECONDS = 0.1  # between two looks at it: a model may print thousands of lines


class PanelKeys(LayoutScreen):
    """Knows which panel is chosen, and how much has been printed."""

    _prints_wait = False

    def action_panel(self, by: int) -> None:
        """Choose the next panel, or the one before."""
        self.unzoom()
        panels = self._to_choose_from()
        if not panels:
            self.say(NO_CHOICE)
            return
        at = panels.index(self.focused) + by if self.focused in panels else min(by, 0)
        self.set_focus(panels[at % len(panels)], scroll_visible=False)

    def action_zoom(self) -> None:
        """Show the chosen panel alone, or all panels again."""
        if self.zoomed:
            self.unzoom()
        elif isinstance(self.focused, Panel):
            self.zoom(self.focused)
        elif self._to_choose_from():
            self.say(Note("tab chooses a panel, and then a shows it alone", "warn"))
        else:
            self.say(NO_CHOICE)

    def _to_choose_from(self) -> list[Panel]:
        return [each for each in self.layout_shown.query(Panel) if each.can_focus and each.content_size.area]

    def show_console(self) -> None:
        """Show what the model has printed, alone."""
        if not self.printed:
            raise Refused("the model has printed nothing so far.")
        self.unzoom()
        self.zoom(self.layout_shown.query_one(ConsolePanel))

    def heard_lines(self) -> None:
        """Look in a moment at what was printed; called on any thread, and as often as lines come."""
        if not self._prints_wait:
            self._prints_wait = True
            self.later(self.set_timer, PRINT_SECONDS, self._look_at_prints)

    def _look_at_prints(self) -> None:
        self._prints_wait = False
        self.printed = self.output.last(MOST_LINES)
        self.say(None)
