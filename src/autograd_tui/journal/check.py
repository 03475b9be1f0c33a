"""Does a run that is done again have the same numbers, to the bit?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autograd_tui.engine.line.again import run_again
from autograd_tui.engine.session import Session
from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.opening import Opening
from autograd_tui.engine.values.recording import Recording
from autograd_tui.journal.digest import digest
from autograd_tui.journal.entry import Entry
from autograd_tui.journal.reading import Journal


@dataclass(frozen=True, slots=True)
class Checked:
    """One line of the journal, done again."""

    entry: Entry
    agrees: bool


def check(session: Session, journal: Journal) -> Iterator[Checked]:
    """Do again all that the journal tells, in its order, also branches that were left; the session is at frame 0."""
    for entry in journal.entries:
        start = journal.start(entry)
        try:
            if entry.command.startswith("branch="):
                session.rewind(0)  # its number is that of another session, where the run was resumed since
                again = journal.recording(entry)
            else:
                again = Recording(journal.opening, entry.stretches())
                if session.frame.index != start:
                    session.rewind(start)
            for _ in run_again(session, again):
                pass
        except Refused:
            yield Checked(entry, False)
            return
        yield Checked(entry, digest(session.frame) == entry.digest)


def machine(then: Opening, now: Opening) -> list[str]:
    """Say in what another machine differs from the one that the journal was written on: numbers may differ with it."""
    pairs = [("device", then.device, now.device), ("threads", then.threads, now.threads)]
    known = [name for name in ("torch", "autograd-tui") if name in then.versions]
    pairs += [(name, then.versions[name], now.versions.get(name)) for name in known]
    return [f"{name} {now_it_is} (was {was})" for name, was, now_it_is in pairs if was != now_it_is]
