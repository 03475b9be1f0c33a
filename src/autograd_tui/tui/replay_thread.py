"""The thread of a replay: it runs what a journal tells, at a pace."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from time import monotonic

from autograd_tui.core.command import Command, Phase
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.session_view import Goal
from autograd_tui.core.trace import Trace
from autograd_tui.tui.requests import Record, Request
from autograd_tui.tui.trainer_thread import SAMPLE, TrainerThread

JOURNAL_ALONE = "this is a replay: space runs the journal's next command, r goes on, arrows look; resume trains on."


class ReplayThread(TrainerThread):
    """Runs the commands of a journal, and no others; they begin by themselves, and space pauses."""

    trains = False
    unused_keys = ("f b s z", "i", "v", ":")
    _done = 0  # commands

    @property
    def sign(self) -> str | None:
        """Say what this terminal is for, and how far it is."""
        done, all_of_them = self._done, len(self._first)
        if done == all_of_them:
            return f"the end of the journal, {all_of_them:,} commands: arrows look back"
        return f"a replay, {done:,} of {all_of_them:,} commands: space runs the next one, r goes on"

    def _run_first(self) -> None:
        self._rest_of_it: Iterator[Command] = iter(self._first)
        self._tell()
        self._play()
        self._tell()

    def _train(self, request: Request) -> None:
        if self._index(request.start) != self._here.frame.index:
            raise Refused("a replay goes on from where it stands: escape returns there.")
        if isinstance(request.what, Goal):
            self._play()
        elif request.what == "next":
            self._follow(self._commands(request.times))
        elif request.what == "iteration":
            self._follow(self._iterations(request.times))
        else:
            raise Refused(JOURNAL_ALONE)

    def _record(self, request: Request) -> Trace | None:
        if isinstance(request.what, Record) and request.what.index is None:
            raise Refused("this is a replay: i records the phase of a frame looked at.")
        return super()._record(request)

    def _play(self) -> None:
        """Run on, at the pace that is set, until the end, a stop, or a request that ends the run."""
        with self._running("the journal ends"):
            while not self._played_at_a_pace():
                if self._line.stopped or (len(self._line) and not self._answer_beside()):
                    return

    def _played_at_a_pace(self) -> bool:
        """Run until something waits, stops the replay or changes the pace; tell whether it came to its end."""
        pace, shown = self.pace, monotonic()

        def over() -> bool:
            return self._line.stopped or bool(len(self._line)) or self.pace != pace

        for _ in self._commands(len(self._first)):
            if pace or monotonic() - shown > SAMPLE:
                self._tell()
                shown = monotonic()
            if pace:
                self._line.sleep(1 / pace, over)
            if over():
                return self._done == len(self._first)
        return True

    def _commands(self, count: int) -> Iterator[Frame]:
        for command in islice(self._rest_of_it, count):
            frame = next(self._run_each([command]))
            self._done += 1
            yield frame

    def _iterations(self, count: int) -> Iterator[Frame]:
        """Run to the journal's next zero_grad, or its end."""
        for frame in self._commands(len(self._first)):
            yield frame
            count -= frame.phase is Phase.ZERO_GRAD
            if not count:
                return
