"""Run again what a recording tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from autograd_tui.engine.session import Session
from autograd_tui.engine.values.command_log import ITERATION
from autograd_tui.engine.values.frame import Frame
from autograd_tui.engine.values.recording import Recording, Step, Stretch

MANY = 16  # iterations from which on they run freely
_ITERATION = tuple(map(Step, ITERATION))


def run_again(
    session: Session, recording: Recording, *, stopped: Callable[[], bool] = lambda: False
) -> Iterator[Frame]:
    """Run a recording's commands from where the session stands; give frames as they come, not all of long stretches.

    Raises Refused where a command is out of turn that was not when it was recorded.
    """
    for stretch in recording.stretches:
        for frame in _run_stretch(session, stretch, stopped):
            yield frame
            if stopped():
                return


def _run_stretch(session: Session, stretch: Stretch, stopped: Callable[[], bool]) -> Iterator[Frame]:
    if stretch.steps == _ITERATION and stretch.times >= MANY and session.next_command() == ITERATION[0]:
        yield from session.run_free(session.end_of(stretch.times), stopped)
        return
    for _ in range(stretch.times):
        for step in stretch.steps:
            yield session.run(step.command)
