"""The main screen: panels, keys, and the way out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType

from autograd_tui.core.command import Commands
from autograd_tui.tui.captured_output import CapturedOutput
from autograd_tui.tui.keys import KEYS, unbound
from autograd_tui.tui.layouts import layout_for
from autograd_tui.tui.look_keys import LookKeys
from autograd_tui.tui.panels.footer import KeysPanel
from autograd_tui.tui.panels.status import Note, NotePanel, StatusPanel
from autograd_tui.tui.prompt import TOO_LONG, Prompt
from autograd_tui.tui.trainer_thread import TrainerThread
from autograd_tui.tui.word_keys import WordKeys

if TYPE_CHECKING:
    from autograd_tui.core.session_view import OpenSession


class MainScreen(WordKeys, LookKeys):
    """Every key asks the trainer thread for something; every answer is a frame for the panels."""

    ALLOW_SELECT = False  # Textual would look for what a mouse pressed while a layout gives way to another
    AUTO_FOCUS = ""  # no panel is chosen before tab chooses one
    BINDINGS: ClassVar[list[BindingType]] = KEYS

    def __init__(
        self,
        open_session: OpenSession,
        first: Commands,
        *,
        title: str,
        output: CapturedOutput,
        thread: type[TrainerThread] = TrainerThread,
    ) -> None:
        super().__init__(open_session, first, title=title, output=output, thread=thread)
        self.prompt = Prompt(self.run_words, self.offer, id="prompt")

    def compose(self) -> ComposeResult:
        """Lay out the panels; each is bound to what it draws."""
        status = StatusPanel(id="status")
        yield status.data_bind(MainScreen.frame, MainScreen.about, MainScreen.newest, MainScreen.unkept)
        yield self.bound(layout_for(self.app.size, self.frame)())
        yield NotePanel(id="note").data_bind(MainScreen.note)
        yield self.prompt
        yield KeysPanel(id="keys", unused=self.trainer.unused_keys)

    def on_mount(self) -> None:
        """Start training behind the first paint."""
        self.output.on_lines = self.heard_lines
        self.output.lead_python_too()
        self.call_after_refresh(self.trainer.start)
        self.watch_the_clock()

    def on_unmount(self) -> None:
        """Let the trainer thread end."""
        self.trainer.close()

    def on_prompt_line_full(self) -> None:
        """Say that no more words fit into the prompt."""
        self.say(TOO_LONG)

    def on_key(self, event: events.Key) -> None:
        """Answer a key that nothing is bound to; a count before it is forgotten."""
        if not self.prompt.is_open and (name := unbound(event)):
            self.count = ""
            self.say(Note(f'"{name}" does nothing here: ? lists the keys', "warn"))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave all keys to the prompt while it is open, but those that leave and stop."""
        return action in ("leave", "interrupt") or not self.prompt.is_open

    def action_leave(self) -> bool:
        """Leave the innermost thing; tell whether there was one."""
        if self.prompt.is_open:
            self.prompt.close()
        elif self.trainer.session is not None and self.trainer.can_be_stopped:
            self.stop()
            return True
        elif self.unzoom():
            return True
        elif self.count:
            self.count = ""
        elif self.looking is not None and self.latest is not None:
            self.show_frame(self.latest)
        elif self.view.cursor is not None:
            self.view = replace(self.view, cursor=None, asked=False)
        elif self.focused is not None:
            self.set_focus(None)
        else:
            return False
        self.say(None)
        return True

    def action_quit(self) -> None:
        """Leave the innermost thing; at the top, quit."""
        if not self.action_leave():
            self.app.exit(0)

    def action_interrupt(self) -> None:
        """Stop the phase or run; a second time, or before there is any, quit with the code of an interrupt."""
        if self.interrupted or self.trainer.session is None:  # nothing of the user's would be lost
            self.app.exit(130, return_code=130)
            return
        self.interrupted = True
        if self.stop():
            self.say(Note("stops after this phase, which cannot be cancelled; ctrl+c once more quits", "warn"))
        else:
            self.say(Note("nothing runs; ctrl+c once more quits", "warn"))
