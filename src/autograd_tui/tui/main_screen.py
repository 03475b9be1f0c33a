"""The main screen: its keys, and what each of them does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import ClassVar, Literal

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType

from autograd_tui.core.command import COMMAND_BY_LETTER, Command, Phase
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.phase_order import Goal
from autograd_tui.text.prompt.word_table import NOT_OF_SCRIPTS
from autograd_tui.text.table.layers import Layers, TableView, row_name, toggle_layer
from autograd_tui.tui.captured_output import CapturedOutput
from autograd_tui.tui.help_screen import SCRIPT_RULE, HelpScreen, first_rows, key_rows, script_bindings
from autograd_tui.tui.keys import FIRST_KEYS, KEYS, SCRIPT_FIRST_KEYS, unbound
from autograd_tui.tui.layouts import layout_for
from autograd_tui.tui.lent_terminal import LentTerminal
from autograd_tui.tui.panels.footer import KeysPanel
from autograd_tui.tui.panels.loss import LossPanel
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.panels.phases import PhasesPanel
from autograd_tui.tui.panels.surface import SurfacePanel
from autograd_tui.tui.panels.table import RowPanel
from autograd_tui.tui.panels.text_panels import ConsolePanel, NotePanel, StatusPanel
from autograd_tui.tui.prompt import TOO_LONG, Prompt
from autograd_tui.tui.prompt_actions import PromptActions, write_screenshot, write_screenshot_and_line
from autograd_tui.tui.requests import Export, Inspect, Look, Record, ScreenAction
from autograd_tui.tui.run_speed import faster, slower, speed_in_words
from autograd_tui.tui.screen_state import INTERRUPTS_NEXT, PATIENCE, QUITS_NEXT, STOPS, Note, interrupt_note
from autograd_tui.tui.session_screen import SessionScreen
from autograd_tui.tui.trace_screen import TraceScreen
from autograd_tui.tui.trainer_status import Update
from autograd_tui.tui.trainer_thread import TrainerThread

MAX_INTERRUPT_SECONDS = 2.0  # in which what is interrupted ends, if it ever does
INTERRUPT_POLL_SECONDS = 0.05
NOTHING_RUNS = f"nothing runs; {QUITS_NEXT}"
RETURNS = Note(f"interrupted; all is put back as it was before; {INTERRUPTS_NEXT}", "warn")
NO_CHOICE = Note("no panel can be chosen in so small a terminal: make it larger", "warn")
NO_PLOT = Note("there is no room for the plot here", "warn")


@dataclass(eq=False, slots=True)
class Interrupting:
    """What ctrl+c has begun to interrupt."""

    since: float  # by `monotonic`
    update: Update | None  # the last one by then: another one is the end of what ran
    is_sent: bool = False
    note: Note | None = None  # said last about it


class MainScreen(SessionScreen):
    """Every key asks the trainer thread for something, or changes the state of the screen."""

    CSS_PATH = "app.tcss"  # of all screens: this one is there first
    ALLOW_SELECT = False  # Textual would look for what a mouse pressed while a layout gives way to another
    AUTO_FOCUS = ""  # no panel is chosen before tab chooses one
    BINDINGS: ClassVar[list[BindingType]] = KEYS

    def __init__(
        self,
        make_trainer: Callable[..., TrainerThread],
        *,
        output: CapturedOutput,
        title: str,
        lent: LentTerminal | None = None,
    ) -> None:
        super().__init__(make_trainer, output=output)
        self.lent = lent or LentTerminal()
        self._scenario = title
        self._interruption: Interrupting | None = None  # the last one
        self.prompt_actions = PromptActions(self)
        self.prompt = Prompt(self.prompt_actions.run, self.prompt_actions.offer, id="prompt")

    def compose(self) -> ComposeResult:
        """Lay out the panels; each is bound to the view."""
        yield StatusPanel(id="status").data_bind(MainScreen.view)
        yield layout_for(self.app.size, self.state.view.frame)().data_bind(MainScreen.view)
        yield NotePanel(id="note").data_bind(MainScreen.view)
        yield self.prompt
        yield KeysPanel(id="keys", can=self.trainer.can)

    def on_mount(self) -> None:
        """Start training behind the first paint."""
        self.output.on_lines = self.read_output
        self.output.lead_python_too()
        self.call_after_refresh(self.trainer.start)
        self.watch_the_clock()

    def on_unmount(self) -> None:
        """Let the trainer thread end."""
        self.trainer.close()

    def on_prompt_line_full(self) -> None:
        """Show that no more words fit into the prompt."""
        self.say(TOO_LONG)

    def on_key(self, event: events.Key) -> None:
        """Answer a key that nothing is bound to; a count before it is forgotten."""
        if not self.prompt.is_open and (name := unbound(event)):
            self.state.count = ""
            self.say(Note(f'"{name}" does nothing here: ? lists the keys', "warn"))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave all keys to the prompt while it is open, but those that leave and stop."""
        return action in ("leave", "interrupt") or not self.prompt.is_open

    # Running.

    def action_phase(self, letter: str) -> None:
        """Run one phase; whether it is its turn is decided when it is. A script can be made to run none."""
        if letter.isupper() and self.trainer.can.script:
            self.say(Note(NOT_OF_SCRIPTS["B"], "warn"))
            return
        self.ask(self.state.train(COMMAND_BY_LETTER[letter]))

    def on_phases_panel_clicked(self, event: PhasesPanel.Clicked) -> None:
        """Run the phase that was clicked."""
        self.ask(self.state.train(Command(event.phase.value)))

    def action_run(self, what: Literal["next", "iteration", "run"]) -> None:
        """Run the next phase, or the rest of the iteration; pause a run, or lift the veil, instead."""
        if self.state.run_in_sight:
            self.stop()
        elif what == "run":
            self.ask(self.state.train(Goal(), pauses=True))
        elif what == "iteration" or not self._lift_veil():
            self.ask(self.state.train(what, pauses=True))

    def _lift_veil(self) -> bool:
        """Show more of what is hidden, or see in turn whether anything is; False where nothing can be."""
        state = self.state
        if not state.veiled or state.looking is not None:
            return False
        if state.view.hidden is None:
            waits = not self.trainer.status.idle and state.latest is not None
            if waits:
                self.in_turn(partial(self.action_run, "next"))
            return waits
        state.lift_veil()
        self.say(None)
        return True

    def action_veil(self) -> None:
        """Hide new numbers from now on until the next space, or show them all again, where any are trained here."""
        if self.trainer.can.script:
            self.say(Note(NOT_OF_SCRIPTS["veil"], "warn"))
            return
        if not self.trainer.can.run:
            self.say(Note("the veil does nothing here: what is shown was trained before, or elsewhere", "warn"))
            return
        self.state.toggle_veil()
        self.say(None if self.state.veiled else Note("the veil is gone"))

    def action_speed(self, which: Literal["faster", "slower"]) -> None:
        """Run faster or slower; a run whose pace rises by itself goes to full speed, or keeps below that pace."""
        pace = self.trainer.status.pace
        if which == "faster":
            self.set_speed(faster(self.trainer.speed))
        else:
            self.set_speed(slower(self.trainer.speed if pace is None else pace * len(Phase)))

    def set_speed(self, speed: float | None) -> None:
        """Have runs do so many commands a second, None for as many as they can, and say so."""
        self.trainer.set_speed(speed)
        self.draw_next_at_once()
        running = self.trainer.status.run is not None
        self.say(None if running else Note(f"r runs at {speed_in_words(speed)}"))

    def action_count(self, digit: int) -> None:
        """Add a digit to the count for the next key."""
        self.state.count = (self.state.count + str(digit)).lstrip("0")[:6]
        self.say(None)

    def action_undo(self) -> None:
        """Go back by one command, or by as many as were counted."""
        self.ask(self.state.train("undo"))

    def action_inside(self) -> None:
        """Run the next phase recorded and step inside; look into that of the frame looked at, or where a fault is."""
        if self.trace_screen is None:
            start = self.state.start
            self.open_trace(Record(None if start == "here" else start, traced=self.state.traced))

    def open_trace(self, request: Record) -> None:
        """Ask for a trace, and open its screen at once, so that it takes the next keys; not where the queue is full."""
        self.state.forget_interrupts()
        self.state.take_count()
        if self.ask(request):
            self.trace_screen = TraceScreen(self, request)
            self.app.push_screen(self.trace_screen)

    # Looking at other frames: training stays where it is.

    def action_look(self, by: int) -> None:
        """Show the frame before or after."""
        session, count, start = self.trainer.session, self.state.take_count(), self._look_start
        if self.state.view.frame is None or session is None:
            return
        if not isinstance(start, int):
            self._ask_to_look(Look(start, by * count))
            return
        index = min(max(start + by * count, 0), self.state.view.newest)
        if self.trainer.status.run is not None or not self.trainer.can.recompute:
            index = session.nearest(index, by)  # computing others would hold the run up
        self.look_at(index)

    def action_look_at(self, index: int) -> None:
        """Show the first frame (0) or the newest (-1)."""
        if index >= 0:
            self.look_at(index)
        elif isinstance(self._look_start, int):
            self.look_at(self.state.view.newest)
        else:
            self._ask_to_look(Look("newest"))

    def action_look_alike(self, by: int) -> None:
        """Show the same phase of the iteration before or after."""
        if self.state.view.frame is not None:
            self._ask_to_look(Look(self._look_start, by, alike=True))

    @property
    def _look_start(self) -> int | Literal["here", "newest", "looked at"]:
        """Where a look goes on from: the frame shown, if nothing that was asked for will put another in its place."""
        state, frame = self.state, self.state.view.frame
        stays = not state.pending_looks and (state.looking is not None or self.up_to_date or state.run_in_sight)
        return frame.index if frame is not None and stays else state.start

    def on_surface_panel_clicked(self, event: SurfacePanel.Clicked) -> None:
        """Show the frame of the point that was clicked."""
        self.look_at(event.index)

    def on_loss_panel_clicked(self, event: LossPanel.Clicked) -> None:
        """Show the frame of the point that was clicked."""
        self.look_at(event.index)

    def action_plot_cursor(self, by: int) -> None:
        """Move the cursor with which the plot's values are read, by as many points as were counted."""
        by *= self.state.take_count()
        if panel := self._plot_panel():
            self.state.change(plot=panel.with_cursor_moved(by))
            self.say(None)

    def action_plot_zoom(self, way: Literal["in", "out"]) -> None:
        """Plot fewer iterations, or more."""
        if panel := self._plot_panel():
            self.state.change(plot=panel.with_zoom(inwards=way == "in"))
            self.say(None)

    def _plot_panel(self) -> LossPanel | None:
        """Return the panel of the plot; say so where none is in sight."""
        for panel in self.layout_shown.query(LossPanel):
            if panel.content_size.area:
                return panel
        self.say(NO_PLOT)
        return None

    def look_at(self, index: int) -> None:
        """Show a frame, computed again where it is not stored; one that will soon not be the latest, in its turn."""
        session = self.trainer.session
        current = session is not None and session.about is self.state.view.about
        stored = session.stored(index) if session is not None and current else None
        latest = self.state.latest is not None and self.state.latest.index == index
        if stored is not None and (not latest or self.up_to_date or self.state.run_in_sight):
            self.state.pending_looks = ()
            self.show_frame(stored)
        else:
            self._ask_to_look(Look(index))
        self.say(None)

    def _ask_to_look(self, look: Look) -> None:
        if self.ask(look):
            self.state.pending_looks += (look,)

    # The table.

    def set_table(self, table: TableView) -> None:
        """Show the table with another cursor, order, or layers open."""
        self.state.change(table=table)
        self.draw()

    def action_select(self, by: int) -> None:
        """Move the cursor of the table, by as many rows as were counted."""
        if self.state.view.frame is not None:
            self.state.change(plot=replace(self.state.view.plot, cursor=None))  # enter opens the row now
            self.state.select_row(by * self.state.take_count())
            self.say(None)

    def action_open(self) -> None:
        """Open or close the layer under the cursor; measure the parameter under it exactly.

        Where the plot is read, show the frame of that point.
        """
        frame, table = self.state.view.frame, self.state.view.table
        if self.state.view.plot.cursor is not None and (panel := self._plot_panel()):
            if panel.index_at_cursor is not None:
                self.look_at(panel.index_at_cursor)
        elif frame is None or table.cursor is None:
            self.say(Note("↑ and ↓ select a row, which enter opens", "warn"))
        elif table.cursor.parameter is None:
            self.set_table(toggle_layer(table, table.cursor.layer))
        else:
            self.set_table(replace(table, asked=True))
            layers = Layers.of(frame.params.layout.names)
            self.in_turn(partial(self._inspect, row_name(layers, table.cursor)))

    def _inspect(self, name: str) -> None:
        if self.state.looking is not None:
            self.say(Note("exact numbers are those of the frame where training stands: escape returns to it", "warn"))
        elif self.state.view.hidden is not None:
            self.say(Note("the numbers are behind the veil: space shows them, and then enter measures exactly", "warn"))
        elif self.trainer.status.run is not None:
            self.say(Note("it runs: space pauses, and then enter measures exactly", "warn"))
        else:
            self.ask(Inspect(name))

    def on_row_panel_clicked(self, event: RowPanel.Clicked) -> None:
        """Select a row; open the one that is selected."""
        if event.row == self.state.view.table.cursor:
            self.action_open()
        else:
            self.set_table(replace(self.state.view.table, cursor=event.row))

    def on_row_panel_turned(self, event: RowPanel.Turned) -> None:
        """Move the cursor of the table with the mouse wheel."""
        self.action_select(event.by)

    def action_sample(self, by: int) -> None:
        """Show the outputs of the sample before or after, by as many as were counted, or say which are known."""
        self.say(None)
        try:
            self.state.show_sample(self.state.view.sample + by * self.state.take_count())
        except Refused as error:
            self.say(Note(str(error), "warn"))
        self.draw()

    # Panels.

    def action_panel(self, by: int) -> None:
        """Choose the next panel, or the one before."""
        self.unzoom()
        panels = self._focusable_panels()
        if not panels:
            self.say(NO_CHOICE)
            return
        index = panels.index(self.focused) + by if self.focused in panels else min(by, 0)
        self.set_focus(panels[index % len(panels)], scroll_visible=False)

    def action_zoom(self) -> None:
        """Show the chosen panel alone, or all panels again."""
        if self.zoomed:
            self.unzoom()
        elif isinstance(self.focused, Panel):
            self.zoom(self.focused)
        elif self._focusable_panels():
            self.say(Note("tab chooses a panel, and then a shows it alone", "warn"))
        else:
            self.say(NO_CHOICE)

    def _focusable_panels(self) -> list[Panel]:
        return [each for each in self.layout_shown.query(Panel) if each.can_focus and each.content_size.area]

    async def on_resize(self, event: events.Resize) -> None:
        """Take back what was said of the size before."""
        if self.state.view.note in (NO_CHOICE, NO_PLOT):
            self.say(None)

    def show_console(self) -> None:
        """Show what the model has printed, alone."""
        if not self.state.view.printed:
            raise Refused("no whole line has been printed so far.")
        self.unzoom()
        self.zoom(self.layout_shown.query_one(ConsolePanel))

    def action_log_scale(self) -> None:
        """Draw the loss on the other scale."""
        self.set_log_scale(not self.state.view.log_scale)

    def set_log_scale(self, log_scale: bool, /) -> None:
        """Draw the loss on a logarithmic scale, or a linear one."""
        self.state.change(log_scale=log_scale)
        self.draw()

    # Words, pictures, help.

    def action_prompt(self, text: str) -> None:
        """Take a command in words, the first of them given; say so where it can only be refused."""
        if text == "optimizer=" and self.trainer.can.script:
            self.say(Note(NOT_OF_SCRIPTS["optimizer"], "warn"))
            return
        self.prompt.open(text)

    def on_panel_words_clicked(self, event: Panel.WordsClicked) -> None:
        """Take the words that a panel's frame names into the prompt."""
        self.action_prompt(event.words)

    def action_export(self) -> None:
        """Write a repro where a watchpoint has fired, else a picture and the line that repeats the run.

        Of a script also where a forward was recorded.
        """
        self.in_turn(self._export)

    def _export(self) -> None:
        can, state, frame = self.trainer.can, self.state, self.state.view.frame
        is_here = frame is not None and frame is state.latest and (can.advance or not can.script)
        if frame is not None and is_here and (self.trainer.status.fired == frame.index or self._is_recorded(frame)):
            self.ask(Export(Path(f"repro-{frame.index}.pt"), numbered=True))
        else:
            self.write_picture_and_line()

    def _is_recorded(self, frame: Frame) -> bool:
        """Return whether a script's forward has led to a frame, was recorded, and has been left."""
        is_walked = self.state.traced == frame.index and self.is_current
        return is_walked and self.trainer.can.script and frame.phase is Phase.FORWARD

    def write_picture_and_line(self) -> None:
        """Write a picture into the current folder; the line that repeats the run goes to the clipboard too."""
        line = self.command_line()
        self.app.copy_to_clipboard(line)
        svg, script = self.app.export_screenshot(), self.trainer.can.script
        self.say(write_screenshot_and_line(svg, line, folder=self.trainer.runner.folder, script=script))

    def write_picture(self, path: Path) -> None:
        """Write a picture of the screen, over nothing that is there."""
        self.say(write_screenshot(self.app.export_screenshot(), path, folder=self.trainer.runner.folder))

    def command_line(self) -> str:
        """Return the command line that repeats the run."""
        about = self.state.view.about
        return about.command_line_with(self.state.commands) if about else f"autograd-tui {self._scenario}"

    def last_command_line(self) -> str:
        """Return the same as far as the run has come by now, which may be further than the screen got to know."""
        about, update = self.state.view.about, self.trainer.publisher.update
        return about.command_line_with(update.log) if about and update else self.command_line()

    def action_help(self) -> None:
        """Show the keys."""
        if self.trainer.can.script:
            keys = script_bindings(KEYS)
            help_screen = HelpScreen(first_rows(keys, SCRIPT_FIRST_KEYS), key_rows(keys), rule=SCRIPT_RULE, script=True)
        else:
            help_screen = HelpScreen(first_rows(KEYS, FIRST_KEYS), key_rows(KEYS))
        self.app.push_screen(help_screen)

    # Leaving.

    def action_leave(self) -> bool:
        """Leave the innermost thing, which may be what runs and waits; return whether there was one."""
        status = self.trainer.status
        if self.prompt.is_open:
            self.prompt.close()
            self.say(None)
        elif self.trainer.session is not None and status.can_be_stopped:
            soon_over = status.run is None and status.progress is None and status.silent < PATIENCE
            if soon_over and self.trainer.requests.only_shows:
                self.ask(ScreenAction(self._leave_what_is_shown))  # what waits would show something else first
            else:
                self.stop()
        else:
            return self._leave_what_is_shown()
        return True

    def _leave_what_is_shown(self) -> bool:
        """Leave a panel alone, a count, a frame looked at, the cursor, a chosen panel; return whether there was one."""
        state = self.state
        if self.unzoom():
            return True
        if state.count:
            state.count = ""
        elif state.view.plot.cursor is not None:
            state.change(plot=replace(state.view.plot, cursor=None))
        elif state.looking is not None and state.latest is not None:
            self.show_frame(state.latest)
        elif state.view.table.cursor is not None:
            self.set_table(replace(state.view.table, cursor=None, asked=False))
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
        """Stop the run after its phase; a second time interrupt the phase that still runs; then quit.

        Where nothing runs it quits the second time, and at once before there is anything of the user's to lose. A
        script that has not come to a stop is interrupted as a phase is.
        """
        state = self.state
        self.prompt.make_room()  # for the sentence that says so
        if self.lent.has_script:
            self._interrupt_script()
        elif state.quits_next or self.trainer.session is None:
            self.app.exit(130, return_code=130)
        elif not state.interrupted:
            state.interrupted = True
            state.quits_next = not self.stop()
            self.say(Note(NOTHING_RUNS if state.quits_next else STOPS, "warn"))
            self.watch_the_clock()
        else:
            state.quits_next = True
            if self.trainer.status.idle:
                self.say(Note(NOTHING_RUNS, "warn"))
            else:
                self._interruption = Interrupting(monotonic(), self.trainer.publisher.update)
                self._interrupt(self._interruption)

    def _interrupt(self, interruption: Interrupting) -> None:
        """Have what runs interrupted, and look again until it has ended; say so where it does not end."""
        trainer, state = self.trainer, self.state
        if trainer.publisher.update is not interruption.update or trainer.status.idle:
            state.forget_interrupts()
            return
        if not self.is_attached or interruption is not self._interruption:
            return
        reached = trainer.interrupt(begin=not interruption.is_sent)
        state.quits_next = reached != "none" or not interruption.is_sent
        interruption.is_sent |= reached != "none"
        observer = trainer.session.observer if trainer.session else None
        is_kept = observer is not None and observer.problem is None
        is_late = monotonic() - interruption.since > MAX_INTERRUPT_SECONDS
        note = interrupt_note(reached, is_late=is_late, is_kept=is_kept) if state.quits_next else RETURNS
        if note != interruption.note:
            interruption.note = note
            self.say(note)
        self.set_timer(INTERRUPT_POLL_SECONDS, partial(self._interrupt, interruption))

    @property
    def _what_quitting_does(self) -> str:
        return "quits, and ends it" if self.lent.ends_with_screen else "quits, and raises KeyboardInterrupt in it"

    def _interrupt_script(self) -> None:
        """Hold the script at its next stop; where it comes to none, raise KeyboardInterrupt in it; then quit."""
        state = self.state
        runs = not self.trainer.status.idle
        if not state.interrupted:
            state.interrupted = True
            self.stop()
            held = f"the script waits where it is held; ctrl+c once more {self._what_quitting_does}"
            held = QUITS_NEXT if state.view.ended else held
            comes = "the script is held at its next stop; ctrl+c once more raises KeyboardInterrupt in it"
            self.say(Note(comes if runs else held, "warn"))
        elif runs and not state.script_interrupted:
            state.script_interrupted = True
            self.lent.interrupt()
            ends = ", and ends it" if self.lent.ends_with_screen else ""
            self.say(Note(f"ctrl+c was given to the script; once more quits{ends}", "warn"))
        else:
            if not self.lent.ends_with_screen and not state.script_interrupted:
                self.lent.interrupt()
            self.app.exit(130, return_code=130)
