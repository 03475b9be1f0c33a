"""The one layout that there is, and the panel that may stand alone in it."""

from __future__ import annotations

from textual import events

from autograd_tui.core.frame import Frame
from autograd_tui.tui.layouts import SHORT, Layout, layout_for
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.training_screen import TrainingScreen


class LayoutScreen(TrainingScreen):
    """Lays the panels out for the terminal's size and the model."""

    zoomed = False  # whether one panel is alone

    @property
    def layout_shown(self) -> Layout:
        return self.query_one(Layout)

    def bound(self, layout: Layout) -> Layout:
        """Bind a layout to all that its panels draw."""
        screen = TrainingScreen
        layout.data_bind(screen.frame, screen.about, screen.history, screen.view)
        return layout.data_bind(screen.inspection, screen.veil, screen.log_scale, screen.plotted, screen.printed)

    async def on_resize(self, event: events.Resize) -> None:
        """Show all panels again, where the terminal's size wants them."""
        self.unzoom()
        self.set_class(event.size.height < SHORT, "-short")
        await self.lay_out(self.frame)

    async def lay_out(self, frame: Frame | None) -> None:
        """Put the right layout in the place of another one, all at once; a chosen panel stays chosen."""
        async with self.batch():
            old, wanted = self.query_one_optional(Layout), layout_for(self.app.size, frame)
            if old is None or type(old) is wanted or not self.is_attached:  # none any more when the screen closes
                return
            self.unzoom()
            chosen = self.focused if isinstance(self.focused, Panel) else None
            if chosen is not None:
                self.set_focus(None)  # or Textual would choose a neighbour
            layout = wanted()
            await self.mount(layout, after="#status")
            self.bound(layout)  # now that its panels are there: they have the frame before they are first seen
            await old.remove()  # last, so that a key finds a layout at any moment
        if chosen is not None:
            self.set_focus(next(iter(layout.query(type(chosen))), None), scroll_visible=False)

    def zoom(self, panel: Panel) -> None:
        """Show one panel alone."""
        self.zoomed = True
        self.layout_shown.zoom(panel)

    def unzoom(self) -> bool:
        """Show all panels again; tell whether one was alone."""
        alone, self.zoomed = self.zoomed, False
        if alone and (layout := self.query_one_optional(Layout)):
            layout.zoom(None)
        return alone
