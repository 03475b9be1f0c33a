"""The app: theme, screens, quit."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from textual.app import App

from autograd_tui.engine.command import Command
from autograd_tui.engine.errors import Refused
from autograd_tui.tui.main_screen import MainScreen
from autograd_tui.tui.output import Output

if TYPE_CHECKING:
    from autograd_tui.engine.session import Session


class AutogradApp(App[int]):
    """Shows one session."""

    TITLE = "autograd-tui"
    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = False

    def __init__(
        self, open_session: Callable[[], Session], first: Sequence[Command], *, title: str, output: Output | None = None
    ) -> None:
        super().__init__()
        self.failure: BaseException | None = None
        self._main = MainScreen(open_session, first, title=title, output=output or Output())

    @property
    def main(self) -> MainScreen:
        """The only screen besides dialogs."""
        return self._main

    def on_mount(self) -> None:
        """Show the screen, and leave in order when the system asks for it."""
        self.push_screen(self._main)
        loop = asyncio.get_running_loop()
        for number, code in ((signal.SIGTERM, 143), (signal.SIGHUP, 129)):
            try:
                loop.add_signal_handler(number, self.leave, code)
            except (NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
                return

    def leave(self, code: int = 0) -> None:
        """Close the screen with an exit code."""
        self.exit(code, return_code=code)

    def on_main_screen_failed(self, event: MainScreen.Failed) -> None:
        """Close the screen because the session could not be opened, or because of a bug."""
        self.failure = event.error
        self.leave(2 if isinstance(event.error, Refused) else 1)

    async def action_quit(self) -> None:
        """Do nothing: Textual's own quit key is unbound, and q belongs to the screen."""

    def action_help_quit(self) -> None:
        """Let ctrl+c stop what runs, then quit."""
        self._main.action_interrupt()


def run_on_screen(open_session: Callable[[], Session], first: Sequence[Command], *, title: str) -> int:
    """Show the session until the user leaves; print the line that repeats the run, and give the exit code."""
    output = Output()
    output.take_over()
    app = AutogradApp(open_session, first, title=title, output=output)
    try:
        app.run()
    finally:
        output.give_back()
    code = app.return_code or 0
    if app.failure is not None:
        _say_why(app.failure, output)
    else:
        print(app.main.command_line())
    sys.stdout.flush()
    sys.stderr.flush()
    if app.main.trainer.busy:
        os._exit(code)  # a phase that is still running cannot be cancelled, and would abort Python's own way out
    return code


def _say_why(failure: BaseException, output: Output) -> None:
    for line in output.lines:
        print(line, file=sys.stderr)
    if isinstance(failure, Refused):
        print(f"autograd-tui: {failure}", file=sys.stderr)
    else:
        traceback.print_exception(failure)
