"""What the trainer thread publishes for the screen: a status, and updates with what came of requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import monotonic

from autograd_tui.core.capabilities import LIVE, Capabilities
from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.frame import Frame
from autograd_tui.core.frame_store import Branch
from autograd_tui.core.history import History
from autograd_tui.core.run_observer import Problem, Progress
from autograd_tui.core.session_protocol import DeviceLoad, InteractiveSession
from autograd_tui.text.frame_summary import load_words
from autograd_tui.text.messages import divergence_line
from autograd_tui.tui.requests import Request

SCRIPT_RUNS = "the script runs"  # what is busy while a script goes on to its next stop


@dataclass(frozen=True, slots=True)
class Status:
    """What the trainer thread does at one moment; any thread may read it."""

    busy: str | None  # what runs, "" where nobody need know; None while it waits for a request
    since: float  # when that began, by `monotonic`
    run: str | None = None  # what a run goes on until, in words; None while there is none
    run_since: float = 0.0
    progress: Progress | None = None  # of going back, or of a gradient check
    updated: float = 0.0  # when the screen got its latest update
    waiting: int = 0  # requests in the queue
    stops: bool = False  # whether what runs is to stop behind its phase, or its iteration
    speed: float | None = None  # commands a second that a run does at most
    pace: float | None = None  # iterations a second that a run keeps to now, more and more; None at its speed
    watched: bool = False  # whether a watchpoint is armed
    fired: int | None = None  # the frame at which a watchpoint fired last
    can: Capabilities = LIVE  # what the session can do
    notice: str | None = None  # what this screen is for, where it does not train

    @property
    def silent(self) -> float:
        """The seconds since what runs has had an update."""
        return 0.0 if self.busy is None else monotonic() - max(self.since, self.updated)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.waiting and self.busy is None

    @property
    def can_be_stopped(self) -> bool:
        """Whether a run or going back can be ended, or requests be dropped."""
        return bool(self.waiting) or self.run is not None or self.progress is not None


@dataclass(frozen=True, slots=True)
class Update:
    """What the screen gets after each request, and now and then during a run."""

    frame: Frame  # where training stands
    history: History  # a copy of the screen's own
    newest: int  # the index of the branch's last frame
    log: CommandLog  # the commands that led to the frame
    goes_on: bool = False  # whether there is more of a run to come
    request: Request | None = None  # the one that was answered
    refused: str | None = None  # why it was not
    warning: str | None = None  # what the user has to know besides
    branches: tuple[Branch, ...] = ()  # the runs that were left
    problem: Problem | None = None  # with keeping the run on disk, as long as there is one

    @property
    def unkept(self) -> str:
        """A word for the status row while the run is not kept."""
        return self.problem.mark if self.problem else ""


class StatusPublisher:
    """Keeps the status, and makes updates; used on the trainer thread, but for `status` and `update`."""

    def __init__(
        self, busy: str, updated: Callable[[Update], None], loaded: Callable[[DeviceLoad | None], None]
    ) -> None:
        """`busy` is what runs at first; `updated` is called with each update, `loaded` where other words say a load."""
        self.status = Status(busy, monotonic())
        self.update: Update | None = None  # the latest
        self.warning: str | None = None  # for the next update
        self.fired: str | None = None  # for the next update: where a watchpoint has
        self._updated, self._loaded = updated, loaded
        self._load_words: list[str] = []  # as they were shown last

    def begin(self, busy: str) -> None:
        """Publish what runs from now on."""
        self.status = replace(self.status, busy=busy, since=monotonic(), progress=None)

    def show_progress(self, progress: Progress) -> None:
        """Publish how far going back, or a gradient check, has come."""
        self.status = replace(self.status, progress=progress)

    def rest(self) -> None:
        """Publish that nothing runs."""
        self.status = replace(self.status, busy=None, progress=None)

    @contextmanager
    def running(self, until: str | None) -> Iterator[None]:
        """Publish for so long that a run goes on; None for what is none, or a part of one."""
        before = self.status
        if until is not None:
            self.status = replace(before, run=until, run_since=monotonic())
        try:
            yield
        finally:
            # What ran has ended: the note must not take it for something that goes on.
            self.status = replace(self.status, since=monotonic(), run=before.run, run_since=before.run_since)

    def publish(
        self, session: InteractiveSession, request: Request | None = None, *, refused: str | None = None
    ) -> None:
        """Send an update: where training stands, and what came of a request."""
        if session.observer is not None:
            session.observer.on_shown(session.frame, session.newest, session.history)
            refused = session.observer.take_problem() or refused
        self.show_load(session)
        now = monotonic()
        self.status = replace(self.status, since=now, progress=None, updated=now)
        self.update = self.make_update(session, request, refused=refused, warning=self._take_warning(session))
        self._updated(self.update)

    def show_load(self, session: InteractiveSession) -> None:
        """Send what is in use of the device, where that is said in other words than before."""
        load = session.device_load
        words = load_words(load)
        if words != self._load_words:
            self._load_words = words
            self._loaded(load)

    def make_update(
        self,
        session: InteractiveSession,
        request: Request | None = None,
        *,
        refused: str | None = None,
        warning: str | None = None,
    ) -> Update:
        """Copy here, on the thread that changes it, what goes on changing."""
        return Update(
            session.frame,
            session.history.copy(),
            session.newest,
            session.log(),
            goes_on=self.status.run is not None,
            request=request,
            refused=refused,
            warning=warning,
            branches=session.branches,
            problem=problem_of(session),
        )

    def _take_warning(self, session: InteractiveSession) -> str | None:
        """Return, once, what the user has to know about watchpoints and going back."""
        warning, self.warning = self.warning, None
        fired, self.fired = self.fired, None
        difference = session.take_divergence()
        return fired or (divergence_line(difference) if difference else warning)


def problem_of(session: InteractiveSession | None) -> Problem | None:
    """Return what of a session's run is not kept on disk."""
    return session.observer.problem if session is not None and session.observer is not None else None
