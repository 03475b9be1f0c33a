"""Go on with a run that stopped: all of it stands again as it did."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from autograd_tui.engine.line.again import run_again
from autograd_tui.engine.session import Session
from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.frame import Frame, plain_number
from autograd_tui.engine.values.recording import Recording
from autograd_tui.journal.branches import told_branches
from autograd_tui.journal.check import machine
from autograd_tui.journal.digest import digest
from autograd_tui.journal.entry import Entry
from autograd_tui.journal.reading import Journal
from autograd_tui.journal.tensors import load
from autograd_tui.journal.writing import JournalWriter


def resume(session: Session, journal: Journal, *, changed: bool = False) -> None:
    """Bring a session that has just been opened to where a journal's run stood; it goes on with the journal.

    What leads there runs again, from a checkpoint beside the journal where there is one, and its frames are compared
    with the journal's digests; branches do not run until one of them is taken. Raises Refused where another run
    writes the journal, and where a frame is another one, unless `changed`: then the session's warning says so. Of a
    branch that is taken later, and ends otherwise, the session tells the difference.
    """
    told, retold = told_branches(journal), _Retold(session, journal, changed=changed)
    if found := load(journal, session.checkpoint()):
        track = told.present.copy()
        track.forget_after(found.checkpoint.frame.index)
        session.take_up(found.checkpoint, track, found.history)
    for entry, end in journal.path_to(journal.present):
        retold.run(entry, end)
    told.branches.kept = tuple(
        replace(each, ends_as=partial(retold.agrees, journal.entries[told.ends[each.number] - 1]))
        for each in told.branches.kept
    )
    session.take_up_branches(told.branches)
    session.rewind(journal.frame)
    retold.compare(journal.tip)
    session.recorder = JournalWriter.go_on(journal, session.about, left=told.ends)


class _Retold:
    """Runs a journal's lines again, and compares the frame at the end of each with what was there."""

    def __init__(self, session: Session, journal: Journal, *, changed: bool) -> None:
        self._session, self._journal, self._changed = session, journal, changed
        self._openings = journal.opening, session.about.opening

    def run(self, entry: Entry, end: int) -> None:
        """Run a line up to a frame, from where the session stands; raises Refused where that does not lead there."""
        journal, session = self._journal, self._session
        start, here = journal.start(entry), session.frame.index
        if end <= here:
            return
        commands, _ = Recording(journal.opening, entry.stretches()).split(end - start)
        try:
            for _ in run_again(session, commands.split(here - start)[1]):
                pass
        except Refused as error:
            raise Refused(f"{self._other(entry)}: {error}") from error
        if session.frame.index != end:  # an error has ended a free run
            raise Refused(f"{self._other(entry)}: {session.frame.error} was raised, and had not been.")
        if end == journal.frames[entry.id - 1]:
            self.compare(entry)

    def compare(self, entry: Entry) -> None:
        """Compare the frame where the session stands with the one that a line led to; raises Refused."""
        if not entry.id or self._session.departure or self.agrees(entry, self._session.frame):
            return
        then, now = self._openings
        found = [*(f"{each} is not as it was" for each in then.changed(now)), *machine(then, now)]
        why = ", ".join(found) or "its model does not repeat, or the journal is not as it was written"
        if not self._changed:
            raise Refused(f"{self._other(entry)}: {why}; --changed goes on all the same.")
        self._session.departure = f"{self._other(entry)}: {why}; it goes on as it is now."

    def agrees(self, entry: Entry, frame: Frame) -> bool:
        """Tell whether a frame is a line's; of another version, which measures other numbers, the loss decides."""
        versions = [each.versions.get("autograd-tui") for each in self._openings]
        if digest(frame) == entry.digest:
            return True
        older = self._journal.opening.hashes is None or versions[0] != versions[1]
        return older and entry.loss in (None, plain_number(frame.loss))

    def _other(self, entry: Entry) -> str:
        frame = self._session.frame.index
        return f"from line {entry.id + 1} of its journal on, frame {frame:,}, this is another run"
