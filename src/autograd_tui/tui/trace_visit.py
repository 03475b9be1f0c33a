"""A visit to the trace screen: from the key that asks for a trace until that screen is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autograd_tui.core.errors import Refused
from autograd_tui.text.prompt.completion import Candidate
from autograd_tui.text.prompt.parser import ScreenCommand, parse_prompt
from autograd_tui.tui.requests import CheckGradient, Record
from autograd_tui.tui.screen_state import Note
from autograd_tui.tui.trace_screen import TraceScreen
from autograd_tui.tui.trainer_status import Update

if TYPE_CHECKING:
    from autograd_tui.tui.main_screen import MainScreen

STAYING_WORDS = ("theme", "ascii", "unicode", "speed", "watch", "export", "help", "quit")  # those that do not lead out


class TraceVisit:
    """Opens the trace screen at once, before there is a trace, so that it takes the next keys."""

    def __init__(self, main: MainScreen) -> None:
        self._main = main
        self.screen: TraceScreen | None = None  # while it lies over the main one
        self._request: Record | None = None  # that it was opened for

    def enter(self, request: Record) -> None:
        """Ask for a trace, and open the screen; nothing happens where the queue is full."""
        main = self._main
        main.state.interrupted = False
        main.state.take_count()
        self._request = request
        if main.ask(request):
            self.screen = TraceScreen(self, unkept=main.state.view.unkept)
            main.app.push_screen(self.screen)

    def take(self, update: Update) -> None:
        """Show what was recorded or checked, or leave where nothing was."""
        request, screen = update.request, self.screen
        if screen is None:
            return
        screen.change(unkept=update.unkept)
        if isinstance(request, CheckGradient):
            screen.show_gradcheck(request)
        if request is not self._request:
            return
        trace = self._request.trace if self._request is not None else None
        self._main.state.traced = update.frame.index if trace is None else trace.index
        if trace is not None:
            screen.change(about=self._main.state.view.about)
            screen.show(trace)
        else:
            self.screen = None
            screen.close()
            self._main.post_message(TraceScreen.Ready())

    # What the trace screen asks for.

    def left(self) -> None:
        """Take note that the screen is closed, and end a gradient check that nobody waits for any more."""
        checking = (
            self.screen is not None and self.screen.view.trace_position is not None and self.screen.awaits_an_answer
        )
        self.screen = None
        if checking:
            self._main.stop()
        self._main.say(None)

    def check_gradient(self, request: CheckGradient) -> None:
        """Ask for a gradient check."""
        self._main.state.interrupted = False
        self._main.ask(request)

    def stop(self) -> None:
        """End what was asked for."""
        self._main.stop()

    def interrupt(self) -> None:
        """Do what ctrl+c does."""
        self._main.action_interrupt()

    def export(self) -> None:
        """Write a picture."""
        self._main.action_export()

    def offer(self, text: str) -> tuple[str, list[Candidate]]:
        """Return a title and candidates for what is typed at the prompt."""
        return self._main.prompt_actions.offer(text)

    def run_words(self, text: str) -> bool:
        """Do what words ask for; what runs, or is seen on the main screen alone, leads out of the phase first."""
        try:
            words = parse_prompt(text)
        except Refused as error:
            self._main.say(Note(str(error), "warn"))
            return False
        name = words.name if isinstance(words, ScreenCommand) else ""
        if self.screen is not None and words == ScreenCommand("help"):
            self.screen.action_help()  # its own keys
            return True
        if self.screen is not None and words and name not in STAYING_WORDS:
            self.screen.action_out()
        return self._main.prompt_actions.run(text)
