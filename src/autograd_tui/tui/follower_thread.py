"""The thread of a terminal that only follows: it reads what another one draws."""

from __future__ import annotations

from autograd_tui.core.errors import Refused
from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.trace import Trace
from autograd_tui.tui.requests import Export, Prove, Request
from autograd_tui.tui.trainer_thread import TrainerThread

POLL = 0.05  # seconds between two looks at what has been drawn
ELSEWHERE = "this terminal follows: training goes on in the one that leads; arrows look here, escape returns."


class FollowerThread(TrainerThread):
    """Shows a run that it cannot change; its session is one that is followed."""

    trains = False
    unused_keys = ("space", "f b s z", "n", "i", "r", "v", ":")
    sparse = True

    def leave(self, *, in_order: bool) -> None:
        """Leave nothing: the other terminal keeps the run."""

    @property
    def sign(self) -> str | None:
        """What this terminal is for, and whether the other one is still there."""
        return None if self.session is None else self.session.notice

    def _run_first(self) -> None:
        self._tell()

    def _next(self) -> Request | None:
        """Give what is asked for here; read on until then."""
        self._rest()
        while not self._line.closed:
            if self._here.refresh():
                self._tell()
            request = self._line.next_within(POLL)
            if request is not None:
                return request
        return None

    def _export(self, what: Export) -> str:
        raise Refused(ELSEWHERE)

    def _record(self, request: Request) -> Trace | None:
        raise Refused(ELSEWHERE)

    def _prove(self, what: Prove) -> GradCheck:
        raise Refused(ELSEWHERE)

    def _train(self, request: Request) -> None:
        raise Refused(ELSEWHERE)
