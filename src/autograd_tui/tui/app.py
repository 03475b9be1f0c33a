"""The app: theme, screens, signals and the way out."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from textual import events
from textual._compositor import LayoutUpdate  # private, but only its type tells a whole screen from a part

from autograd_tui.core.capabilities import LIVE, Capabilities
from autograd_tui.core.command import Commands
from autograd_tui.core.errors import Refused
from autograd_tui.core.terminal_text import print_lines, print_traceback, say
from autograd_tui.tui import signals
from autograd_tui.tui.captured_output import CapturedOutput
from autograd_tui.tui.lent_terminal import LentTerminal
from autograd_tui.tui.preferences import THEMES, Preferences, load_preferences, preferences_file, save_preferences
from autograd_tui.tui.rendering import OpeningScreen
from autograd_tui.tui.terminal import ReadableApp, Terminal, this_terminal
from autograd_tui.tui.terminal_watchdog import TerminalWatchdog
from autograd_tui.tui.themes import theme_named

if TYPE_CHECKING:  # what is here is imported behind the first paint
    from rich.console import RenderableType
    from textual.driver import Driver
    from textual.screen import Screen

    from autograd_tui.core.session_protocol import InteractiveSession, OpenSession
    from autograd_tui.tui.main_screen import MainScreen
    from autograd_tui.tui.panels.panel import Panel
    from autograd_tui.tui.screen_state import View
    from autograd_tui.tui.terminal_driver import TerminalDriver


def out_of_the_collector(open_session: OpenSession) -> OpenSession:
    """Open sessions so that what is there then, 300,000 objects that stay, is not looked through again.

    While a session opens it is not looked through either: PyTorch's import makes hundreds of thousands of objects, and
    the collector would go over them again and again for a quarter of the time.
    """

    opened = False

    def open_one(scenario: str | None) -> InteractiveSession:
        nonlocal opened
        if opened:  # what is frozen is of a session before, too, which may hold large tensors
            gc.unfreeze()
            gc.collect()
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            session = open_session(scenario)
            gc.freeze()
            opened = True
        finally:
            if was_enabled:
                gc.enable()
        return session

    return open_one


LOG_SCALE = "the plot is on a log scale, as you left it: y makes it linear"  # said at the start
BURST_SECONDS = 1.0  # keys may still come of a burst of which some were dropped


class AutogradApp(ReadableApp):
    """Shows one session."""

    TITLE = "autograd-tui"
    ENABLE_COMMAND_PALETTE = False  # it raises when keys come quickly; `:` does what it would do

    def __init__(
        self,
        open_session: OpenSession,
        first: Commands,
        *,
        title: str,
        output: CapturedOutput | None = None,
        preferences: Preferences | None = None,
        preferences_file: Path | None = None,
        terminal: Terminal | None = None,
        theme: str | None = None,
        can: Capabilities = LIVE,
        speed: float | None = None,
        begins_slowly: bool = False,
        greeting: str | None = None,
        watchdog: TerminalWatchdog | None = None,
        exporter: Callable[..., str] | None = None,
        lent: LentTerminal | None = None,
        when_painted: Callable[[], None] = lambda: None,
    ) -> None:
        """Take what to show; `theme` is for this run alone, in place of the one chosen.

        `can` is what the session that `open_session` opens can do, known before it is open; runs do at first `speed`
        commands a second, or with `begins_slowly` come to full speed little by little where they have no end.
        `greeting` is said at the start, until there is something else to say.
        `exporter` writes a run to a file, as `export.live_export.export_live` does.
        `lent` lends the terminal to a script that the session leads.
        `when_painted` is called when the first paint is there, before the session is opened.
        """
        self.taken = 0  # keys and clicks, of those that the terminal's driver handed on
        self.keys: deque[events.Key] = deque()  # taken, and not answered yet
        self._leaves = False  # whether the screen is being closed
        self._dropped, self._dropped_at = 0, -BURST_SECONDS  # keys of one burst, and when that was said last
        super().__init__(terminal or Terminal())
        self._preferences, self._preferences_file = preferences or Preferences(), preferences_file
        self._theme = theme or self._preferences.theme
        self._watchdog = watchdog or TerminalWatchdog()
        self.lent = lent or LentTerminal()
        self.lent.app = self
        self.failure: BaseException | None = None
        self._output, self._title, self._can = output or CapturedOutput(), title, can
        self._greeting = greeting or (LOG_SCALE if self._preferences.log_scale else None)
        self._trainer_arguments = (open_session, first)
        self._trainer_options: dict[str, Any] = {
            "title": title,
            "can": can,
            "speed": speed,
            "begins_slowly": begins_slowly,
            "exporter": exporter,
        }
        self._main: MainScreen | None = None
        self._when_painted, self._is_painted = when_painted, False

    def get_driver_class(self) -> type[Driver]:
        """Take Textual's own driver, but on Linux and macOS the one that takes any input."""
        usual = super().get_driver_class()
        if sys.platform == "win32":
            return usual
        from textual.drivers.linux_driver import LinuxDriver

        from autograd_tui.tui.terminal_driver import TerminalDriver

        return TerminalDriver if usual is LinuxDriver else usual

    @property
    def lending_driver(self) -> TerminalDriver | None:
        """The driver of the terminal, where that can be lent; none in a test without a terminal."""
        driver: Any = self._driver
        return driver if hasattr(driver, "take_back") else None

    def on_resize(self) -> None:
        """Have a script's terminal follow the size of this one."""
        self.call_later(self.lent.resize)

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        """Paint; a whole screen is written whole, so that it mends what other programs wrote over it.

        The first paint is what the main screen waits for.
        """
        driver = self._driver
        if isinstance(renderable, LayoutUpdate) and driver is not None and hasattr(driver, "forget_cells"):
            driver.forget_cells()
        super()._display(screen, renderable)
        if isinstance(renderable, LayoutUpdate) and not self._is_painted:
            self._is_painted = True
            self.call_next(self._open_main)
        if self._main is not None and self._main.state.latest is not None:
            self._main.trainer.drawn.set()

    async def on_event(self, event: events.Event) -> None:
        """Count the keys and clicks that are taken; answer a key in its turn."""
        if not isinstance(event, events.InputEvent) or event.is_forwarded:
            await super().on_event(event)
            return
        self.taken += 1
        if not isinstance(event, events.Key):
            await super().on_event(event)
            return
        await self._press(event)

    async def _press(self, key: events.Key) -> None:
        """Put a key behind those that wait, and answer what can be answered."""
        if self._main is not None:
            if key.time - self._dropped_at > BURST_SECONDS:  # when it came: it may have waited behind the others
                self._main.state.dropped_keys, self._dropped = None, 0
            if (inside := self._main.trace_screen) and inside.gives_up(key):
                self.keys.clear()
        self.keys.append(key)
        await self._answer_keys()

    async def on_panel_keys_clicked(self, event: Panel.KeysClicked) -> None:
        """Press the key that was clicked; a word beside several keys leaves open which one is meant."""
        from autograd_tui.tui.keys import key_labelled
        from autograd_tui.tui.screen_state import Note

        if len(event.labels) == 1:
            await self._press(key_labelled(event.labels[0]))
        else:
            self.main.say(Note(f"{', '.join(event.labels)}: click the key itself, or press it"))

    async def _answer_keys(self) -> None:
        """Answer the keys that were typed, in their order, up to one that needs what is still being recorded.

        None is answered before the main screen is there, or on the way out, where there are no screens any more.
        """
        while self.keys and not self._leaves and self._main is not None and self._main.is_attached:
            if (inside := self._main.trace_screen) and inside.awaits(self.keys[0]):
                return
            await super().on_event(self.keys.popleft())

    async def on_trace_screen_ready(self) -> None:
        """Answer the keys that had to wait."""
        await self._answer_keys()

    def say_dropped(self, count: int) -> None:
        """Show, until the next key behind the burst that they came in, that so many were dropped."""
        from autograd_tui.tui.screen_state import Note

        self._dropped, self._dropped_at = self._dropped + count, monotonic()
        count = self._dropped
        keys = "1 key came faster than it" if count == 1 else f"{count:,} keys came faster than they"
        note = Note(f"{keys} could run, and {'was' if count == 1 else 'were'} dropped", "warn")
        self.main.state.dropped_keys = note
        self.main.say(note)

    def on_session_screen_dropped(self) -> None:
        """Count a key with those of its burst that the terminal's driver has not handed on."""
        self.say_dropped(1)

    def say_warning(self, sentence: str) -> None:
        """Show a sentence on the main screen."""
        from autograd_tui.tui.screen_state import Note

        self.main.say(Note(sentence, "warn"))

    @property
    def main(self) -> MainScreen:
        """The only screen besides dialogs; it is made when it is first asked for."""
        if self._main is None:
            self._main = self._make_main()
        return self._main

    def _make_main(self) -> MainScreen:
        """Make the main screen, and import all that it needs, for as long as the first paint takes."""
        from autograd_tui.tui.main_screen import MainScreen
        from autograd_tui.tui.trainer_thread import TrainerThread

        make_trainer = partial(TrainerThread, *self._trainer_arguments, **self._trainer_options)
        main = MainScreen(make_trainer, output=self._output, title=self._title, lent=self.lent)
        main.state.greeting = self._greeting
        main.state.change(log_scale=self._preferences.log_scale)
        main.state.begin(self._opening_sentence)
        main.view = main.state.view
        return main

    @property
    def _opening_sentence(self) -> str:
        if self._can.script and self._can.run:
            return f"starting {self._title}"
        return f"loading PyTorch and {self._title}" if self._can.advance else f"opening {self._title}"

    def on_mount(self) -> None:
        """Show the screen, and leave in order when the system asks for it."""
        self.theme = self._theme if self._theme in self.available_themes else Preferences().theme
        chosen = self._preferences.ascii_only
        self.ascii_only = self.terminal.ascii_only if chosen is None else chosen
        self._began = self._shown()
        self.watch(self, "theme", self._remember, init=False)
        self.watch(self, "ascii_only", self._remember, init=False)
        signals.answer(self.leave, self.action_help_quit, self._watchdog)

    async def _open_main(self) -> None:
        """Put the main screen over what was painted first, and answer the keys that were typed since."""
        self._watchdog.reap()
        if self._leaves:
            return
        self._when_painted()
        await self.push_screen(self.main)
        self.watch(self.main, "view", self._remember_scale, init=False)
        await self._answer_keys()

    def _remember_scale(self, old: View, new: View) -> None:
        if old.log_scale != new.log_scale:
            self._remember()

    def _remember(self) -> None:
        save_preferences(self._preferences_file, self._preferences.changed(self._began, self._shown()))

    def _shown(self) -> Preferences:
        log_scale = self._preferences.log_scale if self._main is None else self._main.state.view.log_scale
        return Preferences(self.theme, log_scale, self.ascii_only)

    def exit(self, result: int | None = None, return_code: int = 0, message: RenderableType | None = None) -> None:
        """Close the screen; from here on no keys are read."""
        self._leaves = True
        self._watchdog.leaving()
        self.lent.stop()
        super().exit(result, return_code, message)

    def leave(self, code: int = 0) -> None:
        """Close the screen with an exit code."""
        self.exit(code, return_code=code)

    def on_session_screen_failed(self, event: MainScreen.Failed) -> None:
        """Close the screen because the session could not be opened, or because of a bug."""
        self.failure = event.error
        self.leave(2 if isinstance(event.error, Refused) else 1)

    def get_default_screen(self) -> OpeningScreen:
        """Return what is painted first, and lies below the main screen later."""
        return OpeningScreen(self._opening_sentence, id="_default")

    async def action_quit(self) -> None:
        """Do nothing: Textual's own quit key is unbound, and q belongs to the screen."""

    def action_help_quit(self) -> None:
        """Let ctrl+c stop what runs, then quit."""
        if self._main is not None and self._main.is_attached:
            self._main.action_interrupt()
        elif not self._leaves:
            self.leave(130)  # nothing has begun


def run_on_screen(
    open_session: OpenSession,
    first: Commands,
    *,
    title: str,
    theme: str | None,
    ascii_only: bool | None,
    can: Capabilities = LIVE,
    speed: float | None = None,
    begins_slowly: bool = False,
    greeting: str | None = None,
    exporter: Callable[..., str] | None = None,
    output: CapturedOutput | None = None,
    lent: LentTerminal | None = None,
    says_command: bool = True,
    when_painted: Callable[[], None] = lambda: None,
) -> int:
    """Show the session until the user leaves; print the line that repeats the run, and give the exit code.

    theme: "light", "dark", "ansi" or a name of Textual's. It and ascii_only are None for what was chosen last.
    greeting: said at the start, and again on leaving, where the terminal keeps it.
    output: one that takes in what another process prints, too.
    lent: what the terminal is lent by to a script, which is ended behind the screen.
    says_command: whether the line that repeats the run is printed.
    when_painted: called when the first paint is there, before the session is opened.
    """
    preferences, terminal = _chosen_preferences(theme, ascii_only), this_terminal()
    output, watchdog = output or CapturedOutput(), TerminalWatchdog()
    watchdog.start()
    signals.hold()
    signals.keep_from_copies()
    output.take_over()
    app = AutogradApp(
        out_of_the_collector(open_session),
        first,
        title=title,
        output=output,
        preferences=preferences,
        preferences_file=preferences_file(),
        terminal=terminal,
        theme=THEMES["ansi"] if theme is None and terminal.colors <= 16 else None,
        can=can,
        speed=speed,
        begins_slowly=begins_slowly,
        greeting=greeting,
        watchdog=watchdog,
        exporter=exporter,
        lent=lent,
        when_painted=when_painted,
    )
    try:
        app.run()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # we are leaving already, and PyTorch would show a traceback
        app.lent.stop()
        watchdog.leave()
        output.give_back()
        signals.let_go()
    code = app.return_code or 0
    if app.failure is None:
        app.main.trainer.leave(in_order=code == 0)
    app.lent.close()  # where no session has ended the script: one that has not trained yet is not open
    try:
        _say_last(app, output, greeting, says_command=says_command)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        os._exit(code)  # the terminal has gone away, and Python would still try to write to it
    if not app.main.trainer.ended():
        os._exit(code)  # a phase that is still running cannot be cancelled, and would abort Python's own way out
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # what they do at Python's own end may take long: ctrl+c ends that too
    return code


def _chosen_preferences(theme: str | None, ascii_only: bool | None) -> Preferences:
    """Remember what the command line asks for, over what was chosen before."""
    before = preferences = load_preferences(preferences_file())
    if theme is not None:
        preferences = replace(preferences, theme=theme_named(theme))
    if ascii_only is not None:
        preferences = replace(preferences, ascii_only=ascii_only)
    if preferences != before:
        save_preferences(preferences_file(), preferences)
    return preferences


def _leads_run(app: AutogradApp) -> bool:
    """Return whether there is a run of its own to repeat: a follower has none, nor a script left before it trained."""
    can = app.main.trainer.can
    if can.script:
        return can.export and app.main.state.view.about is not None
    return can.run


def _say_last(app: AutogradApp, output: CapturedOutput, greeting: str | None, *, says_command: bool = True) -> None:
    """Print what the model has printed, then why the screen closed or the line that repeats the run."""
    print_lines(*output.said_again(), file=sys.stderr)
    for sentence in app.main.trainer.runner.unkept:
        say(sentence)
    if isinstance(app.failure, Refused):
        say(str(app.failure))
    elif app.failure is not None:
        print_traceback(app.failure)
    elif says_command and _leads_run(app):
        print_lines(*app.main.trainer.runner.earlier_command_lines, app.main.last_command_line())
        if greeting:
            say(greeting)
    sys.stdout.flush()
    sys.stderr.flush()
