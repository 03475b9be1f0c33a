"""A replay: it runs the commands of a journal at a speed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from time import monotonic

from autograd_tui.core.command import Commands, Phase
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.phase_order import Goal
from autograd_tui.tui.requests import Record, Train
from autograd_tui.tui.session_runner import SAMPLE_SECONDS, SessionRunner

JOURNAL_ALONE = "this is a replay: space runs the journal's next command, r goes on, arrows look; resume trains on."


class ReplayRunner(SessionRunner):
    """Runs the commands of a journal, and no others; they begin by themselves, and space pauses."""

    _journal = Commands()
    _count = 0  # of the commands that have run

    @property
    def notice(self) -> str | None:
        """What this screen is for, and how far the replay is."""
        total = len(self._journal)
        if self._count == total:
            return f"the end of the journal, {total:,} commands: arrows look back"
        return f"a replay, {self._count:,} of {total:,} commands: space runs the next one, r goes on"

    def run_first(self, commands: Commands) -> None:
        """Begin to run the journal's commands."""
        self._journal, self._commands = commands, iter(commands)
        self._publisher.publish(self._here)
        self._play()
        self._publisher.publish(self._here)

    def _train(self, request: Train) -> None:
        if self._index(request.start) != self._here.frame.index:
            raise Refused("a replay goes on from where it stands: escape returns there.")
        if isinstance(request.what, Goal):
            self._play()
        elif request.what == "next":
            self._follow(self._run_commands(request.times))
        elif request.what == "iteration":
            self._follow(self._run_iterations(request.times))
        else:
            raise Refused(JOURNAL_ALONE)

    def _record(self, request: Record) -> None:
        if request.index is None:
            raise Refused("this is a replay: i records the phase of a frame looked at.")
        super()._record(request)

    def _play(self) -> None:
        """Run on, at the speed that is set, until the end, a stop, or a request that ends the run."""
        with self._publisher.running("the journal ends"):
            while not self._play_at_speed():
                if self._stopped() or (len(self._requests) and not self._answer_beside()):
                    return

    def _play_at_speed(self) -> bool:
        """Run until something waits, stops the replay or changes the speed; return whether it came to its end."""
        speed, last_shown = self.speed, monotonic()

        def over() -> bool:
            return self._stopped() or bool(len(self._requests)) or self.speed != speed

        for _ in self._run_commands(len(self._journal)):
            if speed or monotonic() - last_shown > SAMPLE_SECONDS:
                self._publish_sample()
                last_shown = monotonic()
            if speed:
                self._requests.sleep(1 / speed, over)
            if over():
                return self._count == len(self._journal)
        return True

    def _run_commands(self, count: int) -> Iterator[Frame]:
        for command in islice(self._commands, count):
            frame = next(self._run_each([command]))
            self._count += 1
            yield frame

    def _run_iterations(self, count: int) -> Iterator[Frame]:
        """Run to the journal's next zero_grad, or its end."""
        for frame in self._run_commands(len(self._journal)):
            yield frame
            count -= frame.phase is Phase.ZERO_GRAD
            if not count:
                return
