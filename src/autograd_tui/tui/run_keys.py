"""The keys that run something, and the veil over what it brings."""

from __future__ import annotations

from functools import partial
from typing import Literal

from autograd_tui.core.command import LETTERS, Command
from autograd_tui.core.session_view import Goal
from autograd_tui.text.hidden_results import STAGES
from autograd_tui.tui.panels.phases import PhasesPanel
from autograd_tui.tui.panels.status import Note
from autograd_tui.tui.run_speed import faster, pace_in_words, slower
from autograd_tui.tui.training_screen import TrainingScreen


class RunKeys(TrainingScreen):
    """Each asks the trainer thread, which answers with frames."""

    def action_phase(self, letter: str) -> None:
        """Run one phase; whether it is its turn is decided when it is."""
        self.ask(LETTERS[letter])

    def on_phases_panel_clicked(self, event: PhasesPanel.Clicked) -> None:
        """Run the phase that was clicked."""
        self.ask(Command(event.phase.value))

    def action_run(self, what: Literal["next", "iteration", "run"]) -> None:
        """Run the next phase, or the rest of the iteration; pause a run, or lift the veil, instead."""
        if self.run_in_sight:
            self.stop()
        elif what == "run":
            self.ask(Goal(), pauses=True)
        elif what == "iteration" or not self._lift_the_veil():
            self.ask(what, pauses=True)

    def _lift_the_veil(self) -> bool:
        """Show more of what is hidden, or see in turn whether anything is; False where nothing can be."""
        if not self.veiling or self.looking is not None:
            return False
        if self.veil is None:
            waits = not self.trainer.idle and self.latest is not None
            if waits:
                self.in_turn(partial(self.action_run, "next"))
            return waits
        self.stage += 1
        self.draw_veil()
        self.say(None)
        return True

    def action_veil(self) -> None:
        """Hide new numbers from now on until the next space, or show them all again, where any are trained here."""
        if not self.trainer.trains:
            self.say(Note("the veil does nothing here: what is shown was trained before, or elsewhere", "warn"))
            return
        self.veiling = not self.veiling
        self.stage = STAGES  # what is on the screen already stays
        self.draw_veil()
        self.say(None if self.veiling else Note("the veil is gone"))

    def action_pace(self, which: Literal["faster", "slower"]) -> None:
        """Run faster or slower."""
        self.trainer.pace = (faster if which == "faster" else slower)(self.trainer.pace)
        self.say_pace()

    def say_pace(self) -> None:
        """Say how fast a run is or will be."""
        self.say(None if self.trainer.status.run is not None else Note(f"r runs at {pace_in_words(self.trainer.pace)}"))

    def action_count(self, digit: int) -> None:
        """Add a digit to the count for the next key."""
        self.count = (self.count + str(digit)).lstrip("0")[:6]
        self.say(None)

    def action_undo(self) -> None:
        """Go back by one command, or by as many as were counted."""
        self.ask("undo")
