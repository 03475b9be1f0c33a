"""The screen inside a phase: what was recorded, one operation a key."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.message import Message
from textual.reactive import var

from autograd_tui.core.errors import Refused, clipped
from autograd_tui.core.trace import Trace
from autograd_tui.text.prompt.completion import Candidate
from autograd_tui.text.prompt.parser import ScreenCommand, parse_prompt
from autograd_tui.text.styled_text import plain
from autograd_tui.text.trace.grad_lines import gradcheck_target
from autograd_tui.text.trace.health import first_alarm, health_lines
from autograd_tui.text.trace.trace_position import TracePosition, search_candidates
from autograd_tui.tui.help_screen import HelpScreen, first_rows, key_rows
from autograd_tui.tui.keys import AT_ONCE, FIRST_INSIDE_KEYS, INSIDE_KEYS, KEYS, LEAVING, is_bound, unbound
from autograd_tui.tui.layouts import TraceLayout, trace_layout_for
from autograd_tui.tui.panels.footer import InsideKeysPanel
from autograd_tui.tui.panels.text_panels import NotePanel
from autograd_tui.tui.panels.trace_panels import GraphPanel
from autograd_tui.tui.prompt import TOO_LONG, Prompt
from autograd_tui.tui.rendering import CachedRows, SizedScreen
from autograd_tui.tui.requests import CheckGradient, Record
from autograd_tui.tui.screen_state import INTERRUPTS_NEXT, Note, View
from autograd_tui.tui.trainer_status import Update

if TYPE_CHECKING:
    from autograd_tui.tui.main_screen import MainScreen

RULE = "Arrows walk, space goes on and at the end out, escape leaves the innermost."
STAYING_WORDS = ("theme", "ascii", "unicode", "speed", "watch", "export", "help", "quit")  # those that do not lead out
ENDING = "the gradient check ends after the forward that runs"
WHOLE = 1000  # characters: a sentence in one row
Way = Literal["next", "back", "next_of_module", "first", "last"]


class TraceScreen(SizedScreen, CachedRows):
    """Waits for a trace, then walks it; the app keeps the keys typed in the meantime that need it.

    It lies over the main screen, and asks for everything by that one's queue.
    """

    ALLOW_SELECT = False
    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = INSIDE_KEYS

    view: var[View] = var(View())

    def __init__(self, main: MainScreen, request: Record) -> None:
        super().__init__()
        self._main, self._request = main, request
        self._gradcheck: CheckGradient | None = None  # that is awaited
        self.prompt = Prompt(self.run_words, self._offer, id="prompt")
        self.set_reactive(TraceScreen.view, View(unkept=main.state.view.unkept))

    @property
    def trace_position(self) -> TracePosition | None:
        """The operation that is shown, with the state of the module tree; None while the trace is awaited."""
        return self.view.trace_position

    def change(self, **fields: Any) -> None:
        """Replace fields of the view."""
        self.view = replace(self.view, **fields)

    def _go(self, position: TracePosition) -> None:
        """Go to another operation: the check of another gradient is put away, or given up where it is being made."""
        if position != self.trace_position:
            self.change(trace_position=position, gradcheck=None)
            self._give_up_gradcheck()

    def compose(self) -> ComposeResult:
        yield trace_layout_for(self.app.size)().data_bind(TraceScreen.view)
        yield NotePanel(id="note").data_bind(TraceScreen.view)
        yield self.prompt
        yield InsideKeysPanel(id="keys", is_script=self._main.trainer.can.script).data_bind(TraceScreen.view)

    class Ready(Message):
        """Keys that had to wait can be answered now."""

    def on_mount(self) -> None:
        """Take keys, now that there are panels."""
        self.call_later(self.post_message, self.Ready())

    def awaits(self, key: events.Key) -> bool:
        """Return whether a key needs what is not there yet."""
        if not self.is_mounted:
            return key.key not in LEAVING
        if self.trace_position is not None or not self.is_current:
            return False
        return key.key == "enter" if self.prompt.is_open else key.key not in AT_ONCE

    def gives_up(self, key: events.Key) -> bool:
        """Return whether a key leaves or stops, whatever was typed before it."""
        return key.key in LEAVING and not (key.key == "q" and self.prompt.is_open)

    async def on_resize(self, event: events.Resize) -> None:
        """Put the right layout in the place of another one, which goes last: a key finds one at any moment."""
        async with self.batch():
            old, wanted = self.query_one_optional(TraceLayout), trace_layout_for(event.size)
            if old is None or type(old) is wanted or not self.is_attached:
                return
            layout = wanted()
            await self.mount(layout, before=old)
            layout.data_bind(TraceScreen.view)
            await old.remove()

    def take(self, update: Update) -> None:
        """Show the trace or the gradient check that was asked for; leave where there is no trace."""
        request = update.request
        self.change(unkept=update.unkept)
        if isinstance(request, CheckGradient):
            self._show_gradcheck(request)
        if request is not self._request:
            return
        trace = self._request.trace
        self._main.state.traced = update.frame.index if trace is None else trace.index
        if trace is not None:
            shown = self._main.state.view.frame
            frame = shown if shown is not None and shown.index == trace.index else None
            self.change(about=self._main.state.view.about, frame=frame)
            self._show(trace)
        else:
            self._main.trace_screen = None
            self.close()
            self._main.post_message(self.Ready())

    def _show(self, trace: Trace) -> None:
        """Walk a trace from its first alarm, from where it raised, or from its beginning."""
        alarm = first_alarm(trace)
        begin = alarm if alarm is not None else len(trace.ops) - 1 if trace.error else 0
        self._go(TracePosition(trace).at(begin))
        self.say(_warning(trace))
        self.post_message(self.Ready())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave all keys to the prompt while it is open, but those that leave and stop."""
        return action in ("leave", "interrupt") or not self.prompt.is_open

    def say(self, note: Note | None) -> None:
        """Show a sentence, or none."""
        self.change(note=note)

    def action_go(self, way: Way) -> None:
        """Go to another operation."""
        assert self.trace_position is not None
        position = getattr(self.trace_position, way)()
        moved = position.index != self.trace_position.index
        self._go(position)
        self.say(None if moved else self._stays(way))

    def _stays(self, way: Way) -> Note | None:
        assert self.trace_position is not None
        if way == "next_of_module":
            return Note(f"no later operation is of {self.trace_position.op.module or 'no module'}", "warn")
        return Note("this is the last operation: space leads out", "accent") if way == "next" else None

    def action_on(self) -> None:
        """Go to the next operation, at the last one out."""
        assert self.trace_position is not None
        if self.trace_position.at_end:
            self.action_out()
        else:
            self.action_go("next")

    def action_select(self, by: int) -> None:
        """Go to the row above or below."""
        assert self.trace_position is not None
        self._go(self.query_one(GraphPanel).moved(self.trace_position, by))
        self.say(None)

    def action_open(self) -> None:
        """Open what is under the cursor, or run to it."""
        assert self.trace_position is not None
        panel = self.query_one(GraphPanel)
        position = panel.opened(self.trace_position)
        if position is not None:
            self._go(position)
        elif panel.is_tree:
            self.say(Note("↑ and ↓ select a row, which enter opens", "warn"))
        else:
            self.say(Note("the whole graph is open: ↑ and ↓ walk along it", "warn"))

    def on_prompt_line_full(self) -> None:
        """Show that no more words fit into the prompt."""
        self.say(TOO_LONG)

    def on_key(self, event: events.Key) -> None:
        """Answer a key that nothing is bound to here."""
        if self.prompt.is_open or not (name := unbound(event)):
            return
        does = "is a key of the main screen: i leads out to it" if is_bound(event, KEYS) else "does nothing here"
        self.say(Note(f'"{name}" {does}; ? lists the keys', "warn"))

    def action_find(self) -> None:
        """Take a name."""
        self.prompt.open("/")

    def action_words(self) -> None:
        """Take a command in words."""
        self.prompt.open("")

    def run_words(self, text: str) -> bool:
        """Run to a name behind a /, else do what the words ask for; False where they were not understood.

        What runs, or is seen on the main screen alone, leads out of the phase first.
        """
        if text.startswith("/"):
            return self.run_to(text)
        try:
            words = parse_prompt(text)
        except Refused as error:
            self.say(Note(str(error), "warn"))
            return False
        name = words.name if isinstance(words, ScreenCommand) else ""
        if words == ScreenCommand("help"):
            self.action_help()  # its own keys
            return True
        if words and name not in STAYING_WORDS:
            self.action_out()
        return self._main.prompt_actions.run(text)

    def _offer(self, text: str) -> tuple[str, list[Candidate]]:
        if not text.startswith("/"):
            return self._main.prompt_actions.offer(text)
        part = text.removeprefix("/")
        found = search_candidates(self.trace_position.trace, part) if self.trace_position is not None else []
        return "a part of an operation's, a module's or a parameter's name; nothing finds the last one again", found

    def run_to(self, text: str) -> bool:
        """Run to the next operation of a name, or of the one looked for last; False where there is none."""
        assert self.trace_position is not None
        name = text.removeprefix("/").strip() or self.trace_position.search
        position = self.trace_position.find(name) if name else None
        if position is None:
            unknown = f'no operation or module has "{clipped(name)}" in its name.'
            self.say(Note(unknown if name else "give a part of a name behind the /.", "warn"))
            return False
        self._go(position)
        self.say(None)
        return True

    @property
    def awaits_an_answer(self) -> bool:
        """Whether a recording or a gradient check is still being made."""
        return self.trace_position is None or self._gradcheck is not None

    def _give_up_gradcheck(self) -> bool:
        """End the gradient check that is awaited, after the forward that runs; return whether there was one."""
        awaited, self._gradcheck = self._gradcheck, None
        if awaited is not None:
            self._main.stop()
            self.say(Note(ENDING, "accent"))
        return awaited is not None

    def action_check_gradient(self) -> None:
        """Ask for a check of the gradient at hand, once."""
        assert self.trace_position is not None
        if self._gradcheck is not None:
            return
        target = gradcheck_target(self.trace_position.trace, self.trace_position.op)
        if target is None:
            self.say(Note("no parameter's gradient and no operation's output is at hand here to be checked", "warn"))
            return
        self._gradcheck = CheckGradient(*target)
        self._main.state.forget_interrupts()
        self._main.ask(self._gradcheck)

    def _show_gradcheck(self, request: CheckGradient) -> None:
        """Show a gradient check, if its operation is still the one shown; one that was refused has none."""
        if request is self._gradcheck:
            self._gradcheck = None
            self.change(gradcheck=request.gradcheck)
            self.say(None)

    def action_export(self) -> None:
        """Write a picture of this screen."""
        self._main.action_export()

    def action_help(self) -> None:
        """Show the keys."""
        self.app.push_screen(HelpScreen(first_rows(INSIDE_KEYS, FIRST_INSIDE_KEYS), key_rows(INSIDE_KEYS), rule=RULE))

    def action_interrupt(self) -> None:
        """Stop what runs; a second time, interrupt it; then quit."""
        checking, self._gradcheck = self._gradcheck is not None, None
        self.prompt.make_room()  # for the sentence that says so
        self._main.action_interrupt()
        if checking:
            self.say(Note(f"{ENDING}; {INTERRUPTS_NEXT}", "warn"))

    def action_leave(self) -> None:
        """Leave the innermost thing: the prompt, a gradient check that runs, the cursor, the phase."""
        if self.prompt.is_open:
            self.prompt.close()
            self.say(None)
        elif self._give_up_gradcheck():
            return
        elif self.trace_position is not None and self.trace_position.cursor is not None:
            self._go(self.trace_position.at(self.trace_position.index))
        else:
            if self.trace_position is None:
                self._main.stop()
            self.action_out()

    def action_out(self) -> None:
        """Leave the phase; one that is still being recorded runs all the same."""
        self.close()
        self._main.trace_screen = None
        if self.trace_position is not None and self.awaits_an_answer:
            self._main.stop()  # nobody waits for the gradient check any more
        self._main.say(None)

    def close(self) -> None:
        """Take this screen away, and what lies over it."""
        while self in self.app.screen_stack:
            self.app.pop_screen()


def _warning(trace: Trace) -> Note | None:
    """Return a note on what is wrong, or else what could not be recorded."""
    if first_alarm(trace) is not None:
        sentence = plain(health_lines(trace, WHOLE)[0])
        return Note(sentence, "error", _first_sentence(sentence))
    return Note(" ".join(trace.notes), "warn", _first_sentence(trace.notes[0])) if trace.notes else None


def _first_sentence(text: str) -> str:
    return f"{text.partition('. ')[0].rstrip('.')}."
