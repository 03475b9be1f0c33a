"""Runs a journal again: to compare what it says, or to resume with frames and branches as they were."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, repeat

from autograd_tui.core.command import COMMAND_BY_LETTER
from autograd_tui.core.command_log import ITERATION, MIN_FREE_ITERATIONS, CommandLog
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame, plain_number
from autograd_tui.core.frame_store import Branches
from autograd_tui.core.run_config import RunConfig
from autograd_tui.engine.session import Session
from autograd_tui.journal.checkpoint_file import load_checkpoint
from autograd_tui.journal.entry import Entry, frame_digest
from autograd_tui.journal.reader import Journal
from autograd_tui.journal.writer import JournalWriter

PLAIN_OR_NOT = re.compile(rb"[fbsz]+|-")  # in the letters of a journal's entries
ITERATIONS_OR_PHASE = re.compile(rb"(?:fbsz)+(?=f)|[fbsz]")  # the last iteration of all is still going on
DEVICE_VERSIONS = ("card", "cuda", "cudnn", "algorithms", "cudnn benchmark")
NOT_DETERMINISTIC = " It ran without --deterministic, and so its numbers on {} may differ from run to run."


@dataclass(slots=True)
class BranchRebuilder:
    """Follows the entries of a journal in order, and keeps the branches as the session that wrote them kept them."""

    log: CommandLog = field(default_factory=CommandLog)
    branches: Branches = field(default_factory=Branches)
    ends: dict[int, int] = field(default_factory=dict)  # by the number of a branch, its last entry
    _end: int = 0  # of the present one

    def run(self, entry: Entry, start: int) -> None:
        """Add what an entry ran from frame `start` on."""
        if start < len(self.log):
            self._leave(self.log.copy(), entry, fork=start)
            self.log.truncate_after(start)
        entry.append_to(self.log)
        self._end = entry.id

    def run_phases(self, letters: bytes, last: int) -> None:
        """Add phases that went on from the end, up to entry `last`."""
        for found in ITERATIONS_OR_PHASE.finditer(letters):
            iterations, rest = divmod(len(found[0]), len(ITERATION))
            if rest:
                self.log.append(COMMAND_BY_LETTER[found[0].decode()])
            else:
                self.log.append_block(ITERATION, iterations)
        self._end = last

    def take_branch(self, entry: Entry) -> None:
        """Return to the branch that an entry names; raises Refused where there is none."""
        taken = next((each for each in self.branches.newest if self.ends[each.number] == entry.parent), None)
        if taken is None:
            raise Refused(f"the journal's line {entry.id + 1} returns to a branch that no line before it has left.")
        left, self.log = self.log, taken.log
        self.branches.remove(taken)
        self._leave(left, entry, fork=left.shared_with(taken.log))
        self._end = self.ends.pop(taken.number)

    def _leave(self, log: CommandLog, entry: Entry, *, fork: int) -> None:
        loss = None if entry.left is None else float(entry.left)
        if (left := self.branches.leave(log, None, fork=fork, loss=loss)) is not None:
            self.ends[left.number] = self._end


def rebuild_branches(journal: Journal) -> BranchRebuilder:
    """Return the branches as they were when the run stopped; raises Refused where a line makes no sense."""
    rebuilt = BranchRebuilder()
    for found in PLAIN_OR_NOT.finditer(journal.entries.letters):
        if found[0] != b"-":
            rebuilt.run_phases(found[0], found.end())
            continue
        entry = journal.entries[found.start()]
        start = journal.start(entry)
        if start < journal.end_frames[found.start()]:
            rebuilt.run(entry, start)
        elif entry.takes_branch:
            rebuilt.take_branch(entry)
    return rebuilt


def resume_run(session: Session, journal: Journal, *, changed: bool = False) -> None:
    """Bring a session that has just been opened to where a journal's run stood; it goes on with the journal.

    What leads there runs again, from a checkpoint beside the journal where there is one, and its frames are compared
    with the journal's digests; branches do not run until one of them is taken. Raises Refused where another run
    writes the journal, and where a frame is another one, unless `changed`: then the session's warning says so. Where
    a branch that is taken later ends otherwise, the session says what differs.
    """
    rebuilt, replayer = rebuild_branches(journal), _EntryReplayer(session, journal, changed=changed)
    if saved := load_checkpoint(journal, session.checkpoint()):
        session.resume(saved.checkpoint, rebuilt.log.up_to(saved.checkpoint.frame.index), saved.history)
    for entry, end in journal.path_to(journal.branch_tip, after=session.frame.index):
        replayer.run(entry, end)
    rebuilt.branches.newest = tuple(
        replace(each, ends_as=partial(replayer.matches, journal.entries[rebuilt.ends[each.number] - 1]))
        for each in rebuilt.branches.newest
    )
    session.resume_branches(rebuilt.branches)
    session.rewind(journal.frame)
    replayer.check(journal.tip)
    session.observer = JournalWriter.resume(journal, session.about, left=rebuilt.ends)


class _EntryReplayer:
    """Runs a journal's entries again, and compares the frame at the end of each with the journal's digest."""

    def __init__(self, session: Session, journal: Journal, *, changed: bool) -> None:
        self._session, self._journal, self._changed = session, journal, changed
        self._configs = journal.config, session.about.config

    def run(self, entry: Entry, end: int) -> None:
        """Run a line up to a frame, from where the session stands; raises Refused where that does not lead there."""
        journal, session = self._journal, self._session
        start, here = journal.start(entry), session.frame.index
        log = CommandLog()
        entry.append_to(log)
        try:
            replay_log(session, log, here - start, end - start)
        except Refused as error:
            raise Refused(f"{self._mismatch(entry)}: {error}") from error
        if session.frame.index != end:  # an error has ended a free run
            raise Refused(f"{self._mismatch(entry)}: {session.frame.error} was raised, and had not been.")
        if end == journal.end_frames[entry.id - 1]:
            self.check(entry)

    def check(self, entry: Entry) -> None:
        """Compare the frame where the session stands with the one that a line led to; raises Refused."""
        if not entry.id or self._session.departure or self.matches(entry, self._session.frame):
            return
        then, now = self._configs
        differences = [*(f"{each} is not as it was" for each in then.changed(now)), *machine_differences(then, now)]
        why = ", ".join(differences) or "its model does not repeat, or the journal is not as it was written"
        if not self._changed:
            raise Refused(f"{self._mismatch(entry)}: {why}; --changed goes on all the same.")
        self._session.departure = f"{self._mismatch(entry)}: {why}; it goes on as it is now."

    def matches(self, entry: Entry, frame: Frame) -> bool:
        """Return whether a frame is a line's; of another version, which measures other numbers, the loss decides."""
        versions = [each.versions.get("autograd-tui") for each in self._configs]
        if frame_digest(frame, self._journal.config.digest_version) == entry.digest:
            return True
        older = self._journal.config.hashes is None or versions[0] != versions[1]
        return older and entry.loss in (None, plain_number(frame.loss))

    def _mismatch(self, entry: Entry) -> str:
        frame = self._session.frame.index
        return f"from line {entry.id + 1} of its journal on, frame {frame:,}, this is another run"


def replay_log(session: Session, log: CommandLog, start: int = 0, end: int | None = None) -> None:
    """Run the commands between two frames of a log from where the session stands, many iterations freely.

    Raises Refused where a command is out of turn that was not before.
    """
    for pattern, times in log.blocks(start, end):
        if pattern == ITERATION and times >= MIN_FREE_ITERATIONS and session.next_command() == ITERATION[0]:
            for _ in session.run_free(session.end_of(times), lambda: False):
                pass
        else:
            for command in chain.from_iterable(repeat(pattern, times)):
                session.run(command)


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
            if entry.takes_branch:
                session.rewind(0)  # its number is that of another session, where the run was resumed since
                log = journal.log(entry)
            else:
                log = CommandLog()
                entry.append_to(log)
                if session.frame.index != start:
                    session.rewind(start)
            replay_log(session, log)
        except Refused:
            yield EntryCheck(entry, False)
            return
        digest = frame_digest(session.frame, journal.config.digest_version)
        yield EntryCheck(entry, digest == entry.digest)


def is_repeatable(config: RunConfig) -> bool:
    """Return whether PyTorch was asked for the same bits each time, which on a CPU it need not be."""
    return config.device == "cpu" or bool(config.arguments.get("deterministic"))


def machine_differences(then: RunConfig, now: RunConfig) -> list[str]:
    """Return in what this machine differs from the one that wrote the journal: numbers may differ with it."""
    pairs = [("device", then.device, now.device), ("threads", then.threads, now.threads)]
    packages = [name for name in ("torch", "autograd-tui", *DEVICE_VERSIONS) if name in then.versions]
    pairs += [(name, then.versions[name], now.versions.get(name, "none")) for name in packages]
    return [f"{name} {after} (was {before})" for name, before, after in pairs if before != after]
