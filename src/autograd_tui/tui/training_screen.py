"""What every part of the main screen works with: the frame shown, the trainer thread behind it, and the note."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from textual.message import Message
from textual.reactive import var
from textual.timer import Timer

from autograd_tui.core.command import Commands
from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History
from autograd_tui.core.session_view import OpenSession, SessionInfo
from autograd_tui.core.tensor_stats import Inspection
from autograd_tui.text.hidden_results import STAGES, HiddenResults, hide_results
from autograd_tui.text.messages import progress_line
from autograd_tui.text.numbers import duration
from autograd_tui.text.styled_text import one_line
from autograd_tui.text.table.view import TableView
from autograd_tui.tui.captured_output import CapturedOutput, headline, newest_message
from autograd_tui.tui.panels.status import Note
from autograd_tui.tui.rendering import CachedRows, SizedScreen
from autograd_tui.tui.requests import (
    MOST_WAITING,
    Arm,
    Export,
    Inspect,
    Look,
    Place,
    Request,
    ScreenKey,
    Status,
    Training,
    Update,
)
from autograd_tui.tui.run_speed import pace_in_words
from autograd_tui.tui.trainer_thread import TrainerThread

LEAST_PLOT_SECONDS, MOST_PLOT_SECONDS = 0.15, 1.0  # between the plots of a run
PLOT_GROWTH = 0.02  # of a run, from which on it shows: a column of fifty
SILENCE = 3.0  # seconds without a new frame before a run is said to wait for one
LONGEST_PRINTED = 160  # characters of what was printed, in the note
PATIENCE = 0.25  # seconds before a phase that still runs is said to run


class TrainingScreen(SizedScreen, CachedRows):
    """Asks the trainer thread for something, and takes in its answers: frames for the panels."""

    frame: var[Frame | None] = var(None)  # the one shown
    history: var[History | None] = var(None)
    about: var[SessionInfo | None] = var(None)
    newest: var[int] = var(0)
    view: var[TableView] = var(TableView())
    inspection: var[Inspection | None] = var(None)  # of the parameter that enter asked for last
    note: var[Note | None] = var(None)
    unkept: var[str] = var("")  # a mark, as long as the run is not kept
    log_scale: var[bool] = var(False)
    plotted: var[str] = var("loss")
    veil: var[HiddenResults | None] = var(None)  # over the frame shown
    printed: var[tuple[str, ...]] = var(())  # by the model, the last lines of it

    def __init__(
        self,
        open_session: OpenSession,
        first: Commands,
        *,
        title: str,
        output: CapturedOutput,
        thread: type[TrainerThread] = TrainerThread,
    ) -> None:
        super().__init__()
        self.title_given, self.output = title, output
        self.status = Status(None, 0.0)  # of the trainer thread, as it is shown
        self.greeting: str | None = None  # said with the first news
        self.latest: Frame | None = None  # where training stands
        self.looking: int | None = None  # the frame looked at, where it is another one
        self.awaited: tuple[Look, ...] = ()  # asked for since the last command, and not answered yet
        self.commands = CommandLog()  # the commands that led to the latest frame
        self.count = ""  # the digits typed so far, for the next key
        self.dropped: Note | None = None  # that keys were, said until the next one
        self.interrupted = False
        self.veiling = False  # whether new numbers are hidden until they are asked for
        self.stage = 0  # how much of the newest frame has been shown
        self._plotted = 0.0  # when
        self._clock: Timer | None = None
        self._patience: Note | None = None  # what was said last of something that runs
        self.trainer = thread(
            open_session,
            first,
            title=title,
            opened=lambda about, news: self.later(self._opened, about, news),
            failed=lambda error: self.later(self._failed, error),
            heard=lambda news: self.later(self._heard, news),
        )

    def later(self, method: Callable[..., object], *arguments: object) -> None:
        """Call a method on the screen's own thread, from any thread."""
        if self.is_attached:
            self.call_later(method, *arguments)

    def ask(self, what: Training, *, pauses: bool = False) -> None:
        """Ask for something that trains; it goes on from the frame looked at, or only `pauses` a run."""
        self.interrupted = False
        request = Request(what, self.place, self.take_count(), pauses=pauses, in_sight=self.run_in_sight)
        self.looking, self.awaited = None, ()
        self.put_in_line(request)

    def put_in_line(self, request: Request) -> bool:
        """Ask the trainer thread for something; False where that waits often enough already."""
        taken = self.trainer.ask(request)
        if not taken:
            full = self.trainer.waiting >= MOST_WAITING
            wait = f"{MOST_WAITING:,} commands wait" if full else "that key is held down: eight of it wait"
            self.say(Note(f"{wait} already", "warn"))
        self.watch_the_clock()
        return taken

    def ask_beside(self, what: Look | Inspect | Export | Arm | ScreenKey) -> bool:
        """Ask for something that leaves training where it is; False where that waits often enough already."""
        return self.put_in_line(Request(what, in_sight=self.run_in_sight))

    def in_turn(self, act: Callable[[], None]) -> None:
        """Answer a key that asks nobody, once all that was asked for before it is on the screen."""
        if self.up_to_date:
            act()
        else:
            self.ask_beside(ScreenKey(act))

    def stop(self) -> bool:
        """Stop what runs, and drop what waits; tell whether there was anything."""
        self.awaited = ()
        return self.trainer.stop()

    @property
    def up_to_date(self) -> bool:
        """Whether all that was asked for is on the screen."""
        session = self.trainer.session
        return self.trainer.idle and not self.awaited and session is not None and session.frame is self.latest

    @property
    def run_in_sight(self) -> bool:
        """Whether a run has been on the screen for long enough to be meant by a key."""
        return self.status.run is not None and monotonic() - self.status.run_since > PATIENCE

    @property
    def place(self) -> Place:
        """The frame that a key goes on from: the one looked at, or else where training stands when its turn comes."""
        if self.awaited:
            return "looked at"
        return "here" if self.looking is None else self.looking

    def take_count(self) -> int:
        """Give the count typed before a key, and forget it."""
        count, self.count = int(self.count or 1), ""
        return count

    @property
    def fault(self) -> int | None:
        """The frame at which a watchpoint has fired, where training stands there and it is the one shown."""
        fired = self.trainer.session.fired if self.trainer.session else None
        shown = self.latest is self.frame is not None and fired is not None and fired.index == self.frame.index
        return fired.index if fired is not None and shown else None

    # What the trainer thread tells.

    async def lay_out(self, frame: Frame | None) -> None:
        """Make room for the model that a frame is of."""
        raise NotImplementedError

    def show_trace(self, news: Update) -> None:
        """Step inside the phase that was recorded."""
        raise NotImplementedError

    async def _opened(self, about: SessionInfo, news: Update) -> None:
        await self.lay_out(news.frame)
        self.about, self.history, self.newest, self.commands = about, news.history, news.newest, news.log
        self.view, self.inspection, self.looking, self.awaited = TableView(), None, None, ()
        self.mark_unkept(news)
        self.latest = self.frame = news.frame

    def _failed(self, error: BaseException) -> None:
        self.post_message(self.Failed(error))

    def _heard(self, news: Update) -> None:
        self.newest, self.commands = news.newest, news.log
        self.mark_unkept(news)
        if self.latest is not news.frame:
            self.stage = STAGES if news.goes_on else 0  # a run is not stopped by questions
        self.latest = news.frame
        self._take_history(news)
        self.inspection = news.inspection
        self.show_trace(news)
        if any(look is news.asked for look in self.awaited):
            self.awaited = self.awaited[1:]
            if news.looked_at is not None:
                self.show_frame(news.looked_at)
        if self.looking is None:
            self.show_frame(news.frame)
        greeting, self.greeting = self.greeting, None
        warning, words = news.refused or news.said, news.written or greeting
        self.say(Note(warning, "warn") if warning else Note(words, "accent") if words else None)
        if isinstance(news.asked, ScreenKey):
            news.asked.act()
        self.watch_the_clock()

    def mark_unkept(self, news: Update) -> None:
        """Mark a run that is not kept, as long as that is so."""
        self.unkept = news.problem.mark if news.problem else ""

    def _take_history(self, news: Update) -> None:
        """Plot what is new; while a run goes on once it would show, since a plot takes as long as all other panels."""
        seconds, plotted = monotonic() - self._plotted, self.history
        if news.goes_on and plotted is not None:
            shows = news.history.loss.share_since(plotted.loss) > PLOT_GROWTH
            if seconds < (LEAST_PLOT_SECONDS if shows else MOST_PLOT_SECONDS):
                return
        self.history, self._plotted = news.history, monotonic()

    class Failed(Message):
        """The session could not be opened, or met a bug of ours."""

        def __init__(self, error: BaseException) -> None:
            super().__init__()
            self.error = error

    def show_frame(self, frame: Frame) -> None:
        """Show a frame, which may be the one where training stands."""
        latest = self.latest is not None and frame.index == self.latest.index
        self.looking = None if latest else frame.index
        self.frame = self.latest if latest else frame
        self.draw_veil()

    def draw_veil(self) -> None:
        """Hide of the newest frame what has not been asked for yet."""
        newest = self.frame if self.looking is None else None
        self.veil = hide_results(newest, self.stage) if newest is not None and self.veiling else None

    # The note: what cannot be seen from the frame.

    def say(self, note: Note | None) -> None:
        """Show a sentence; without one, the sign of the mode we are in."""
        self.status = self.trainer.status
        self.note = note or self._mode(self.status)

    def _mode(self, status: Status) -> Note | None:
        if self.dropped is not None:
            return self.dropped
        if self.count:
            return Note(f"{self.count}_", "accent")
        if status.progress is not None and (patient := self.patient(status)):
            return patient
        if self.looking is not None:
            on = "a command goes on from here, " if self.trainer.trains else ""
            return Note(f"frame {self.looking} of {self.newest}: {on}escape returns", "now")
        if status.run is not None:
            return Note(self._said_of_a_run(status, status.run), "accent")
        sign = self.trainer.sign
        said = self.patient(status) or (Note(sign, "accent") if sign else None)
        return said or self._gone_back() or self._veiled() or self._has_printed()

    def _said_of_a_run(self, status: Status, goal: str) -> str:
        if status.silent > SILENCE:
            return f"this iteration has run for {duration(status.silent)}: space pauses behind it"
        session, until = self.trainer.session, f" until {goal}" if goal else ""
        watched = ", watched" if session and session.watchpoints else ""
        pace = f"{pace_in_words(self.trainer.pace)}{watched}{until}{self._in_line()}"
        return f"running at {pace}: space pauses, + - change it"

    def _in_line(self) -> str:
        waiting = self.trainer.waiting
        return f", {waiting} wait{'s' * (waiting == 1)}" if waiting else ""

    def patient(self, status: Status | None = None) -> Note | None:
        """Say what has run for longer than a moment, now or at that status."""
        status = status or self.trainer.status
        if status.busy is None or monotonic() - status.since < PATIENCE:
            return None
        self._patience = Note(f"{self._what_runs(status.busy, status)}{self._in_line()}", "accent")
        return self._patience

    def _what_runs(self, what: str, status: Status) -> str:
        """Say how far it is, where that is known: of going back, of a download, of whatever else draws a bar."""
        if status.progress is not None:
            return progress_line(status.progress)
        bar = self.output.unfinished(status.since)
        return f"{f'{bar} so far' if bar else what}: {duration(monotonic() - status.since)}"

    def _gone_back(self) -> Note | None:
        if self.latest is None or self.latest.index == self.newest:
            return None
        return Note(f"gone back to frame {self.latest.index}: the later ones stay until a command runs", "accent")

    def _veiled(self) -> Note | None:
        if not self.veiling:
            return None
        if self.veil is not None:
            return Note("behind the veil: space shows it", "now")
        return Note("the veil is drawn: space runs and hides the new numbers, v takes it away", "accent")

    def _has_printed(self) -> Note | None:
        if not self.printed:
            return None
        line = one_line(headline(self.printed[newest_message(self.printed)]), LONGEST_PRINTED)
        lines = self.output.count
        count, them = ("1 line", "it") if lines == 1 else (f"{lines:,} lines", "them")
        return Note(f"{count} printed, :console shows {them}: {line}", "dim")

    def watch_the_clock(self) -> None:
        """Look again in a moment whether something still runs; no timer stays while nothing does."""
        if self._clock is None:
            self._clock = self.set_timer(PATIENCE + 0.01, self._tick)

    def _tick(self) -> None:
        self._clock = None
        if self.trainer.idle:
            if self.note is self._patience:
                self.say(None)  # it ended just after its news were heard
            return
        if (self.looking is None or self.trainer.status.progress is not None) and not self.interrupted:
            self.say(None)
        self.watch_the_clock()
