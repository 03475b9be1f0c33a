"""The keys that look at other frames than the one where training stands."""

from __future__ import annotations

from autograd_tui.tui.panels.loss import LossPanel
from autograd_tui.tui.requests import Look, Request
from autograd_tui.tui.training_screen import TrainingScreen


class LookKeys(TrainingScreen):
    """Looking is not going back: the engine is untouched, and escape returns."""

    def action_look(self, by: int) -> None:
        """Show the frame before or after; training stays where it is."""
        session, count = self.trainer.session, self.take_count()
        if self.frame is None or session is None:
            return
        index = min(max(self.frame.index + by * count, 0), self.newest)
        if self.trainer.status.run is not None or self.trainer.sparse:
            # The nearest one that there is: making others would hold the run up.
            index = session.nearest(index, by)
        self.look_at(index)

    def action_look_at(self, index: int) -> None:
        """Show the first frame (0) or the newest (-1)."""
        self.look_at(self.newest if index < 0 else index)

    def action_look_alike(self, by: int) -> None:
        """Show the same phase of the iteration before or after."""
        if self.frame is not None:
            self._ask_to_look(Look(self.frame.index, by))

    def on_loss_panel_clicked(self, event: LossPanel.Clicked) -> None:
        """Show the frame of the point that was clicked."""
        self.look_at(event.index)

    def look_at(self, index: int) -> None:
        """Show a frame, made again where it is not kept."""
        stored = self.trainer.session.stored(index) if self.trainer.session else None
        if stored is not None:
            self.show_frame(stored)
        else:
            self.looking = index
            self._ask_to_look(Look(index))
        self.say(None)

    def _ask_to_look(self, look: Look) -> None:
        self.awaited = look
        self.trainer.ask(Request(look))
        self.watch_the_clock()
