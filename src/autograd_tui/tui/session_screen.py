"""What the main screen's actions work with: state, trainer thread, note, layout, and what drawing may cost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from time import monotonic, thread_time

from textual import events
from textual.message import Message
from textual.reactive import var
from textual.timer import Timer

from autograd_tui.core.frame import Frame
from autograd_tui.core.loss_surface import LossSurface
from autograd_tui.core.picture import Picture
from autograd_tui.core.session_protocol import DeviceLoad, SessionInfo
from autograd_tui.tui.captured_output import CapturedOutput
from autograd_tui.tui.layouts import Layout, layout_for
from autograd_tui.tui.panels.panel import Panel
from autograd_tui.tui.panels.surface import SurfacePanel
from autograd_tui.tui.rendering import CachedRows, SizedScreen
from autograd_tui.tui.requests import MAX_WAITING, Request, ScreenAction
from autograd_tui.tui.screen_state import PATIENCE, QUITS_NEXT, STOPS, Note, ScreenState, View
from autograd_tui.tui.terminal import ReadableApp
from autograd_tui.tui.trace_screen import TraceScreen
from autograd_tui.tui.trainer_status import Update
from autograd_tui.tui.trainer_thread import TrainerThread

CATCH_UP_SECONDS = 0.05  # between two looks at a terminal that is behind
MAX_PRINTED_LINES = 200  # of what a model prints, on the screen
PRINT_SECONDS = 0.1  # between two looks at it: a model may print thousands of lines
NO_ROOM = Note("the loss is measured, but there is no room for it here: a larger terminal shows it", "warn")
STOPPED = f"stopped; {QUITS_NEXT}"
MAX_BYTES_PER_SECOND = 8_000  # so that a run can be watched over a slow line
EXPECTED_BYTES = 5_000  # of a frame, at least: those at the beginning of a run change much
MAX_DRAW_SHARE = 0.015  # of a run's time that drawing may take: both are Python, and one waits for the other
READ_SECONDS = 4.0  # for which an answer stays while a run goes on and has nothing to say
MAX_PAUSE = 1.0  # seconds between two frames, whatever they cost


class SessionScreen(SizedScreen, CachedRows):
    """Puts requests into the trainer thread's queue, and takes in its updates; the view goes to the panels."""

    view: var[View] = var(View())

    def __init__(self, make_trainer: Callable[..., TrainerThread], *, output: CapturedOutput) -> None:
        """`make_trainer` takes what a TrainerThread is called with on opening, on failing and on each update."""
        super().__init__()
        self.state = ScreenState()
        self.output = output
        self.trainer = make_trainer(
            opened=lambda about, update: self.later(self._open, about, update),
            failed=lambda error: self.later(self.post_message, self.Failed(error)),
            updated=lambda update: self.later(self._take, update),
            loaded=lambda load: self.later(self._show_load, load),
            measured=lambda surface: self.later(self._show_surface, surface),
            pictured=lambda pictures: self.later(self._show_pictures, pictures),
        )
        self.trace_screen: TraceScreen | None = None  # while it lies over this one
        self.zoomed = False  # whether one panel is alone
        self._clock: Timer | None = None
        self._frame_of_surface: int | None = None  # of the one that was asked for last, once it is measured
        self._reads_output = False  # in a moment
        self._budget = DrawingBudget()  # of the frames of a run
        self._next_of_run: Timer | None = None  # draws the next one, where that has to wait
        self._waiting_update: Update | None = None  # that it will show, the newest
        self._said = 0.0  # when an answer was shown last; 0 where it has been taken away
        self._was_asked_early = False  # by keys, before there was a session

    class Dropped(Message):
        """A key had nothing done, since too much waits."""

    class Failed(Message):
        """The session could not be opened, or met a bug of ours."""

        def __init__(self, error: BaseException) -> None:
            super().__init__()
            self.error = error

    def later(self, method: Callable[..., object], *arguments: object) -> None:
        """Call a method on the screen's own thread, from any thread."""
        if self.is_attached:
            self.call_later(method, *arguments)

    def draw(self) -> None:
        """Hand the state's view to the panels."""
        self.view = self.state.view

    # Requests.

    def ask(self, request: Request) -> bool:
        """Put a request into the queue; False where that waits often enough already."""
        request.in_sight = self.state.run_in_sight
        taken = self.trainer.requests.put(request)
        self._was_asked_early |= taken and self.state.latest is None
        if not taken and len(self.trainer.requests) >= MAX_WAITING:
            self.post_message(self.Dropped())
        elif not taken:
            self.say(Note("that key is held down: eight of it wait already", "warn"))
        self.watch_the_clock()
        return taken

    def in_turn(self, act: Callable[[], None]) -> None:
        """Answer a key that asks nobody, once all that was asked for before it is on the screen."""
        if self.up_to_date:
            act()
        else:
            self.ask(ScreenAction(act))

    def stop(self) -> bool:
        """Stop what runs, and drop what waits; return whether there was anything."""
        self.state.pending_looks, self._was_asked_early = (), False
        self.draw()  # frame 0 too, where the answer that it gave way to is dropped
        return self.trainer.stop()

    @property
    def up_to_date(self) -> bool:
        """Whether all that was asked for is on the screen."""
        idle, session = self.trainer.status.idle, self.trainer.session
        return idle and not self.state.pending_looks and session is not None and session.frame is self.state.latest

    # Updates.

    async def _open(self, about: SessionInfo, update: Update) -> None:
        await self.lay_out(update.frame)
        self.state.open(about, update)
        if self.trace_screen is not None:
            self.trace_screen.change(unkept=update.unkept)
        if not self._is_overtaken(update):
            self.draw()

    def _take(self, update: Update) -> None:
        is_sample = update.goes_on and update.request is None and not (update.refused or update.warning)
        if is_sample and self._waits_for_terminal():
            self._waiting_update = update
            return
        self._waiting_update = None
        self.state.take(update)
        if self.trace_screen is not None:
            self.trace_screen.take(update)
        if not self._is_overtaken(update):
            note = self.state.update_note(update) or self._stopped_note(update)
            if note is None and is_sample and self._is_read:
                self.draw()
            else:
                self.say(note)
        if isinstance(update.request, ScreenAction):
            update.request.act()
        self.watch_the_clock()

    def _is_overtaken(self, update: Update) -> bool:
        """Return whether frame 0 need not be drawn, since the answer to a key typed before it was there follows.

        Where that takes longer than a moment, the clock has frame 0 drawn.
        """
        says_nothing = update.request is None and not (update.refused or update.warning)
        return update.frame.index == 0 and says_nothing and self._was_asked_early

    def _stopped_note(self, update: Update) -> Note | None:
        """Return that what ctrl+c has stopped has ended, and that once more quits; None where it was nothing."""
        state = self.state
        if update.goes_on or self.trainer.can.script or not state.interrupted or state.quits_next:
            return None
        state.quits_next = True
        return Note(STOPPED, "warn")

    def _show_surface(self, surface: LossSurface | None) -> None:
        self.state.change(surface=surface)
        self.draw()

    def _show_load(self, load: DeviceLoad | None) -> None:
        self.state.change(load=load)
        if self.trainer.status.idle:  # else an update follows, which is drawn
            self.draw()

    def _show_pictures(self, pictures: tuple[Picture, ...]) -> None:
        self.state.change(pictures=pictures)
        if self.trainer.status.run is None:  # else the next frame of the run is drawn with them
            self.draw()

    def _waits_for_terminal(self) -> bool:
        """Return whether the next frame of a run has to wait; it will be drawn then, and those in between never."""
        app = self.app
        assert isinstance(app, ReadableApp)
        seconds, status = 0.0, self.trainer.status
        now = Spent(monotonic(), app.bytes_sent, thread_time())
        if status.speed is None:
            seconds = self._budget.pause(now, paced=status.pace is not None)
        if app.terminal_is_behind:
            seconds = max(seconds, CATCH_UP_SECONDS)
        if seconds <= 0:
            self._budget.add(now)
        elif self._next_of_run is None:
            self._next_of_run = self.set_timer(seconds, self._draw_next_of_run)
        return seconds > 0

    def draw_next_at_once(self) -> None:
        """Have the next frame of a run wait for nothing but the terminal, since its words have changed."""
        self._budget.clear()

    def _draw_next_of_run(self) -> None:
        self._next_of_run = None
        if self._waiting_update is not None:
            self._take(self._waiting_update)
        elif not self._waits_for_terminal():
            self.draw()

    def show_frame(self, frame: Frame) -> None:
        """Show a frame, which may be the one where training stands."""
        self.state.show_frame(frame)
        self.draw()

    # The note.

    @property
    def _is_read(self) -> bool:
        """Whether an answer was shown so shortly ago that somebody may still read it."""
        return monotonic() - self._said < READ_SECONDS

    def say(self, note: Note | None) -> None:
        """Show a sentence where it is seen; without one, that of the mode the screen is in."""
        status = self.trainer.status
        self._said = 0.0 if note is None else monotonic()
        if self.trace_screen is None:
            self.state.say(note, status, self.output)
        elif note is not None:
            self.trace_screen.say(note)
        elif self.trace_screen.awaits_an_answer and (waiting := self.state.waiting_note(status, self.output)):
            self.trace_screen.say(waiting)
        self.draw()

    def watch_the_clock(self) -> None:
        """Look again in a moment whether something still runs; no timer stays while nothing does."""
        if self._clock is None:
            self._clock = self.set_timer(PATIENCE + 0.01, self._tick)

    def _tick(self) -> None:
        self._clock, status = None, self.trainer.status
        if status.idle:
            note = self.state.view.note
            if self.state.is_patient:
                self.say(None)  # it ended just after its update was shown
            elif note is not None and note.text == STOPS:  # what has ended had no update, as a picture has none
                self.state.quits_next = True
                self.say(Note(STOPPED, "warn"))
            self._say_whether_surface_fits()
            return
        answered = not status.busy or monotonic() - status.updated < PATIENCE  # a moment ago: its note stays
        answered = answered or (status.run is not None and self._is_read)
        if (self.state.looking is None or status.progress is not None) and not (answered or self.state.interrupted):
            self.say(None)
        self.watch_the_clock()

    def _say_whether_surface_fits(self) -> None:
        """Show once, of a surface that was asked for, that there is no room for it."""
        surface = self.state.view.surface
        frame = None if surface is None else surface.frame
        if frame != self._frame_of_surface:
            self._frame_of_surface = frame
            if frame is not None and not any(panel.is_on_screen for panel in self.layout_shown.query(SurfacePanel)):
                self.say(NO_ROOM)

    def read_output(self) -> None:
        """Look in a moment at what was printed; called on any thread, and as often as lines come."""
        if not self._reads_output:
            self._reads_output = True
            self.later(self.set_timer, PRINT_SECONDS, self._show_output)

    def _show_output(self) -> None:
        self._reads_output = False
        self.state.change(printed=self.output.last(MAX_PRINTED_LINES))
        note = self.state.view.note
        if note is None or note.style != "warn":  # what is wrong is said until the next key
            self.say(None)
        self.draw()

    # The layout.

    @property
    def layout_shown(self) -> Layout:
        return self.query_one(Layout)

    async def on_resize(self, event: events.Resize) -> None:
        """Show all panels again, where the terminal's size wants them."""
        self.unzoom()
        await self.lay_out(self.state.view.frame)

    async def lay_out(self, frame: Frame | None) -> None:
        """Put the right layout in the place of another one, all at once; a chosen panel stays chosen."""
        async with self.batch():
            old, wanted = self.query_one_optional(Layout), layout_for(self.app.size, frame)
            if old is None or type(old) is wanted or not self.is_attached:  # none any more when the screen closes
                return
            self.unzoom()
            chosen = self.focused if isinstance(self.focused, Panel) else None
            if chosen is not None:
                self.set_focus(None)  # or Textual would choose a neighbour
            layout = wanted()
            await self.mount(layout, after="#status")
            layout.data_bind(SessionScreen.view)  # behind mount: its panels have the frame before they are seen
            await old.remove()  # last, so that a key finds a layout at any moment
        if chosen is not None:
            self.set_focus(next(iter(layout.query(type(chosen))), None), scroll_visible=False)

    def zoom(self, panel: Panel) -> None:
        """Show one panel alone."""
        self.zoomed = True
        self.layout_shown.zoom(panel)

    def unzoom(self) -> bool:
        """Show all panels again; return whether one was alone."""
        alone, self.zoomed = self.zoomed, False
        if alone and (layout := self.query_one_optional(Layout)):
            layout.zoom(None)
        return alone


@dataclass(frozen=True, slots=True)
class Spent:
    """What had been spent when a frame was about to be drawn."""

    moment: float  # by `monotonic`
    sent: int  # bytes to the terminal
    work: float  # seconds of the screen's thread


class DrawingBudget:
    """Says when the next frame of a run may be drawn, so that no second has too many bytes, nor drawing too much time.

    The next frame is expected to take as many bytes as the largest of the last ones.
    """

    def __init__(self) -> None:
        self._drawn: deque[Spent] = deque(maxlen=8)

    def add(self, spent: Spent) -> None:
        """Take note that a frame is drawn."""
        self._drawn.append(spent)

    def clear(self) -> None:
        """Let the next frame be drawn as soon as it comes."""
        self._drawn.clear()

    def pause(self, now: Spent, *, paced: bool) -> float:
        """Return the seconds to wait before a frame is drawn; 0 or less where it may be drawn at once.

        paced: whether the run waits by itself, and so loses nothing while a frame is drawn.
        """
        if not self._drawn:
            return 0.0
        last = self._drawn[-1]
        seconds = 0.0 if paced else min((now.work - last.work) / MAX_DRAW_SHARE, MAX_PAUSE)
        seconds += last.moment - now.moment
        sent = [*(each.sent for each in self._drawn), now.sent]
        expected = max(EXPECTED_BYTES, *(end - start for start, end in pairwise(sent)))
        if now.sent == last.sent:  # the last one is not on its way yet
            expected *= 2
        for each in self._drawn:
            rest = each.moment + MAX_PAUSE - now.moment
            if rest > 0 and now.sent - each.sent + expected > MAX_BYTES_PER_SECOND:
                seconds = max(seconds, rest)
        return seconds
