"""What goes between the screen and the trainer thread: requests in a queue, a status, updates."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Literal

from autograd_tui.core.command import Command, Commands
from autograd_tui.core.frame import Frame
from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.loss_surface import SurfaceChoice
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.tensor_stats import Inspection
from autograd_tui.core.trace import Trace
from autograd_tui.core.watchpoint import Watchpoint

MAX_REPEATS = 8  # that may wait of one key held down
MAX_WAITING = 1_000  # in all


@dataclass(frozen=True, slots=True)
class Open:
    """Another scenario."""

    scenario: str


Place = int | Literal["here", "newest", "looked at"]  # a frame: by its index, or as it is when its turn comes
Training = Command | Commands | Goal | Open | Literal["next", "iteration", "undo"]


@dataclass(slots=True, kw_only=True)
class Request:
    """What a key or words ask the trainer thread for, and once it is answered, what came of it.

    Two that wait are equal where they ask for the same, whatever was answered.
    """

    in_sight: bool = False  # whether a run was on the screen when it was asked for, so that it has its turn in the run

    @property
    def ends_run(self) -> bool:
        """Whether a run that goes on is over with it; looking and such leave it going on."""
        return False


@dataclass(slots=True)
class Train(Request):
    """Run something; more than one "iteration" is a run."""

    what: Training
    start: Place = "here"  # the frame to go back to first
    times: int = 1
    pauses: bool = False  # whether it only ends the run that goes on when its turn comes
    sentence: str | None = field(default=None, compare=False)  # what was left as a branch for it

    @property
    def ends_run(self) -> bool:
        """Whether more than a setting is asked for, which changes a run in the middle of it."""
        if isinstance(self.what, Commands):
            return len(self.what) > MAX_REPEATS or any(command.phase for command in self.what)
        return True


@dataclass(slots=True)
class Look(Request):
    """Show a frame, so many before another (`by` below 0) or after, or `alike`: of the same phase one iteration on."""

    start: Place  # "looked at" is what the look before this one in the queue is answered with
    by: int = 0
    alike: bool = False
    frame: Frame | None = field(default=None, compare=False)


@dataclass(slots=True)
class Inspect(Request):
    """Measure a parameter exactly, where training stands."""

    name: str
    inspection: Inspection | None = field(default=None, compare=False)


@dataclass(slots=True)
class Record(Request):
    """Trace a phase operation by operation: that of the frame `index`, that of `command`, or else the next one.

    In place of the next one it is that of the frame where training stands, if it raised or a watchpoint has fired there
    and that frame was not `traced` already.
    """

    index: Place | None = None
    command: Command | None = None
    traced: int | None = None
    start: Place = "here"  # the frame to run `command` from
    trace: Trace | None = field(default=None, compare=False)

    @property
    def ends_run(self) -> bool:
        """Whether a run is over with it: the phase has its turn in place of the next one."""
        return True


@dataclass(slots=True)
class CheckGradient(Request):
    """Compare the gradient at frame `index` of a parameter, or of an operation's output, with finite differences."""

    index: int
    target: str | int  # a parameter's name, or the number of an operation in the forward's trace
    gradcheck: GradCheck | None = field(default=None, compare=False)


@dataclass(slots=True)
class ChooseSurface(Request):
    """Choose the surface that is measured from now on, whenever nothing else waits."""

    choice: SurfaceChoice


@dataclass(slots=True)
class Arm(Request):
    """Arm a watchpoint; None disarms all."""

    watchpoint: Watchpoint | None
    sentence: str | None = field(default=None, compare=False)  # which are armed now


@dataclass(slots=True)
class Export(Request):
    """Write the run up to here into a file; `numbered` gives it a number where that name exists."""

    path: Path
    numbered: bool = False
    sentence: str | None = field(default=None, compare=False)  # what was written


@dataclass(slots=True)
class ScreenAction(Request):
    """A key that the screen answers by itself, once all that was asked for before it is shown."""

    act: Callable[[], object]


class RequestQueue:
    """Requests in the order in which they came; asked on any thread, answered on one."""

    def __init__(self) -> None:
        self._waiting: deque[Request] = deque()
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, request: Request) -> bool:
        """Put a request in line; False where too many wait, or of the same key already at its end."""
        with self._changed:
            alike = takewhile(lambda waiting: waiting == request, reversed(self._waiting))
            if len(self._waiting) >= MAX_WAITING or sum(1 for _ in alike) >= MAX_REPEATS:
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

    def forget_stop(self) -> None:
        """Take back a stop: what it was meant for has ended."""
        self._stop.clear()

    def interrupts(self, *, endless: bool) -> bool:
        """Return whether what waits first has its turn while a run goes on, which may be `endless`.

        What was typed before the run was seen waits for its end, if it has one.
        """
        if not self._waiting:
            return False
        with self._changed:
            return bool(self._waiting) and (endless or self._waiting[0].in_sight)

    @property
    def only_shows(self) -> bool:
        """Whether nothing that waits runs or writes anything: it is soon over, and need not be dropped."""
        with self._changed:
            return all(isinstance(each, (Look, Inspect, ScreenAction)) for each in self._waiting)

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

    def next(
        self, idle: Callable[[], None], busy: Callable[[], None], *, seconds: float | None = None
    ) -> Request | None:
        """Return the next request, waiting for it; None where none can follow, or none came within `seconds`.

        `idle` is called before a wait, `busy` while the request that will be returned is still counted in the queue.
        """
        with self._changed:
            while not self._waiting and not self._closed:
                idle()
                if not self._changed.wait(seconds):
                    break
            if self._closed or not self._waiting:
                return None
            busy()
            self._stop.clear()
            return self._waiting.popleft()

    @property
    def closed(self) -> bool:
        """Whether nothing can follow."""
        return self._closed

    def next_beside_a_run(self) -> Request | None:
        """Return what waits first, where a run can go on behind it; drop what only ends one."""
        with self._changed:
            if self._waiting and not self._waiting[0].ends_run:
                return self._waiting.popleft()
            if self._waiting and isinstance(first := self._waiting[0], Train) and first.pauses:
                self._waiting.popleft()
            return None
