"""What the screen and the trainer thread say to each other: requests in line, news back."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from time import monotonic
from typing import Literal

from autograd_tui.core.command import Command, Commands
from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.frame import Frame
from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.history import History
from autograd_tui.core.session_view import Goal, Problem, Progress
from autograd_tui.core.tensor_stats import Inspection
from autograd_tui.core.trace import Trace
from autograd_tui.core.watchpoint import Watchpoint

MOST_REPEATS = 8  # that may wait of one key held down
MOST_WAITING = 1_000  # in all


Place = int | Literal["here", "newest", "looked at"]  # a frame: by its index, or as it is when its turn comes


@dataclass(frozen=True, slots=True)
class Look:
    """At a frame, so many before it (`by` below 0) or after, or `alike`: at the same phase one iteration on."""

    start: Place  # of "looked at" the answer to the look before this one in line
    by: int = 0
    alike: bool = False


@dataclass(frozen=True, slots=True)
class Inspect:
    """A parameter, exactly, where training stands."""

    name: str


@dataclass(frozen=True, slots=True)
class Record:
    """A phase, operation by operation: that of the frame `index`, that of `command`, or else the next one.

    In place of the next one, that of the frame where training stands, if it raised or a watchpoint has fired there:
    but not if that frame was `seen` already.
    """

    index: Place | None = None
    command: Command | None = None
    seen: int | None = None


@dataclass(frozen=True, slots=True)
class Prove:
    """The gradient at frame `index` of a parameter, or of what came out of an operation of its forward."""

    index: int
    what: str | int


@dataclass(frozen=True, slots=True)
class Arm:
    """A watchpoint; None for none any more."""

    watchpoint: Watchpoint | None


@dataclass(frozen=True, slots=True)
class Open:
    """Another scenario."""

    scenario: str


@dataclass(frozen=True, slots=True)
class Export:
    """The run up to here, into a file; `numbered` where that name is taken."""

    path: Path
    numbered: bool = False


@dataclass(frozen=True, slots=True)
class ScreenKey:
    """A key that the screen answers by itself, once all that was asked for before it is shown."""

    act: Callable[[], None]


Training = Command | Commands | Goal | Open | Literal["next", "iteration", "undo"]
What = Training | Look | Inspect | Export | Record | Prove | Arm | ScreenKey


@dataclass(frozen=True, slots=True)
class Request:
    """What a key or words ask for; more than one "iteration" is a run."""

    what: What
    start: Place = "here"  # the frame to go back to first
    times: int = 1
    pauses: bool = False  # whether it only ends the run that goes on when its turn comes
    in_sight: bool = False  # whether it was asked for while a run was on the screen, and so has its turn in it

    @property
    def ends_a_run(self) -> bool:
        """Whether a run that goes on is over with it: a setting changes it, looking and such do not."""
        if isinstance(self.what, Commands):
            return len(self.what) > MOST_REPEATS or any(command.phase for command in self.what)
        return not isinstance(self.what, (Look, Inspect, Export, Prove, Arm, ScreenKey))


@dataclass(frozen=True, slots=True)
class Status:
    """What the trainer thread does now; another one takes its place, so that any thread may read it."""

    busy: str | None  # what runs; None while it waits to be asked for something
    since: float  # when that began
    run: str | None = None  # what a run goes on until, in words; None while there is none
    run_since: float = 0.0
    progress: Progress | None = None  # of going back
    told: float = 0.0  # when the screen got its latest news

    @property
    def silent(self) -> float:
        """For how many seconds what runs has had no news."""
        return 0.0 if self.busy is None else monotonic() - max(self.since, self.told)


@dataclass(frozen=True, slots=True)
class Update:
    """What the screen gets to know after each request, and now and then of a run."""

    frame: Frame
    history: History  # of the screen's own
    newest: int
    log: CommandLog  # the commands that led to the frame
    goes_on: bool = False  # whether there is more of a run to come
    refused: str | None = None
    said: str | None = None  # what has to be known all the same
    asked: What | None = None  # the request that was answered
    looked_at: Frame | None = None  # the answer, as all that follow
    inspection: Inspection | None = None
    written: str | None = None  # what an export has to say
    trace: Trace | None = None
    proof: GradCheck | None = None
    problem: Problem | None = None  # with keeping the run, as long as there is one


class RequestQueue:
    """Requests in the order in which they came; asked on any thread, answered on one."""

    def __init__(self) -> None:
        self._waiting: deque[Request] = deque()
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def ask(self, request: Request) -> bool:
        """Put a request in line; False where too many wait, or of the same key already at its end."""
        with self._changed:
            alike = takewhile(lambda waiting: waiting == request, reversed(self._waiting))
            if len(self._waiting) >= MOST_WAITING or sum(1 for _ in alike) >= MOST_REPEATS:
                return False
            self._waiting.append(request)
            self._changed.notify()
            return True

    def stop(self) -> bool:
        """Drop what waits, and stop what runs after its phase; tell whether anything waited."""
        with self._changed:
            anything = bool(self._waiting)
            self._waiting.clear()
            self._stop.set()
            self._changed.notify()
            return anything

    @property
    def stopped(self) -> bool:
        """Whether what runs is to stop."""
        return self._stop.is_set()

    def interrupts(self, *, endless: bool) -> bool:
        """Tell whether what waits first has its turn while a run goes on, which may be `endless`.

        What was typed before the run was seen waits for its end, if it has one.
        """
        if not self._waiting:
            return False
        with self._changed:
            return bool(self._waiting) and (endless or self._waiting[0].in_sight)

    def nudge(self) -> None:
        """Wake who sleeps: something else has changed."""
        with self._changed:
            self._changed.notify()

    def sleep(self, seconds: float, until: Callable[[], bool]) -> None:
        """Wait so long, or until something is true after it was asked for, stopped, or nudged."""
        with self._changed:
            self._changed.wait_for(until, seconds)

    def close(self) -> None:
        """Stop what runs, and let nothing follow."""
        self._closed = True
        self.stop()

    def next(self, idle: Callable[[], None], busy: Callable[[], None]) -> Request | None:
        """Give the next request, waiting for it, None where none can follow.

        `idle` is called before a wait, `busy` while the request that will be given is still counted in line.
        """
        with self._changed:
            while not self._waiting and not self._closed:
                idle()
                self._changed.wait()
            if self._closed:
                return None
            busy()
            self._stop.clear()
            return self._waiting.popleft()

    @property
    def closed(self) -> bool:
        """Whether nothing can follow."""
        return self._closed

    def next_within(self, seconds: float) -> Request | None:
        """Give the next request, waiting for it so long at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, seconds)
            self._stop.clear()
            return self._waiting.popleft() if self._waiting and not self._closed else None

    def next_beside_a_run(self) -> Request | None:
        """Give what waits first, where a run can go on behind it; drop what only ends one."""
        with self._changed:
            if self._waiting and not self._waiting[0].ends_a_run:
                return self._waiting.popleft()
            if self._waiting and self._waiting[0].pauses:
                self._waiting.popleft()
            return None
