"""What a journal tells of the branches of its run, the present one among them: nothing is run for them."""

from __future__ import annotations

from dataclasses import dataclass, field

from autograd_tui.engine.values.branches import Branches
from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.track import Track
from autograd_tui.journal.entry import Entry
from autograd_tui.journal.reading import Journal


@dataclass(slots=True)
class ToldBranches:
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


def told_branches(journal: Journal) -> ToldBranches:
    """Give the branches as they were when the run stopped; raises Refused where a line makes no sense."""
    told = ToldBranches()
    for entry in journal.entries:
        told.take(entry, journal.start(entry))
    return told
