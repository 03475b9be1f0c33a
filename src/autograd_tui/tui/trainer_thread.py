"""The one thread that trains: it answers requests in order, and tells the screen what came of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, repeat
from time import monotonic
from typing import Any

from autograd_tui.core.command import Command, Commands
from autograd_tui.core.command_log import ITERATION
from autograd_tui.core.errors import Refused
from autograd_tui.core.files import working_folder
from autograd_tui.core.frame import Frame
from autograd_tui.core.goal import Goal
from autograd_tui.core.run_observer import Problem, Progress
from autograd_tui.core.session_view import LIVE, Capabilities, InteractiveSession, OpenSession, SessionInfo
from autograd_tui.core.trace import Trace
from autograd_tui.text.messages import difference_line, left_branch_line, watch_line
from autograd_tui.tui.requests import (
    Arm,
    CheckGradient,
    Export,
    Inspect,
    Look,
    Open,
    Place,
    Record,
    Request,
    RequestQueue,
    ScreenAction,
    Status,
    Train,
    Update,
)

SAMPLE = 0.1  # seconds between the frames of a run that the screen gets to see
GRACE = 0.5  # seconds that a running phase has to end in when the program does
POLL = 0.05  # seconds between two looks at what another program has written of the run
MIN_FREE_ITERATIONS = 16  # in words, from which on they run without a frame a phase

NOTHING_LEARNS = "the run ends here: no parameter gets a gradient, so there is no further iteration."


def _no_exporter(*_: object, **__: object) -> str:
    raise Refused("nothing can be exported from here.")


class TrainerThread(threading.Thread):
    """Owns a session. A daemon: a phase that never ends must not keep the program from leaving.

    `open_session` takes a scenario's name, or None for the command line's. `opened`, `failed` and `updated` are called
    on this thread. `exporter` writes the run to a file as `export.live_export.export_live` does. `speed` is the most
    commands a second that a run does, None for as many as it can; any thread may set it with `set_speed`.
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
        can: Capabilities = LIVE,
        speed: float | None = None,
        exporter: Callable[..., str] | None = None,
    ) -> None:
        super().__init__(name="trainer", daemon=True)
        self._open_session, self._first = open_session, first
        self._opened, self._failed, self._updated = opened, failed, updated
        self._exporter = exporter or _no_exporter
        self._can = can  # as long as there is no session
        self.requests = RequestQueue()
        self.folder = working_folder()  # where the program was started: code of a scenario may go elsewhere
        self.speed = speed
        self.session: InteractiveSession | None = None
        self.update: Update | None = None  # the latest
        self.earlier_command_lines: list[str] = []  # of sessions that another one has replaced
        self._earlier_unkept: list[str] = []  # what of them is not kept on disk
        self._status = Status(f"loading PyTorch and {title}", monotonic())
        self._warning: str | None = None  # for the next update
        self._fired: str | None = None  # for the next update: where a watchpoint has
        self._looked_at = 0  # the frame that the last look was answered with
        self._answers: dict[type[Request], Callable[[Any], None]] = {
            Train: self._train,
            Look: self._look,
            Inspect: self._inspect,
            Record: self._record,
            CheckGradient: self._check_gradient,
            Export: self._export,
            Arm: self._arm,
            ScreenAction: lambda _: None,
        }

    # Called on any thread.

    @property
    def status(self) -> Status:
        """What happens now."""
        # What waits is counted first, and counted until it runs: a request is never seen in neither place.
        waiting, status, session = len(self.requests), self._status, self.session
        fired = session.fired if session else None
        return replace(
            status,
            waiting=waiting,
            speed=self.speed,
            watched=bool(session and session.watchpoints),
            fired=fired.index if fired else None,
            can=self.can,
            notice=self.notice,
        )

    @property
    def can(self) -> Capabilities:
        """What the session can do."""
        return self.session.can if self.session else self._can

    @property
    def notice(self) -> str | None:
        """What this screen is for, where it does not train."""
        return self.session.notice if self.session else None

    def set_speed(self, speed: float | None) -> None:
        """Change how many commands a second a run does, also while it goes on."""
        self.speed = speed
        self.requests.nudge()

    @property
    def unkept(self) -> list[str]:
        """Sentences that say what is not kept on disk, of this session and of those that it has replaced."""
        problem = _problem(self.session)
        return [*self._earlier_unkept, *([problem.sentence] if problem else [])]

    def stop(self) -> bool:
        """Drop what waits, and stop a run after its phase; return whether there was anything."""
        idle = self.status.idle
        self.requests.stop()
        return not idle

    def close(self) -> None:
        """End, after the phase that runs."""
        self.requests.close()

    def ended(self) -> bool:
        """Return, after `close`, whether no phase runs any more; one that does has a moment to end."""
        if self.ident is not None:
            self.join(GRACE)
        return not self.is_alive()

    def leave(self, *, in_order: bool) -> None:
        """Let the session write what it keeps, unless a phase still runs; called on another thread, after `close`."""
        if self.ended() and self.session is not None:
            self.session.close(in_order=in_order)

    # Called on this thread.

    def run(self) -> None:
        """Open the session, then answer requests until the end."""
        try:
            self._open(None)
        except BaseException as error:
            self._failed(error)
            return
        try:
            self._run_first()
            while (request := self._next()) is not None:
                with self._telling(request):
                    self._answers[type(request)](request)
        except BaseException as error:  # a bug of ours: the screen closes and shows it
            self._failed(error)

    def _open(self, scenario: str | None) -> None:
        session = self._open_session(scenario)
        if self.session is not None:
            self.earlier_command_lines.append(self.session.command_line())
            self.session.close(in_order=True)
            self._earlier_unkept = self.unkept
        self.session = session
        self._warning = session.warning
        session.watch(self._take_progress)
        self._opened(session.about, self._make_update())

    @property
    def _here(self) -> InteractiveSession:
        assert self.session is not None
        return self.session

    def _run_first(self) -> None:
        """Run the command line's commands before any key; a warning of the session is shown behind them."""
        refused, warning, self._warning = None, self._warning, None
        try:
            self._run_words(self._first)
        except Refused as error:
            refused = str(error)
        self._warning = warning or self._warning
        self._tell(refused=refused)

    def _next(self) -> Request | None:
        """Return the next request, waiting for it; None at the end. A session that only shows a run is read on."""
        while not self.requests.closed:
            if self._here.refresh():
                self._tell()
            request = self.requests.next(self._rest, self._begin, seconds=None if self.can.advance else POLL)
            if request is not None:
                return request
        return None

    def _rest(self) -> None:
        self._status = replace(self._status, busy=None, progress=None)
        if self._here.observer is not None:
            self._here.observer.on_idle()
            if self.update is not None and self.update.problem != _problem(self._here):
                self._tell()

    def _begin(self) -> None:
        self._say_busy("what was asked for runs")

    @contextmanager
    def _telling(self, request: Request) -> Iterator[None]:
        """Tell the screen what came of a request once it is answered, or why it was refused."""
        refused = None
        try:
            yield
        except Refused as error:
            refused = str(error)
        self._tell(request, refused=refused)

    def _check_can(self, can: bool, /) -> None:
        if not can:
            raise Refused(self.can.refusal)

    # What is asked for, one method each; the answer goes into the request.

    def _train(self, request: Train) -> None:
        """Go back to where the request starts from, and run; say what was left as a branch for it."""
        self._check_can(self.can.advance)
        session, branches, what, times = self._here, self._here.branches[-1:], request.what, request.times
        start = self._index(request.start)
        if what == "undo":
            if not start:
                raise Refused("there is nothing to undo: this is frame 0.")
            what, times = Command("@", max(start - times, 0)), 1
        else:
            self._go_back(start)
        match what:
            case Command() if times == 1:
                self._say_busy(f"{what.phase.value if what.phase else what} runs")
                self._goes_on_behind(session.run(what))
            case Command():
                self._run_words(Commands([((what,), times)]))
            case Commands():
                self._run_words(what * times)
            case Goal():
                self._run_to(what)
            case Open():
                self._say_busy(f"opening {what.scenario}")
                self._open(what.scenario)
            case "next":
                self._follow(self._run_each(session.next_command() for _ in range(times)))
            case _ if times == 1:
                self._follow(self._run_each(self._rest_of_iteration()))
            case _:
                self._run_to(session.end_of(times))
        newest = self._here.branches[-1:]
        if newest and newest != branches and self._here is session:
            request.sentence = left_branch_line(newest[0])

    def _index(self, place: Place) -> int:
        """Return which frame is meant, now that the turn of a request has come."""
        if isinstance(place, int):
            return place
        return {"here": self._here.frame.index, "newest": self._here.newest, "looked at": self._looked_at}[place]

    def _go_back(self, start: int) -> None:
        if start != self._here.frame.index:
            self._say_busy("going back")
            self._here.rewind(start)

    def _look(self, request: Look) -> None:
        self._say_busy("looking back")
        self._looked_at = start = self._index(request.start)
        if request.alike:
            frame = self._here.look_alike(start, request.by)
        else:
            frame = self._here.look(self._neighbour(start, request.by))
        if frame is None:
            raise Refused(f"there is no such frame {'before' if request.by < 0 else 'after'} this one to look at.")
        self._looked_at = frame.index
        request.frame = frame

    def _neighbour(self, index: int, by: int) -> int:
        """Return a frame before or after another; of a run the nearest stored one: others would hold it up."""
        wanted = min(max(index + by, 0), self._here.newest)
        stored = by and (not self.can.recompute or self._status.run is not None)
        return self._here.nearest(wanted, by) if stored else wanted

    def _inspect(self, request: Inspect) -> None:
        self._say_busy("the exact measurement runs")
        request.inspection = self._here.inspect(request.name)

    def _record(self, request: Record) -> None:
        """Run a phase recorded, or one that has been run again."""
        self._check_can(self.can.trace or self.can.recompute)
        looked_at = None if request.index is None else self._index(request.index)
        here = looked_at is None or looked_at == self._here.frame.index
        index = self._fault(request.traced) if request.command is None and here else looked_at
        if index is not None:
            self._say_busy("the recording runs")
            request.trace = _walkable(self._here.trace(index))
            return
        self._go_back(self._index(request.start))
        command = replace(request.command or self._here.next_command(), recorded=True)
        self._say_busy(f"{command.name}, recorded, runs")
        request.trace = _walkable(self._here.run(command).trace)

    def _fault(self, traced: int | None) -> int | None:
        """Return the frame where training stands if its phase raised or a watchpoint fired, unless it was `traced`."""
        frame, fired = self._here.frame, self._here.fired
        wrong = (frame.error and frame.phase) or (fired is not None and fired.index == frame.index)
        return frame.index if wrong and frame.index != traced else None

    def _check_gradient(self, request: CheckGradient) -> None:
        self._check_can(self.can.check_gradients)
        self._say_busy("the proof runs")
        stopped = lambda: self.requests.stopped  # noqa: E731
        request.gradcheck = self._here.check_gradient(request.index, request.target, stopped=stopped)

    def _export(self, request: Export) -> None:
        self._check_can(self.can.export)
        self._say_busy(f"the export to {request.path.name} runs")
        stopped = lambda: self.requests.stopped  # noqa: E731
        request.sentence = self._exporter(
            request.path, self._here, stopped, folder=self.folder, numbered=request.numbered
        )

    def _arm(self, request: Arm) -> None:
        """Arm a watchpoint, or disarm all, and say what is armed now."""
        self._check_can(self.can.advance)
        if request.watchpoint is None:
            self._here.disarm()
        else:
            self._here.arm(request.watchpoint)
        request.sentence = watch_line(self._here.watchpoints)

    # Runs. While one goes on, the space key means a pause, and not one phase more.

    def _run_to(self, goal: Goal) -> None:
        """Run until the goal, a stop, an error, or a request that ends the run; others are answered beside it."""
        with self._running(str(goal)):
            while self._run_at_speed(goal):
                if self.requests.interrupts(endless=goal == Goal()) and not self._answer_beside():
                    return

    def _run_at_speed(self, goal: Goal) -> bool:
        """Run until something waits, stops the run or changes the speed; return whether there is more to run."""
        speed = self.speed

        def over() -> bool:
            return self.requests.stopped or self.requests.interrupts(endless=goal == Goal()) or self.speed != speed

        self._say_busy("the run goes on")
        for frame in self._here.run_until(goal) if speed else self._here.run_free(goal, over, every=SAMPLE):
            self._tell()
            if goal.is_out_of_reach(frame):
                self._warning = NOTHING_LEARNS
            if frame.error or goal.reached_by(frame) or self._fires():
                return False
            if speed:
                self.requests.sleep(1 / speed, over)
            if over():
                break
        return over() and not self.requests.stopped

    def _answer_beside(self) -> bool:
        """Answer what waits where a run can go on behind it; return whether it can."""
        request = self.requests.next_beside_a_run()
        if request is not None:
            with self._telling(request):
                self._answers[type(request)](request)
        return request is not None

    def _run_words(self, commands: Commands) -> None:
        """Run commands in order until one raises; many iterations among them run freely."""
        with self._running(f"{len(commands):,} commands are done" if len(commands) > 1 else None):
            for pattern, times in commands.blocks():
                if not self._run_block(pattern, times):
                    return

    def _run_block(self, pattern: Sequence[Command], times: int) -> bool:
        session = self._here
        if pattern == ITERATION and times >= MIN_FREE_ITERATIONS and session.next_command() == ITERATION[0]:
            return self._follow(session.run_free(session.end_of(times), lambda: self.requests.stopped, every=SAMPLE))
        return self._follow(self._run_each(chain.from_iterable(repeat(pattern, times))))

    def _rest_of_iteration(self) -> Iterator[Command]:
        end = self._here.end_of(1)
        yield self._here.next_command()
        while not end.reached_by(self._here.frame):
            yield self._here.next_command()

    def _run_each(self, commands: Iterable[Command]) -> Iterator[Frame]:
        for command in commands:
            self._say_busy(f"{command.phase.value if command.phase else command} runs")
            yield self._here.run(command)

    def _follow(self, frames: Iterable[Frame]) -> bool:
        """Show a sample of the frames as they come; return whether to go on behind them."""
        last_shown = monotonic()
        for frame in frames:
            if not self._goes_on_behind(frame):
                return False
            if monotonic() - last_shown > SAMPLE:
                self._tell()
                last_shown = monotonic()
        return True

    def _goes_on_behind(self, frame: Frame) -> bool:
        """Return whether nothing ends the commands at a frame: an error that was not forced, a stop, a watchpoint."""
        raised = frame.error and not (frame.command and frame.command.forced)
        return not (raised or self.requests.stopped or self._fires())

    def _fires(self) -> bool:
        """Take note of a watchpoint that has fired; return whether one has."""
        fired = self._here.take_fired()
        if fired is not None:
            self._fired = f"{'paused at ' * (self._status.run is not None)}{fired}; i looks inside, e writes a case"
        return fired is not None

    # What the screen is told.

    def _say_busy(self, what: str) -> None:
        """Publish what runs from now on."""
        self._status = replace(self._status, busy=what, since=monotonic(), progress=None)

    def _take_progress(self, progress: Progress) -> bool:
        """Publish how far going back has come; return whether it is still wanted."""
        self._status = replace(self._status, progress=progress)
        return not self.requests.stopped

    @contextmanager
    def _running(self, until: str | None) -> Iterator[None]:
        """Publish for so long that a run goes on; None for what is none, or a part of one."""
        before = self._status
        if until is not None:
            self._status = replace(before, run=until, run_since=monotonic())
        try:
            yield
        finally:
            # What ran has ended: the note must not take it for something that goes on.
            self._status = replace(self._status, since=monotonic(), run=before.run, run_since=before.run_since)

    def _tell(self, request: Request | None = None, *, refused: str | None = None) -> None:
        """Tell the screen where training stands, and what came of a request."""
        here = self._here
        if here.observer is not None:
            here.observer.on_shown(here.frame, here.newest, here.history)
            refused = here.observer.take_problem() or refused
        now = monotonic()
        self._status = replace(self._status, since=now, progress=None, updated=now)
        self.update = self._make_update(request, refused=refused, warning=self._take_warning())
        self._updated(self.update)

    def _make_update(
        self, request: Request | None = None, *, refused: str | None = None, warning: str | None = None
    ) -> Update:
        """Copy here, on the thread that changes it, what goes on changing."""
        here = self._here
        return Update(
            here.frame,
            here.history.copy(),
            here.newest,
            here.log(),
            goes_on=self._status.run is not None,
            request=request,
            refused=refused,
            warning=warning,
            problem=_problem(here),
        )

    def _take_warning(self) -> str | None:
        """Return, once, what the user has to know about watchpoints and going back."""
        warning, self._warning = self._warning, None
        fired, self._fired = self._fired, None
        difference = self._here.take_difference()
        return fired or (difference_line(difference) if difference else warning)


def _problem(session: InteractiveSession | None) -> Problem | None:
    return session.observer.problem if session is not None and session.observer is not None else None


def _walkable(trace: Trace | None) -> Trace:
    """Build a trace's operations here, so that the screen need not wait; raises Refused where there are none."""
    if trace is None:
        raise Refused("there is nothing inside it to walk.")
    if not trace.ops:
        why = "raised before its first operation" if trace.error else "had no operation"
        raise Refused(f"{trace.phase.value} {why}: there is nothing inside it to walk.")
    return trace.made()
