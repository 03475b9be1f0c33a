"""The screen inside a phase: what was recorded, one operation a key."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.message import Message
from textual.reactive import var

from autograd_tui.core.errors import clipped
from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.session_view import SessionInfo
from autograd_tui.core.trace import Trace
from autograd_tui.text.prompt.words import Candidate
from autograd_tui.text.styled_text import plain
from autograd_tui.text.trace.gradcheck_lines import gradcheck_target
from autograd_tui.text.trace.health import health_lines
from autograd_tui.text.trace.nonfinite_alarm import first_alarm
from autograd_tui.text.trace.walk import Walk, search_candidates
from autograd_tui.tui.help_screen import HelpScreen, first_rows, key_rows
from autograd_tui.tui.keys import AT_ONCE, FIRST_INSIDE_KEYS, INSIDE_KEYS, KEYS, LEAVING, is_bound, unbound
from autograd_tui.tui.layouts import TraceLayout, inside_layout_for
from autograd_tui.tui.panels.footer import INSIDE, KeysPanel
from autograd_tui.tui.panels.status import Note, NotePanel
from autograd_tui.tui.panels.trace_panels import GraphPanel
from autograd_tui.tui.prompt import TOO_LONG, Prompt
from autograd_tui.tui.rendering import CachedRows, SizedScreen
from autograd_tui.tui.requests import Prove

RULE = "Arrows walk, space goes on and at the end out, escape leaves the innermost."
ENDING = "the proof ends after the forward that runs"
WHOLE = 1000  # characters: a sentence in one row
Way = Literal["next", "back", "next_of_module", "first", "last"]


class TraceScreen(SizedScreen, CachedRows):
    """Waits for a trace, then walks it; the app keeps the keys typed in the meantime that need it.

    `picture` writes one, `interrupt` is what ctrl+c does, `left` hears that the screen is closed, `prove` asks for a
    proof, which `show_proof` shows, and `give_up` ends what was asked for. `words` does what words ask for that do not
    look for a name, and `offer` gives a title and candidates for them, as the prompt of the main screen does.
    """

    ALLOW_SELECT = False
    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = INSIDE_KEYS

    walk: var[Walk | None] = var(None)
    about: var[SessionInfo | None] = var(None)
    note: var[Note | None] = var(None)
    unkept: var[str] = var("")  # a mark, as long as the run is not kept
    proof: var[GradCheck | None] = var(None)  # of the gradient at hand, once it was asked for

    def __init__(
        self,
        *,
        picture: Callable[[], None],
        interrupt: Callable[[], None],
        left: Callable[[], None],
        prove: Callable[[Prove], None],
        give_up: Callable[[], object],
        words: Callable[[str], bool],
        offer: Callable[[str], tuple[str, list[Candidate]]],
    ) -> None:
        super().__init__()
        self._prove, self._give_up = prove, give_up
        self._awaited: Prove | None = None
        self._picture, self._interrupt, self._left = picture, interrupt, left
        self._words, self._offer_words = words, offer
        self.prompt = Prompt(self.run_words, self._offer, id="prompt")

    def compose(self) -> ComposeResult:
        """Lay out the panels."""
        yield self._bound(inside_layout_for(self.app.size)())
        yield NotePanel(id="note").data_bind(TraceScreen.note)
        yield self.prompt
        yield KeysPanel(id="keys", keys=INSIDE)

    class Ready(Message):
        """Keys that had to wait can be answered now."""

    def on_mount(self) -> None:
        """Take keys, now that there are panels."""
        self.call_later(self.post_message, self.Ready())

    def awaits(self, key: events.Key) -> bool:
        """Tell whether a key needs what is not there yet."""
        if not self.is_mounted:
            return key.key not in LEAVING
        if self.walk is not None or not self.is_current:
            return False
        return key.key == "enter" if self.prompt.is_open else key.key not in AT_ONCE

    def gives_up(self, key: events.Key) -> bool:
        """Tell whether a key leaves or stops, whatever was typed before it."""
        return key.key in LEAVING and not (key.key == "q" and self.prompt.is_open)

    async def on_resize(self, event: events.Resize) -> None:
        """Put the right layout in the place of another one, which goes last: a key finds one at any moment."""
        async with self.batch():
            old, wanted = self.query_one_optional(TraceLayout), inside_layout_for(event.size)
            if old is None or type(old) is wanted or not self.is_attached:
                return
            layout = wanted()
            await self.mount(layout, before=old)
            self._bound(layout)
            await old.remove()

    def _bound(self, layout: TraceLayout) -> TraceLayout:
        layout.data_bind(TraceScreen.walk, TraceScreen.about, TraceScreen.proof, TraceScreen.unkept)
        return layout

    def show(self, trace: Trace) -> None:
        """Walk a trace from its first alarm, from where it raised, or from its beginning."""
        alarm = first_alarm(trace)
        begin = alarm if alarm is not None else len(trace.ops) - 1 if trace.error else 0
        self.walk = Walk(trace).at(begin)
        self.say(_warning(trace))
        self.post_message(self.Ready())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave all keys to the prompt while it is open, but those that leave and stop."""
        return action in ("leave", "interrupt") or not self.prompt.is_open

    def say(self, note: Note | None) -> None:
        """Show a sentence, or none."""
        self.note = note

    def action_go(self, way: Way) -> None:
        """Go to another operation."""
        assert self.walk is not None
        walk = getattr(self.walk, way)()
        moved, self.walk = walk.index != self.walk.index, walk
        self.say(None if moved else self._stays(way))

    def _stays(self, way: Way) -> Note | None:
        assert self.walk is not None
        if way == "next_of_module":
            return Note(f"no later operation is of {self.walk.op.module or 'no module'}", "warn")
        return Note("this is the last operation: space leads out", "accent") if way == "next" else None

    def action_on(self) -> None:
        """Go to the next operation, at the last one out."""
        assert self.walk is not None
        if self.walk.at_end:
            self.action_out()
        else:
            self.action_go("next")

    def action_select(self, by: int) -> None:
        """Go to the row above or below."""
        assert self.walk is not None
        self.walk = self.query_one(GraphPanel).moved(self.walk, by)
        self.say(None)

    def action_open(self) -> None:
        """Open what is under the cursor, or run to it."""
        assert self.walk is not None
        panel = self.query_one(GraphPanel)
        walk = panel.opened(self.walk)
        if walk is not None:
            self.walk = walk
        elif panel.is_tree:
            self.say(Note("↑ and ↓ select a row, which enter opens", "warn"))
        else:
            self.say(Note("the whole graph is open: ↑ and ↓ walk along it", "warn"))

    def on_prompt_line_full(self) -> None:
        """Say that no more words fit into the prompt."""
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
        """Run to a name behind a /, else do what the words ask for; False where they were not understood."""
        return self.run_to(text) if text.startswith("/") else self._words(text)

    def _offer(self, text: str) -> tuple[str, list[Candidate]]:
        if not text.startswith("/"):
            return self._offer_words(text)
        part = text.removeprefix("/")
        found = search_candidates(self.walk.trace, part) if self.walk is not None else []
        return "a part of an operation's, a module's or a parameter's name; nothing finds the last one again", found

    def run_to(self, text: str) -> bool:
        """Run to the next operation of a name, or of the one looked for last; False where there is none."""
        assert self.walk is not None
        name = text.removeprefix("/").strip() or self.walk.search
        walk = self.walk.find(name) if name else None
        if walk is None:
            told = (
                f'no operation or module has "{clipped(name)}" in its name.'
                if name
                else "give a part of a name behind the /."
            )
            self.say(Note(told, "warn"))
            return False
        self.walk = walk
        self.say(None)
        return True

    @property
    def awaits_an_answer(self) -> bool:
        """Whether a recording or a proof is still being made."""
        return self.walk is None or self._awaited is not None

    def watch_walk(self) -> None:
        """Put the proof of another gradient away, and give it up where it is still being made."""
        self.proof = None
        self._give_up_the_proof()

    def _give_up_the_proof(self) -> bool:
        """End the proof that is awaited after the forward that runs; tell whether there was one."""
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            self._give_up()
            self.say(Note(ENDING, "accent"))
        return awaited is not None

    def action_prove(self) -> None:
        """Ask for the proof of the gradient at hand, once."""
        assert self.walk is not None
        if self._awaited is not None:
            return
        target = gradcheck_target(self.walk.trace, self.walk.op)
        if target is None:
            self.say(Note("no parameter's gradient and no operation's output is at hand here to be proven", "warn"))
            return
        self._awaited = Prove(*target)
        self._prove(self._awaited)

    def show_proof(self, asked: Prove, proof: GradCheck | None) -> None:
        """Show a proof, if the walk still stands where it was asked for; None where there will be none."""
        if asked is self._awaited:
            self.proof, self._awaited = proof, None
            self.say(None)

    def action_export(self) -> None:
        """Write a picture of this screen."""
        self._picture()

    def action_help(self) -> None:
        """Show the keys."""
        self.app.push_screen(HelpScreen(first_rows(INSIDE_KEYS, FIRST_INSIDE_KEYS), key_rows(INSIDE_KEYS), rule=RULE))

    def action_interrupt(self) -> None:
        """Stop what runs; a second time, quit."""
        proving, self._awaited = self._awaited is not None, None
        self._interrupt()
        if proving:
            self.say(Note(f"{ENDING}; ctrl+c once more quits", "warn"))

    def action_leave(self) -> None:
        """Leave the innermost thing: the prompt, a proof that is being made, the cursor, the phase."""
        if self.prompt.is_open:
            self.prompt.close()
            self.say(None)
        elif self._give_up_the_proof():
            return
        elif self.walk is not None and self.walk.cursor is not None:
            self.walk = self.walk.at(self.walk.index)
        else:
            if self.walk is None:
                self._give_up()
            self.action_out()

    def action_out(self) -> None:
        """Leave the phase; one that is still being recorded runs all the same."""
        self.close()
        self._left()

    def close(self) -> None:
        """Take this screen away, and what lies over it."""
        while self in self.app.screen_stack:
            self.app.pop_screen()


def _warning(trace: Trace) -> Note | None:
    """Say what is wrong, or else what could not be recorded."""
    if first_alarm(trace) is not None:
        return Note(plain(health_lines(trace, WHOLE)[0]), "error")
    return Note(" ".join(trace.notes), "warn") if trace.notes else None
