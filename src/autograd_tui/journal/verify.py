"""Runs a recording again, and verifies that all numbers are the same, to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from autograd_tui.core.command_log import ITERATION, Recording, Step, Stretch
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.run_config import RunConfig
from autograd_tui.engine.session import Session
from autograd_tui.journal.entry import Entry, frame_digest
from autograd_tui.journal.reader import Journal

MIN_FREE_ITERATIONS = 16  # iterations from which on they run freely
_ITERATION = tuple(map(Step, ITERATION))


def replay_recording(
    session: Session, recording: Recording, *, stopped: Callable[[], bool] = lambda: False
) -> Iterator[Frame]:
    """Run a recording's commands from where the session stands; yield frames as they come, not all of long stretches.

    Raises Refused where a command is out of turn that was not when it was recorded.
    """
    for stretch in recording.stretches:
        for frame in _run_stretch(session, stretch, stopped):
            yield frame
            if stopped():
                return


def _run_stretch(session: Session, stretch: Stretch, stopped: Callable[[], bool]) -> Iterator[Frame]:
    if stretch.steps == _ITERATION and stretch.times >= MIN_FREE_ITERATIONS and session.next_command() == ITERATION[0]:
        yield from session.run_free(session.end_of(stretch.times), stopped)
        return
    for _ in range(stretch.times):
        for step in stretch.steps:
            yield session.run(step.command)


@dataclass(frozen=True, slots=True)
class EntryCheck:
    """One line of the journal, run again."""

    entry: Entry
    matches: bool


def verify_journal(session: Session, journal: Journal) -> Iterator[EntryCheck]:
    """Run the whole journal again in its order, also branches that were left; the session is at frame 0."""
    for entry in journal.entries:
        start = journal.start(entry)
        try:
            if entry.command.startswith("branch="):
                session.rewind(0)  # its number is that of another session, where the run was resumed since
                recording = journal.recording(entry)
            else:
                recording = Recording(journal.opening, entry.stretches())
                if session.frame.index != start:
                    session.rewind(start)
            for _ in replay_recording(session, recording):
                pass
        except Refused:
            yield EntryCheck(entry, False)
            return
        yield EntryCheck(entry, frame_digest(session.frame) == entry.digest)


def machine_differences(then: RunConfig, now: RunConfig) -> list[str]:
    """Return in what this machine differs from the one that wrote the journal: numbers may differ with it."""
    pairs = [("device", then.device, now.device), ("threads", then.threads, now.threads)]
    packages = [name for name in ("torch", "autograd-tui") if name in then.versions]
    pairs += [(name, then.versions[name], now.versions.get(name)) for name in packages]
    return [f"{name} {after} (was {before})" for name, before, after in pairs if before != after]
