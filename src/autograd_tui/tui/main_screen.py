"""The main screen: keys, the frame shown, and the trainer thread behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, Literal

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.message import Message
from textual.reactive import var
from textual.screen import Screen
from textual.timer import Timer

from autograd_tui.engine.about import About
from autograd_tui.engine.command import LETTERS, Command, Commands
from autograd_tui.engine.errors import Refused
from autograd_tui.engine.frame import Frame
from autograd_tui.engine.goal import Goal
from autograd_tui.engine.history import History
from autograd_tui.engine.inspection import Inspection
from autograd_tui.text.completion import completions, heading
from autograd_tui.text.layers import MOST_ROWS, Columns, Layers
from autograd_tui.text.nearest import clipped
from autograd_tui.text.numbers import duration
from autograd_tui.text.screen_word import SCENARIOS, ScreenWord
from autograd_tui.text.table_view import TableView, found, moved, name_of, rows, toggled
from autograd_tui.text.word_list import Candidate
from autograd_tui.text.words import read
from autograd_tui.tui.choices import THEMES
from autograd_tui.tui.help_screen import HelpScreen, first_rows, key_rows
from autograd_tui.tui.keys import FIRST_KEYS, KEYS
from autograd_tui.tui.layouts import SHORT, FoldedLayout, NarrowLayout, SmallLayout, WideLayout, layout_for
from autograd_tui.tui.output import Output
from autograd_tui.tui.paces import faster, pace_in_words, slower
from autograd_tui.tui.panels.keys import KeysPanel
from autograd_tui.tui.panels.note import Note, NotePanel
from autograd_tui.tui.panels.rows import RowPanel
from autograd_tui.tui.panels.status import StatusPanel
from autograd_tui.tui.prompt import Prompt
from autograd_tui.tui.readable_app import ReadableApp
from autograd_tui.tui.requests import Inspect, Look, News, Open, Request
from autograd_tui.tui.themes import theme_named
from autograd_tui.tui.trainer_thread import TrainerThread

if TYPE_CHECKING:
    from autograd_tui.engine.session import Session

PATIENCE = 0.25  # seconds before a phase that still runs is said to run


class MainScreen(Screen[None]):
    """Every key asks the trainer thread for something; every answer is a frame for the panels."""

    BINDINGS: ClassVar[list[BindingType]] = KEYS

    frame: var[Frame | None] = var(None)  # the one shown
    history: var[History | None] = var(None)
    about: var[About | None] = var(None)
    newest: var[int] = var(0)
    view: var[TableView] = var(TableView())
    inspection: var[Inspection | None] = var(None)  # of the parameter that enter asked for last
    note: var[Note | None] = var(None)
    log_scale: var[bool] = var(False)

    def __init__(
        self, open_session: Callable[[str | None], Session], first: Commands, *, title: str, output: Output
    ) -> None:
        super().__init__()
        self._title, self._output = title, output
        self._latest: Frame | None = None  # where training stands
        self._looking: int | None = None  # the frame looked at, where it is another one
        self._awaited: Look | None = None  # asked for last
        self._count = ""  # the digits typed so far, for the next key
        self._interrupted = False
        self._clock: Timer | None = None
        self._patience: Note | None = None  # what was said last of something that runs
        self._prompt = Prompt(self._run_words, self._offer, id="prompt")
        self.trainer = TrainerThread(
            open_session,
            first,
            opened=lambda session: self._tell(self._opened, session),
            failed=lambda error: self._tell(self._failed, error),
            news=lambda news: self._tell(self._heard, news),
        )

    def compose(self) -> ComposeResult:
        """Lay out the panels; each is bound to what it draws."""
        bound = (MainScreen.frame, MainScreen.about, MainScreen.history, MainScreen.view, MainScreen.inspection)
        yield StatusPanel(id="status").data_bind(MainScreen.frame, MainScreen.about, MainScreen.newest)
        yield WideLayout().data_bind(*bound, MainScreen.log_scale)
        yield FoldedLayout().data_bind(*bound, MainScreen.log_scale)
        yield NarrowLayout().data_bind(*bound, MainScreen.log_scale)
        yield SmallLayout().data_bind(*bound)
        yield NotePanel(id="note").data_bind(MainScreen.note)
        yield self._prompt
        yield KeysPanel(id="keys")

    def on_mount(self) -> None:
        """Start training behind the first paint."""
        self._output.on_line = lambda line: self._tell(self._printed, line)
        self.app.begin_capture_print(self)
        self.call_after_refresh(self.trainer.start)
        self._watch_the_clock()

    def on_unmount(self) -> None:
        """Let the trainer thread end."""
        self.trainer.close()

    def on_resize(self, event: events.Resize) -> None:
        """Choose the layout for the terminal's size."""
        for name in ("-wide", "-narrow", "-small"):
            self.set_class(name == layout_for(event.size), name)
        self.set_class(event.size.height < SHORT, "-short")

    def on_print(self, event: events.Print) -> None:
        """Take in what was printed through Python while the screen was up."""
        self._output.write(event.text)

    # What the trainer thread tells; it arrives here on the screen's own thread.

    def _tell(self, method: Callable[..., None], *arguments: object) -> None:
        if self.is_attached:
            self.app.call_later(method, *arguments)

    def _opened(self, session: Session) -> None:
        self.about = session.about
        self.history = session.history.copy()
        self.view, self.inspection = TableView(), None
        self._latest = self.frame = session.frame

    def _failed(self, error: BaseException) -> None:
        self.post_message(self.Failed(error))

    def _heard(self, news: News) -> None:
        self.newest = news.newest
        self._latest = news.frame
        self.history = news.history
        self.inspection = news.inspection
        if news.looked_at is not None and news.look == self._awaited:
            self._show(news.looked_at)
        if self._looking is None:
            self.frame = news.frame
        self._say(Note(news.refused, "warn") if news.refused else None)
        self._watch_the_clock()

    def _printed(self, _: str) -> None:
        self._say(None)

    class Failed(Message):
        """The session could not be opened, or met a bug of ours."""

        def __init__(self, error: BaseException) -> None:
            super().__init__()
            self.error = error

    # What keys ask for.

    def action_phase(self, letter: str) -> None:
        """Run one phase; whether it is its turn is decided when it is."""
        self._ask(LETTERS[letter])

    def action_run(self, what: Literal["next", "iteration", "run"]) -> None:
        """Run the next phase, or the rest of the iteration; while a run goes on, pause it instead."""
        if self.trainer.running is not None:
            self.trainer.stop()
        elif what == "run":
            self._ask(Goal())
        else:
            self._ask(what)

    def action_pace(self, which: Literal["faster", "slower"]) -> None:
        """Run faster or slower."""
        self.trainer.pace = (faster if which == "faster" else slower)(self.trainer.pace)
        self._say_pace()

    def _say_pace(self) -> None:
        self._say(None if self.trainer.running is not None else Note(f"r runs at {pace_in_words(self.trainer.pace)}"))

    def _ask(self, what: Command | Commands | Goal | Open | Literal["next", "iteration"]) -> None:
        self._interrupted = False
        start, self._looking = self._looking, None
        if not self.trainer.ask(Request(what, start, self._take_count())):
            self._say(Note("that key is held down: eight of it wait already", "warn"))
        self._watch_the_clock()

    def action_count(self, digit: int) -> None:
        """Add a digit to the count for the next key."""
        self._count = (self._count + str(digit)).lstrip("0")[:6]
        self._say(None)

    def _take_count(self) -> int:
        count, self._count = int(self._count or 1), ""
        return count

    def action_undo(self) -> None:
        """Go back by one command, or by as many as were counted."""
        if self._latest is not None:
            self._ask(Command("@", max((self._looking or self._latest.index) - int(self._count or 1), 0)))

    def action_look(self, by: int) -> None:
        """Show the frame before or after; training stays where it is."""
        session, count = self.trainer.session, self._take_count()
        if self.frame is None or session is None:
            return
        index = min(max(self.frame.index + by * count, 0), self.newest)
        if self.trainer.running is not None:  # the nearest one that there is: making others would hold the run up
            index = session.nearest(index, by)
        self._look_at(index)

    def action_look_at(self, index: int) -> None:
        """Show the first frame (0) or the newest (-1)."""
        self._look_at(self.newest if index < 0 else index)

    def action_look_alike(self, by: int) -> None:
        """Show the same phase of the iteration before or after."""
        if self.frame is not None:
            self._ask_to_look(Look(self.frame.index, by))

    def _look_at(self, index: int) -> None:
        stored = self.trainer.session.stored(index) if self.trainer.session else None
        if stored is not None:
            self._show(stored)
        else:
            self._looking = index
            self._ask_to_look(Look(index))
        self._say(None)

    def _ask_to_look(self, look: Look) -> None:
        self._awaited = look
        self.trainer.ask(Request(look))

    def _show(self, frame: Frame) -> None:
        """Show a frame, which may be the one where training stands."""
        latest = self._latest is not None and frame.index == self._latest.index
        self._looking = None if latest else frame.index
        self.frame = self._latest if latest else frame

    def action_select(self, by: int) -> None:
        """Move the cursor of the table, by as many rows as were counted."""
        if self.frame is not None:
            self.view = moved(self.view, rows(*self._table(self.frame), self.view), by * self._take_count())
            self._say(None)

    def action_open(self) -> None:
        """Open or close the layer under the cursor; measure the parameter under it exactly."""
        cursor = self.view.cursor
        if self.frame is None or cursor is None:
            self._say(Note("↑ and ↓ select a row, which enter opens", "warn"))
        elif cursor.place is None:
            self.view = toggled(self.view, cursor.layer)
        else:
            self.view = replace(self.view, asked=True)
            self._inspect(name_of(self._table(self.frame)[0], cursor))

    def _inspect(self, name: str) -> None:
        if self._looking is not None:
            self._say(Note("exact numbers are those of the frame where training stands: escape returns to it", "warn"))
        elif self.trainer.running is not None:
            self._say(Note("it runs: space pauses, and then enter measures exactly", "warn"))
        else:
            self.trainer.ask(Request(Inspect(name)))

    def on_row_panel_clicked(self, event: RowPanel.Clicked) -> None:
        """Select a row; open the one that is selected."""
        if event.row == self.view.cursor:
            self.action_open()
        else:
            self.view = replace(self.view, cursor=event.row)

    def on_row_panel_turned(self, event: RowPanel.Turned) -> None:
        """Move the cursor of the table with the mouse wheel."""
        self.action_select(event.by)

    def sort_table(self, column: str) -> None:
        """Sort the table by a column, "model" for the model's order; raises Refused where it has few rows."""
        if self.frame is not None and len(self.frame.params) <= MOST_ROWS:
            raise Refused(f"a table of {len(self.frame.params)} rows stays in the model's order.")
        self.view = replace(self.view, column=column)

    def find_parameter(self, text: str) -> None:
        """Move the cursor to the next parameter with `text`, or what was looked for last, in its name, or raise."""
        text = text or self.view.search
        if not text or self.frame is None:
            raise Refused("give a part of a parameter's name behind the /.")
        view = found(*self._table(self.frame), self.view, text)
        if view is None:
            raise Refused(f'no parameter has "{clipped(text)}" in its name.')
        self.view = view

    def _table(self, frame: Frame) -> tuple[Layers, Columns]:
        return Layers.of(frame.params.layout.names), Columns.of(frame)

    def action_prompt(self, text: str) -> None:
        """Take a command in words, the first of them given."""
        self._prompt.open(text)

    def _offer(self, text: str) -> tuple[str, list[Candidate]]:
        files = [path.name for path in sorted(Path().glob("*.py"))] if text.startswith("model ") else []
        found = completions(
            text,
            self.frame,
            newest=self.newest,
            history=self.history,
            themes=(*THEMES, *self.app.available_themes),
            models=(*SCENARIOS, *files),
        )
        return heading(text, self.frame), found

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave all keys to the prompt while it is open, but those that leave and stop."""
        return action in ("leave", "interrupt") or not self._prompt.is_open

    def _run_words(self, text: str) -> bool:
        """Do what words ask for; False where they were not understood."""
        self._say(None)
        try:
            words = None if text.startswith("/") else read(text)
            if words is None:
                self.find_parameter(text[1:].strip())
            elif isinstance(words, ScreenWord):
                self._answer(words)
            elif words:
                self._ask(words)
        except Refused as error:
            self._say(Note(str(error), "warn"))
            return False
        return True

    def _answer(self, word: ScreenWord) -> None:
        """Do what a word for the screen asks; raises Refused."""
        match word.name, word.value:
            case "run", int(times):
                self._count = str(times)
                self._ask("iteration")
            case "run", Goal() as goal:
                self._ask(goal)
            case "speed", float() | None as pace:
                self.trainer.pace = pace
                self._say_pace()
            case "theme", str(name):
                self.app.theme = theme_named(name)
            case "ascii" | "unicode", _:
                assert isinstance(self.app, ReadableApp)
                self.app.ascii_only = word.name == "ascii"
            case "log" | "linear", _:
                self.log_scale = word.name == "log"
            case "export", _:
                self.refresh(layout=True)
                self.call_after_refresh(self.action_export)  # a picture without the prompt
            case "help", _:
                self.action_help()
            case "quit", _:
                self.app.exit(0)
            case "sort", str(column):
                self.sort_table(column)
            case "model", str(scenario):
                self._ask(Open(scenario))
            case _:  # console, veil
                raise Refused(f'"{word.name}" is not there: this screen cannot do it.')

    def action_log_scale(self) -> None:
        """Draw the loss on the other scale."""
        self.log_scale = not self.log_scale

    def action_export(self) -> None:
        """Write a picture into the current folder; the line that repeats the run goes to the clipboard too."""
        line = self.command_line()
        self.app.copy_to_clipboard(line)
        try:
            path = Path(self.app.save_screenshot(path=str(Path.cwd())))
            path.with_suffix(".txt").write_text(line + "\n", encoding="utf-8")
        except OSError as error:
            self._say(Note(f"the picture could not be written: {error.strerror}", "error"))
            return
        self._say(Note(f"written: {path.name}, and beside it {line}", "accent"))

    def action_help(self) -> None:
        """Show the keys."""
        self.app.push_screen(HelpScreen(first_rows(KEYS, FIRST_KEYS), key_rows(KEYS)))

    def action_leave(self) -> bool:
        """Leave the innermost thing; tell whether there was one."""
        if self._prompt.is_open:
            self._prompt.close()
            self._say(None)
        elif self.trainer.session is not None and (self.trainer.waiting or self.trainer.running is not None):
            self.trainer.stop()
        elif self._count:
            self._count = ""
            self._say(None)
        elif self._looking is not None:
            self._looking = None
            self.frame = self._latest
            self._say(None)
        elif self.view.cursor is not None:
            self.view = replace(self.view, cursor=None, asked=False)
            self._say(None)
        else:
            return False
        return True

    def action_quit(self) -> None:
        """Leave the innermost thing; at the top, quit."""
        if not self.action_leave():
            self.app.exit(0)

    def action_interrupt(self) -> None:
        """Stop the phase or run; a second time, quit with the code of an interrupt."""
        if self._interrupted:
            self.app.exit(130, return_code=130)
            return
        self._interrupted = True
        if self.trainer.stop():
            self._say(Note("stops after this phase, which cannot be cancelled; ctrl+c once more quits", "warn"))
        else:
            self._say(Note("nothing runs; ctrl+c once more quits", "warn"))

    def command_line(self) -> str:
        """Give the line that repeats the run."""
        session = self.trainer.session
        return session.command_line() if session else f"autograd-tui {self._title}"

    # The note: what cannot be seen from the frame.

    def _say(self, note: Note | None) -> None:
        """Show a sentence; without one, the sign of the mode we are in."""
        self.note = note or self._mode()

    def _mode(self) -> Note | None:
        if self._count:
            return Note(f"{self._count}_", "accent")
        if self._looking is not None:
            return Note(f"frame {self._looking} of {self.newest}: a command goes on from here, escape returns", "now")
        if self.trainer.running is not None:
            until = f" until {self.trainer.running}" if self.trainer.running else ""
            return Note(f"running at {pace_in_words(self.trainer.pace)}{until}: space pauses, + - change it", "accent")
        busy = self.trainer.busy
        if busy is not None and monotonic() - busy[1] >= PATIENCE:
            waiting = f", {self.trainer.waiting} wait" if self.trainer.waiting else ""
            self._patience = Note(f"{busy[0]} runs: {duration(monotonic() - busy[1])}{waiting}", "accent")
            return self._patience
        if self._latest is not None and self._latest.index < self.newest:
            return Note(f"gone back to frame {self._latest.index}: the later ones stay until a command runs", "accent")
        printed = self._output.lines
        return Note(f"printed, {len(printed)} lines by now: {printed[-1]}", "dim") if printed else None

    def _watch_the_clock(self) -> None:
        """Look again in a moment whether something still runs; no timer stays while nothing does."""
        if self._clock is None:
            self._clock = self.set_timer(PATIENCE + 0.01, self._tick)

    def _tick(self) -> None:
        self._clock = None
        if self.trainer.busy is None:
            if self.note is self._patience:
                self._say(None)  # it ended just after its news were heard
            return
        if self._looking is None and not self._interrupted:
            self._say(None)
        self._watch_the_clock()
