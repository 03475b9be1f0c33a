"""The one thread that trains: requests in, in order; news out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
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
from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.session_view import Goal, InteractiveSession, OpenSession, Problem, Progress, SessionInfo
from autograd_tui.core.trace import Trace
from autograd_tui.text.messages import difference_line, left_branch_line, watch_line
from autograd_tui.tui.requests import (
    Arm,
    Export,
    Inspect,
    Look,
    Open,
    Place,
    Prove,
    Record,
    Request,
    RequestQueue,
    ScreenKey,
    Status,
    Training,
    Update,
)

SAMPLE = 0.1  # seconds between the frames of a run that the screen gets to see
GRACE = 0.5  # seconds that what runs has to end in, when the program does
MANY = 16  # iterations in words from which on they run freely

NOTHING_LEARNS = "the run ends here: no parameter gets a gradient, so there is no further iteration."


def _no_exporter(*_: object, **__: object) -> str:
    raise Refused("nothing can be exported from here.")


class TrainerThread(threading.Thread):
    """Runs a session. A daemon: a phase that never ends must not keep the program from leaving.

    `open_session` takes a scenario's name, or None for the one that the command line names. `opened`, `failed` and
    `heard` are called on this thread.
    """

    trains = True  # what keys and words ask for; not where it shows what was or is trained elsewhere
    unused_keys: tuple[str, ...] = ()
    sparse = False  # whether its session has some frames alone, and cannot make the others

    def __init__(
        self,
        open_session: OpenSession,
        first: Commands,
        *,
        title: str,
        opened: Callable[[SessionInfo, Update], None],
        failed: Callable[[BaseException], None],
        heard: Callable[[Update], None],
    ) -> None:
        super().__init__(name="trainer", daemon=True)
        self._open_session, self._first = open_session, first
        self._opened, self._failed, self._heard = opened, failed, heard
        self._line = RequestQueue()
        self.folder = working_folder()  # where the program was started: code of a scenario may go elsewhere
        self._pace: float | None = None
        self.session: InteractiveSession | None = None
        self.left: list[str] = []  # the command lines of sessions that another one has replaced
        self._left_unkept: list[str] = []  # what of them has not been kept
        self.status = Status(f"loading PyTorch and {title}", monotonic())  # this thread alone puts another in its place
        self._warning: str | None = None  # of the session just opened
        self._fired: str | None = None  # where a watchpoint has
        self._looked_at = 0  # the frame that was looked at last, of those asked for in line
        self.news: Update | None = None  # the latest
        self.exporter: Callable[..., str] = _no_exporter  # as `export.live_export` has it

    @property
    def pace(self) -> float | None:
        """How many commands a second a run does; None: as many as it can."""
        return self._pace

    @pace.setter
    def pace(self, pace: float | None) -> None:
        self._pace = pace
        self._line.nudge()

    def ask(self, request: Request) -> bool:
        """Put a request in line; False where too many of the same key wait already at its end."""
        return self._line.ask(request)

    @property
    def unkept(self) -> list[str]:
        """Say what has not been kept, of this session and of those that it has replaced."""
        problem = _problem(self.session)
        return [*self._left_unkept, *([problem.sentence] if problem else [])]

    @property
    def waiting(self) -> int:
        """How many requests are in line behind the one that runs."""
        return len(self._line)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.waiting and self.status.busy is None  # in this order: what waits is counted until it runs

    @property
    def can_be_stopped(self) -> bool:
        """Whether a run or going back can be ended, or requests be dropped."""
        waiting, status = self.waiting, self.status
        return bool(waiting) or status.run is not None or status.progress is not None

    def stop(self) -> bool:
        """Drop what waits, and stop a run after its phase; tell whether there was anything."""
        idle = self.idle
        self._line.stop()
        return not idle

    def close(self) -> None:
        """End, after the phase that runs."""
        self._line.close()

    def ended(self) -> bool:
        """Tell, after `close`, whether no phase runs any more; one that does has a moment to end."""
        if self.ident is not None:
            self.join(GRACE)
        return not self.is_alive()

    def leave(self, *, in_order: bool) -> None:
        """Let the session write what it keeps, unless a phase still runs; called on another thread, after `close`."""
        if self.ended() and self.session is not None:
            self.session.close(in_order=in_order)

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
                self._answer(request)
        except BaseException as error:  # a bug of ours: the screen closes and shows it
            self._failed(error)

    @property
    def sign(self) -> str | None:
        """Say what this terminal is for, where that is not training."""
        return None

    def _next(self) -> Request | None:
        """Wait for what is asked for next; None at the end."""
        return self._line.next(self._rest, self._begin)

    def _open(self, scenario: str | None) -> None:
        session = self._open_session(scenario)
        if self.session is not None:
            self.left.append(self.session.command_line())
            self.session.close(in_order=True)
            self._left_unkept = self.unkept
        self.session = session
        self._warning = session.warning
        session.watch(self._on_the_way)
        self._opened(session.about, self._as_it_stands())

    def _on_the_way(self, progress: Progress) -> bool:
        """Take note of how far going back has come; tell whether it is still wanted."""
        self.status = replace(self.status, progress=progress)
        return not self._line.stopped

    def _runs(self, what: str) -> None:
        """Say what runs from now on."""
        self.status = replace(self.status, busy=what, since=monotonic(), progress=None)

    @contextmanager
    def _running(self, until: str | None) -> Iterator[None]:
        """Say for so long that a run goes on; None for what is none, or a part of one."""
        before = self.status
        if until is not None:
            self.status = replace(before, run=until, run_since=monotonic())
        try:
            yield
        finally:
            # What ran has ended: the note must not take it for something that goes on.
            self.status = replace(self.status, since=monotonic(), run=before.run, run_since=before.run_since)

    def _begin(self) -> None:
        self._runs("what was asked for runs")

    def _rest(self) -> None:
        self.status = replace(self.status, busy=None, progress=None)
        if self._here.recorder is not None:
            self._here.recorder.rest()
            if self.news is not None and self.news.problem != _problem(self._here):
                self._tell()

    def _run_first(self) -> None:
        """Run what the command line asked for, before any key; what is to be said of the session stays behind it."""
        refused, warning, self._warning = None, self._warning, None
        try:
            self._run_words(self._first)
        except Refused as error:
            refused = str(error)
        self._warning = warning or self._warning
        self._tell(refused=refused)

    def _answer(self, request: Request) -> None:
        """Do what is asked for, and tell what came of it."""
        answer: dict[str, Any] = {}
        try:
            match request.what:
                case Look() as what:
                    answer["looked_at"] = self._look(what)
                case Inspect(name):
                    self._runs("the exact measurement runs")
                    answer["inspection"] = self._here.inspect(name)
                case Export() as what:
                    answer["written"] = self._export(what)
                case Record():
                    answer["trace"] = self._record(request)
                case Prove() as what:
                    answer["proof"] = self._prove(what)
                case Arm() as what:
                    answer["written"] = self._arm(what)
                case ScreenKey():
                    pass
                case _:
                    answer["written"] = self._left_by(request)
        except Refused as error:
            answer["refused"] = str(error)
        self._tell(asked=request.what, **answer)

    def _left_by(self, request: Request) -> str | None:
        """Train as asked for; say what was left for it, where anything was."""
        before, session = self._here.branches[-1:], self._here
        self._train(request)
        newest = self._here.branches[-1:]
        return left_branch_line(newest[0]) if newest and newest != before and self._here is session else None

    def _train(self, request: Request) -> None:
        assert not isinstance(request.what, (Look, Inspect, Export, Record, Prove, Arm, ScreenKey))
        if request.what == "undo":
            self._undo(self._index(request.start), request.times)
        else:
            self._go_back(self._index(request.start))
            self._do(request.what, request.times)

    def _index(self, place: Place) -> int:
        """Say which frame is meant, now that the turn of a request has come."""
        if isinstance(place, int):
            return place
        return {"here": self._here.frame.index, "newest": self._here.newest, "looked at": self._looked_at}[place]

    def _look(self, what: Look) -> Frame:
        self._runs("looking back")
        self._looked_at = start = self._index(what.start)
        found = self._here.look_alike(start, what.by) if what.alike else self._here.look(self._beside(start, what.by))
        if found is None:
            raise Refused(f"there is no such frame {'before' if what.by < 0 else 'after'} this one to look at.")
        self._looked_at = found.index
        return found

    def _beside(self, index: int, by: int) -> int:
        """Give a frame before or after another; of a run the nearest one that there is: others would hold it up."""
        wanted = min(max(index + by, 0), self._here.newest)
        nearest = by and (self.sparse or self.status.run is not None)
        return self._here.nearest(wanted, by) if nearest else wanted

    def _record(self, request: Request) -> Trace | None:
        """Run a phase recorded, or one that has been run again."""
        what = request.what
        assert isinstance(what, Record)
        looked_at = None if what.index is None else self._index(what.index)
        index = self._fault(what.seen) if what.command is None and self._is_here(looked_at) else looked_at
        if index is not None:
            self._runs("the recording runs")
            return _walkable(self._here.trace(index))
        self._go_back(self._index(request.start))
        command = replace(what.command or self._here.next_command(), recorded=True)
        self._runs(f"{command.name}, recorded, runs")
        return _walkable(self._here.run(command).trace)

    def _is_here(self, looked_at: int | None) -> bool:
        """Tell whether nothing but the frame where training stands is looked at."""
        return looked_at is None or looked_at == self._here.frame.index

    def _fault(self, seen: int | None) -> int | None:
        """Give the frame where training stands, if its phase raised or a watchpoint fired, but not the one `seen`."""
        frame, fired = self._here.frame, self._here.fired
        wrong = (frame.error and frame.phase) or (fired is not None and fired.index == frame.index)
        return frame.index if wrong and frame.index != seen else None

    def _prove(self, what: Prove) -> GradCheck:
        """Compare a gradient with finite differences."""
        self._runs("the proof runs")
        return self._here.check_gradient(what.index, what.what, stopped=lambda: self._line.stopped)

    def _arm(self, what: Arm) -> str:
        """Arm a watchpoint, or disarm all; say what is armed now."""
        if what.watchpoint is None:
            self._here.disarm()
        else:
            self._here.arm(what.watchpoint)
        return watch_line(self._here.watchpoints)

    def _export(self, what: Export) -> str:
        self._runs(f"the export to {what.path.name} runs")
        return self.exporter(
            what.path, self._here, lambda: self._line.stopped, folder=self.folder, numbered=what.numbered
        )

    def _go_back(self, start: int) -> None:
        if start != self._here.frame.index:
            self._runs("going back")
            self._here.rewind(start)

    def _undo(self, index: int, times: int) -> None:
        """Go back by so many commands from a frame."""
        if not index:
            raise Refused("there is nothing to undo: this is frame 0.")
        self._do(Command("@", max(index - times, 0)), 1)

    def _do(self, what: Training, times: int) -> None:
        if isinstance(what, Open):
            self._runs(f"opening {what.scenario}")
            self._open(what.scenario)
        elif isinstance(what, Goal):
            self._run_to(what)
        elif isinstance(what, Command):
            self._run_words(Commands([((what,), times)]))
        elif isinstance(what, Commands):
            self._run_words(what * times)
        elif what == "next":
            self._follow(self._run_each(self._here.next_command() for _ in range(times)))
        elif times == 1:
            self._follow(self._run_each(self._rest_of_the_iteration()))
        else:
            self._run_to(self._here.end_of(times))

    @property
    def _here(self) -> InteractiveSession:
        assert self.session is not None
        return self.session

    # Runs. While one goes on, the space key means a pause, and not one phase more.

    def _run_to(self, goal: Goal) -> None:
        """Run until the goal, a stop, an error, or a request that ends the run; others are answered beside it."""
        with self._running(str(goal)):
            while self._run_at_a_pace(goal):
                if self._line.interrupts(endless=goal == Goal()) and not self._answer_beside():
                    return

    def _run_at_a_pace(self, goal: Goal) -> bool:
        """Run until something waits, stops the run or changes the pace; tell whether there is anything left to run."""
        pace = self._pace

        def over() -> bool:
            return self._line.stopped or self._line.interrupts(endless=goal == Goal()) or self._pace != pace

        self._runs("the run goes on")
        for frame in self._here.run_until(goal) if pace else self._here.run_free(goal, over, every=SAMPLE):
            self._tell()
            if goal.is_out_of_reach(frame):
                self._warning = NOTHING_LEARNS
            if frame.error or goal.reached_by(frame) or self._fires():
                return False
            if pace:
                self._line.sleep(1 / pace, over)
            if over():
                break
        return over() and not self._line.stopped

    def _answer_beside(self) -> bool:
        """Answer what waits where a run can go on behind it; tell whether it can."""
        request = self._line.next_beside_a_run()
        if request is not None:
            self._answer(request)
        return request is not None

    def _run_words(self, commands: Commands) -> None:
        """Run commands in order until one raises; many iterations among them run freely."""
        with self._running(f"{len(commands):,} commands are done" if len(commands) > 1 else None):
            for pattern, times in commands.blocks():
                if pattern == ITERATION and times >= MANY and self._here.next_command() == ITERATION[0]:
                    phases = self._here.run_free(self._here.end_of(times), lambda: self._line.stopped, every=SAMPLE)
                    went_on = self._follow(phases)
                else:
                    went_on = self._follow(self._run_each(chain.from_iterable(repeat(pattern, times))))
                if not went_on:
                    return

    def _rest_of_the_iteration(self) -> Iterator[Command]:
        end = self._here.end_of(1)
        yield self._here.next_command()
        while not end.reached_by(self._here.frame):
            yield self._here.next_command()

    def _run_each(self, commands: Iterable[Command]) -> Iterator[Frame]:
        for command in commands:
            self._runs(f"{command.phase.value if command.phase else command} runs")
            yield self._here.run(command)

    def _fires(self) -> bool:
        """Take note of a watchpoint that has fired; tell whether one has."""
        fired = self._here.take_fired()
        if fired is not None:
            self._fired = f"{'paused at ' * (self.status.run is not None)}{fired}; i looks inside, e writes a case"
        return fired is not None

    def _follow(self, frames: Iterable[Frame]) -> bool:
        """Show a sample of the frames as they come; tell whether to go on behind them."""
        last_shown = monotonic()
        for frame in frames:
            raised = frame.error and not (frame.command and frame.command.forced)
            if raised or self._line.stopped or self._fires():
                return False
            if monotonic() - last_shown > SAMPLE:
                self._tell()
                last_shown = monotonic()
        return True

    def _tell(self, *, refused: str | None = None, **answers: Any) -> None:
        """Let the screen know where training stands, and what came of a request."""
        here = self._here
        if here.recorder is not None:
            here.recorder.drew(here.frame, here.newest, here.history)
            refused = here.recorder.take_problem() or refused
        self.status = replace(self.status, progress=None, told=monotonic())
        self.news = self._as_it_stands(refused=refused, said=self._to_be_said(), **answers)
        self._heard(self.news)

    def _as_it_stands(self, **answers: Any) -> Update:
        """Give news of where training stands; what goes on changing is copied here, on the thread that changes it."""
        here, goes_on = self._here, self.status.run is not None
        return Update(
            here.frame, here.history.copy(), here.newest, here.log(), goes_on=goes_on, problem=_problem(here), **answers
        )

    def _to_be_said(self) -> str | None:
        """Give, once, what the screen has to say about watchpoints and going back."""
        warning, self._warning = self._warning, None
        fired, self._fired = self._fired, None
        difference = self._here.take_difference()
        return fired or (difference_line(difference) if difference else warning)


def _problem(session: InteractiveSession | None) -> Problem | None:
    return session.recorder.problem if session is not None and session.recorder is not None else None


def _walkable(trace: Trace | None) -> Trace:
    """Have a trace made here, so that the screen need not wait for it; raises Refused where it has no operation."""
    if trace is None:
        raise Refused("there is nothing inside it to walk.")
    if not trace.ops:
        why = "raised before its first operation" if trace.error else "had no operation"
        raise Refused(f"{trace.phase.value} {why}: there is nothing inside it to walk.")
    return trace.made()
