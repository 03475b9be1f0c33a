"""The one thread that trains: requests in, in order; news out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat, takewhile
from time import monotonic
from typing import TYPE_CHECKING, Literal

from autograd_tui.engine.command import Command, Commands
from autograd_tui.engine.errors import Refused
from autograd_tui.engine.frame import Frame
from autograd_tui.engine.history import History

if TYPE_CHECKING:
    from autograd_tui.engine.session import Session

MOST_REPEATS = 8  # that may wait of one key held down
SAMPLE_SECONDS = 0.1  # between the frames of a run that the screen gets to see


@dataclass(frozen=True, slots=True)
class Request:
    """What a key asks for; `start` is the frame to go back to first, where one is being looked at."""

    what: Command | Commands | Literal["next", "iteration", "run", "look"]
    start: int | None = None
    times: int = 1


@dataclass(frozen=True, slots=True)
class News:
    """What the screen gets to know after each request."""

    frame: Frame
    history: History
    newest: int
    refused: str | None = None
    looked_at: Frame | None = None  # the answer to a request to look


class TrainerThread(threading.Thread):
    """Runs a session. A daemon: a phase that never ends must not keep the program from leaving.

    `opened`, `failed` and `news` are called on this thread.
    """

    def __init__(
        self,
        open_session: Callable[[], Session],
        first: Sequence[Command],
        *,
        opened: Callable[[Session], None],
        failed: Callable[[BaseException], None],
        news: Callable[[News], None],
    ) -> None:
        super().__init__(name="trainer", daemon=True)
        self._open_session, self._first = open_session, first
        self._opened, self._failed, self._news = opened, failed, news
        self._waiting: deque[Request] = deque()
        self._wake = threading.Condition()
        self._stop = threading.Event()
        self.session: Session | None = None
        self.busy: tuple[str, float] | None = ("loading PyTorch", monotonic())
        self.running = False

    def ask(self, request: Request) -> bool:
        """Put a request in line; False where too many of the same key wait already at its end."""
        with self._wake:
            alike = takewhile(lambda waiting: waiting == request, reversed(self._waiting))
            if sum(1 for _ in alike) >= MOST_REPEATS:
                return False
            self._waiting.append(request)
            self._wake.notify()
            return True

    @property
    def waiting(self) -> int:
        """How many requests are in line behind the one that runs."""
        return len(self._waiting)

    def stop(self) -> bool:
        """Drop what waits, and stop a run after its phase; tell whether there was anything."""
        with self._wake:
            anything = bool(self._waiting or self.busy)
            self._waiting.clear()
            self._stop.set()
            return anything

    def run(self) -> None:
        """Open the session, then answer requests for ever."""
        try:
            session = self._open_session()
        except BaseException as error:
            self._failed(error)
            return
        self.session = session
        self._opened(session)
        try:
            self._run_first(session)
            while True:
                self._answer(session, self._next_request())
        except BaseException as error:  # a bug of ours: the screen closes and shows it
            self._failed(error)

    def _next_request(self) -> Request:
        with self._wake:
            while not self._waiting:
                self.busy = None
                self._wake.wait()
            self._stop.clear()
            return self._waiting.popleft()

    def _run_first(self, session: Session) -> None:
        """Run what the command line asked for, before any key."""
        refused = None
        try:
            self._run_all(session, self._first, pausable=True)
        except Refused as error:
            refused = str(error)
        self._tell(session, refused=refused)

    def _run_all(self, session: Session, commands: Iterable[Command], *, pausable: bool) -> None:
        """Run commands until one raises unforced, or they are stopped; the screen sees a sample of the frames.

        While what is pausable runs, the space key means a pause, and not one phase more.
        """
        last_shown = monotonic()
        self.running = pausable
        try:
            for command in commands:
                frame = self._timed(session, command)
                if (frame.error and not command.forced) or self._stop.is_set():
                    return
                if monotonic() - last_shown > SAMPLE_SECONDS:
                    self._tell(session)
                    last_shown = monotonic()
        finally:
            self.running = False

    def _answer(self, session: Session, request: Request) -> None:
        refused = None
        try:
            if request.what == "look":
                self.busy = ("looking back", monotonic())
                looked_at = session.look(request.start or 0)
                self._news(News(session.frame, session.history.copy(), session.newest, looked_at=looked_at))
                return
            if request.start is not None and request.start != session.frame.index:
                self.busy = ("going back", monotonic())
                session.rewind(request.start)
            if isinstance(request.what, Commands):
                self._run_all(session, request.what * request.times, pausable=True)
            elif isinstance(request.what, Command):
                self._run_all(session, repeat(request.what, request.times), pausable=request.times > 1)
            elif request.what == "next":
                self._run_all(session, self._next_ones(session, request.times), pausable=request.times > 1)
            elif request.what == "iteration":
                self._run_iterations(session, request.times)
            else:
                self._run_free(session)
        except Refused as error:
            refused = str(error)
        self._tell(session, refused=refused)

    def _run_iterations(self, session: Session, times: int) -> None:
        """Run to the end of this iteration, and of `times - 1` more."""
        self._run_all(session, self._to_zero_grad(session, times), pausable=times > 1)

    def _to_zero_grad(self, session: Session, times: int) -> Iterator[Command]:
        while times:
            yield session.next_command()
            times -= session.frame.phase == "zero_grad" and session.frame.error is None

    def _run_free(self, session: Session) -> None:
        """Run until something waits, stops it or raises."""
        commands = iter(lambda: None if self._waiting else session.next_command(), None)
        self._run_all(session, commands, pausable=True)

    def _next_ones(self, session: Session, times: int) -> Iterator[Command]:
        return (session.next_command() for _ in range(times))

    def _timed(self, session: Session, command: Command) -> Frame:
        self.busy = (command.phase.value if command.phase else str(command), monotonic())
        return session.run(command)

    def _tell(self, session: Session, *, refused: str | None = None) -> None:
        self._news(News(session.frame, session.history.copy(), session.newest, refused=refused))
