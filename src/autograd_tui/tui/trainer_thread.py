"""The one thread that trains: it answers requests in order."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from dataclasses import replace

from autograd_tui.core.capabilities import LIVE, Capabilities
from autograd_tui.core.command import Commands
from autograd_tui.core.loss_surface import LossSurface
from autograd_tui.core.picture import Picture
from autograd_tui.core.run_observer import Progress
from autograd_tui.core.session_protocol import DeviceLoad, InteractiveSession, Interruption, OpenSession, SessionInfo
from autograd_tui.tui.replay_runner import ReplayRunner
from autograd_tui.tui.requests import Request, RequestQueue
from autograd_tui.tui.session_runner import SessionRunner
from autograd_tui.tui.trainer_status import Status, StatusPublisher, Update, problem_of

DRAWN_SECONDS = 0.5  # for which what nobody has asked for waits at most, until the session is on the screen
GRACE_SECONDS = 0.5  # that a running phase has to end in when the program does
IMPORT_SECONDS = 5.0  # the same of an import, which does end
LOAD_SECONDS = 1.0  # between two looks at how much is in use of the device
POLL_SECONDS = 0.05  # between two looks at what another program has written of the run, or says of a script


class TrainerThread(threading.Thread):
    """Answers the requests of a queue, one after the other, by a runner that owns the session.

    A daemon: a phase that never ends must not keep the program from leaving. `opened`, `failed`, `updated`, `measured`
    with the loss around where training stands, and `pictured` with pictures of what the model has learned, are called
    on this thread, and so is `loaded` with what is in use of the device, where that has changed. `speed` is the most
    commands a second that a run does, None for as many as it can; with `begins_slowly` a run without an end comes to
    full speed little by little.
    """

    def __init__(
        self,
        open_session: OpenSession,
        first: Commands,
        *,
        title: str,
        opened: Callable[[SessionInfo, Update], None],
        failed: Callable[[BaseException], None],
        updated: Callable[[Update], None],
        loaded: Callable[[DeviceLoad | None], None],
        measured: Callable[[LossSurface | None], None],
        pictured: Callable[[tuple[Picture, ...]], None],
        can: Capabilities = LIVE,
        speed: float | None = None,
        begins_slowly: bool = False,
        exporter: Callable[..., str] | None = None,
    ) -> None:
        super().__init__(name="trainer", daemon=True)
        self._first, self._failed = first, failed
        self._surface: LossSurface | None = None  # measured last
        self._measured = measured
        self._imports = False  # now
        self._all_imported = False
        self.drawn = threading.Event()  # the session, once, on the screen
        self._modules = 0  # that were there when the session was opened
        self._can = can  # as long as there is no session
        self.requests = RequestQueue()
        busy = f"{title} runs, and has not trained yet" if can.script else f"loading PyTorch and {title}"
        self.publisher = StatusPublisher(busy, updated, loaded)
        self.runner = (ReplayRunner if can.replays else SessionRunner)(
            open_session,
            self.requests,
            self.publisher,
            opened=opened,
            pictured=pictured,
            speed=speed,
            begins_slowly=begins_slowly,
            exporter=exporter,
        )

    # Called on any thread.

    @property
    def session(self) -> InteractiveSession | None:
        """The session, once it is open."""
        return self.runner.session

    @property
    def status(self) -> Status:
        """What happens now."""
        # What waits is counted first, and counted until it runs: a request is never seen in neither place.
        waiting, status, session = len(self.requests), self.publisher.status, self.session
        fired = session.fired if session else None
        return replace(
            status,
            waiting=waiting,
            stops=self.requests.stopped,
            speed=self.speed,
            pace=self.runner.pace,
            watched=bool(session and session.watchpoints),
            fired=fired.index if fired else None,
            can=self.can,
            notice=self.runner.notice,
        )

    @property
    def can(self) -> Capabilities:
        """What the session can do."""
        return self.session.can if self.session else self._can

    @property
    def speed(self) -> float | None:
        """The most commands a second that a run does; None for as many as it can."""
        return self.runner.speed

    def set_speed(self, speed: float | None) -> None:
        """Change how many commands a second a run does, from its first one on, also while it goes on."""
        self.runner.speed, self.runner.begins_slowly = speed, False
        self.requests.nudge()

    def stop(self) -> bool:
        """Drop what waits, and stop a run after its phase; return whether there was anything."""
        idle = self.status.idle
        self.requests.stop()
        return not idle

    def interrupt(self, *, begin: bool) -> Interruption:
        """Have KeyboardInterrupt raised in the user's code that runs, and return how far that has come.

        Not `begin`: only where it was to be raised already.
        """
        if self.session is None or self.ident is None:
            return "none"
        return self.session.interrupt(self.ident, begin=begin)

    def close(self) -> None:
        """End, after the phase that runs."""
        self.requests.close()
        self.drawn.set()

    def ended(self) -> bool:
        """Return, after `close`, whether no phase runs any more; one that does has a moment to end."""
        if self.ident is not None:
            self.join(IMPORT_SECONDS if self._imports else GRACE_SECONDS)
        return not self.is_alive()

    def leave(self, *, in_order: bool) -> None:
        """Let the session write what it keeps, unless a phase still runs; called on another thread, after `close`."""
        if self.ended() and self.session is not None:
            self.session.close(in_order=in_order)

    # Called on this thread.

    def run(self) -> None:
        """Open the session, then answer requests until the end."""
        try:
            self.runner.open(None)
        except BaseException as error:
            self._failed(error)
            return
        self._modules = len(sys.modules)
        try:
            self.runner.run_first(self._first)
            while (request := self._next()) is not None:
                with self.runner.answering(request):
                    self.runner.answers[type(request)](request)
        except BaseException as error:  # a bug of ours: the screen closes and shows it
            self._failed(error)

    def _next(self) -> Request | None:
        """Return the next request, waiting for it; None at the end. A session that only shows a run is read on."""
        assert self.session is not None
        while not self.requests.closed:
            if self.session.refresh():
                self.publisher.publish(self.session)
            self._measure_surface(self.session)
            self._take_picture(self.session)
            self._import_parts(self.session)
            if (request := self._next_or_news(self.session)) is not None:
                return request
        return None

    def _next_or_news(self, session: InteractiveSession) -> Request | None:
        """Return the next request, waiting for it; None at the end, and where the session may show something new."""
        polls = not self.can.advance or self.can.script
        seconds: float | None = POLL_SECONDS if polls else LOAD_SECONDS  # once at least: the first reading may be begun
        while True:
            self.publisher.show_load(session)
            request = self.requests.next(self._rest, self._begin, seconds=seconds)
            if request is not None or polls or self.requests.closed:
                return request
            seconds = None if session.device_load is None else LOAD_SECONDS

    def _measure_surface(self, session: InteractiveSession) -> None:
        """Measure the loss around where training stands, as long as nothing waits, and tell the screen."""
        if len(self.requests):
            return
        self.drawn.wait(DRAWN_SECONDS)  # which needs the interpreter's lock as well
        if len(self.requests):
            return
        self.requests.forget_stop()
        self.publisher.begin("")  # the note of what ran before stays

        def stopped() -> bool:
            return bool(len(self.requests)) or self.requests.stopped or self.requests.closed

        def watch(progress: Progress) -> None:
            if self.publisher.status.progress is None:
                self.publisher.begin("the loss is measured")
            self.publisher.show_progress(progress)
            self._show_surface(session.surface_so_far)

        self._show_surface(session.surface(stopped=stopped, watch=watch))
        given_up = session.give_up_surface() if self.requests.stopped and not self.requests.closed else None
        if given_up:
            self.publisher.warning = given_up
            self.publisher.publish(session)
            self._show_surface(session.surface_so_far)

    def _show_surface(self, surface: LossSurface | None) -> None:
        if surface is not self._surface:
            self._surface = surface
            self._measured(surface)

    def _take_picture(self, session: InteractiveSession) -> None:
        """Have the scenario's picture taken, if nothing waits, and tell the screen; ctrl+c ends a long one."""
        if len(self.requests) or not session.about.picture:
            return
        before = self.requests.stopped  # what ran before has been, not this

        def stopped() -> bool:
            return bool(len(self.requests)) or self.requests.closed or (self.requests.stopped and not before)

        self.publisher.begin("the picture is drawn")
        self.runner.show_pictures(stopped)

    def _import_parts(self, session: InteractiveSession) -> None:
        """Import what later commands need, part by part, as long as nothing waits.

        On this thread, between commands, since imports of two threads may meet half done modules of each other's.
        """
        if self._all_imported or len(self.requests):
            return
        self._rest()
        was_enabled, self._imports = gc.isenabled(), True
        gc.disable()  # as while a session opens
        try:
            while not (len(self.requests) or self.requests.closed or self._all_imported):
                self._all_imported = not session.import_part()
            if self._all_imported and len(sys.modules) > self._modules and gc.get_freeze_count():
                gc.freeze()  # what has been imported stays, and need not be looked through
        finally:
            self._imports = False
            if was_enabled:
                gc.enable()

    def _begin(self) -> None:
        self.publisher.begin("what was asked for runs")

    def _rest(self) -> None:
        self.publisher.rest()
        session, update = self.session, self.publisher.update
        if session is not None and session.observer is not None:
            session.observer.on_idle()
            if update is not None and update.problem != problem_of(session):
                self.publisher.publish(session)
