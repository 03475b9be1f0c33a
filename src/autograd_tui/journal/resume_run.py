"""Goes on with a run that stopped: all of it, branches too, stands again as it did."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

from autograd_tui.core.command_log import Recording, Track
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame, plain_number
from autograd_tui.core.frame_store import Branches
from autograd_tui.engine.session import Session
from autograd_tui.journal.checkpoint_file import load
from autograd_tui.journal.digest import digest
from autograd_tui.journal.entry import Entry
from autograd_tui.journal.reader import Journal
from autograd_tui.journal.verify import machine, run_again
from autograd_tui.journal.writer import JournalWriter


@dataclass(slots=True)
class JournalBranches:
    """Goes through the entries as the session went that wrote them."""

    present: Track = field(default_factory=Track)
    branches: Branches = field(default_factory=Branches)
    ends: dict[int, int] = field(default_factory=dict)  # by the number of a branch, its last entry
    _end: int = 0  # of the present one

    def take(self, entry: Entry, start: int) -> None:
        """Go on by one entry, which goes on from frame `start`."""
        if entry.command.startswith("branch="):
            self._take_branch(entry)
        elif not entry.goes_back:
            self._run(entry, start)

    def _run(self, entry: Entry, start: int) -> None:
        if start < len(self.present):
            self._leave(self.present.copy(), entry, fork=start)
            self.present.forget_after(start)
        for pattern, times in entry.commands().blocks():
            self.present.commands.append_all(pattern, times)
        if (error := entry.error) is not None:
            self.present.errors[len(self.present)] = error
        self._end = entry.id

    def _take_branch(self, entry: Entry) -> None:
        taken = next((each for each in self.branches.kept if self.ends[each.number] == entry.parent), None)
        if taken is None:
            raise Refused(f"the journal's line {entry.id + 1} returns to a branch that no line before it has left.")
        left, self.present = self.present, taken.track
        self.branches.remove(taken)
        self._leave(left, entry, fork=left.commands.shared_with(taken.track.commands))
        self._end = self.ends.pop(taken.number)

    def _leave(self, track: Track, entry: Entry, *, fork: int) -> None:
        told = None if entry.left is None else float(entry.left)
        if (left := self.branches.leave(track, None, fork=fork, told=told)) is not None:
            self.ends[left.number] = self._end


def told_branches(journal: Journal) -> JournalBranches:
    """Give the branches as they were when the run stopped; raises Refused where a line makes no sense."""
    told = JournalBranches()
    for entry in journal.entries:
        told.take(entry, journal.start(entry))
    return told


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
