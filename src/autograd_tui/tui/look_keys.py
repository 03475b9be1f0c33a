"""The keys that look at other frames than the one where training stands."""

from __future__ import annotations

from autograd_tui.tui.panels.loss import LossPanel
from autograd_tui.tui.requests import Look, Place
from autograd_tui.tui.training_screen import TrainingScreen


class LookKeys(TrainingScreen):
    """Looking is not going back: the engine is untouched, and escape returns."""

    def action_look(self, by: int) -> None:
        """Show the frame before or after; training stays where it is."""
        session, count, start = self.trainer.session, self.take_count(), self._start
        if self.frame is None or session is None:
            return
        if not isinstance(start, int):
            self._ask_to_look(Look(start, by * count))
            return
        index = min(max(start + by * count, 0), self.newest)
        if self.trainer.status.run is not None or self.trainer.sparse:
            # The nearest one that there is: making others would hold the run up.
            index = session.nearest(index, by)
        self.look_at(index)

    def action_look_at(self, index: int) -> None:
        """Show the first frame (0) or the newest (-1)."""
        if index >= 0:
            self.look_at(index)
        elif isinstance(self._start, int):
            self.look_at(self.newest)
        else:
            self._ask_to_look(Look("newest"))

    def action_look_alike(self, by: int) -> None:
        """Show the same phase of the iteration before or after."""
        if self.frame is not None:
            self._ask_to_look(Look(self._start, by, alike=True))

    @property
    def _start(self) -> Place:
        """Where a look goes on from: the frame shown, if nothing that was asked for will put another in its place."""
        stays = not self.awaited and (self.looking is not None or self.up_to_date or self.run_in_sight)
        return self.frame.index if self.frame is not None and stays else self.place

    def on_loss_panel_clicked(self, event: LossPanel.Clicked) -> None:
        """Show the frame of the point that was clicked."""
        self.look_at(event.index)

    def look_at(self, index: int) -> None:
        """Show a frame, made again where it is not kept."""
        session = self.trainer.session
        stored = session.stored(index) if session is not None and session.about is self.about else None
        if stored is not None:
            self.awaited = ()
            self.show_frame(stored)
        else:
            self._ask_to_look(Look(index))
        self.say(None)

    def _ask_to_look(self, look: Look) -> None:
        if self.ask_beside(look):
            self.awaited += (look,)
