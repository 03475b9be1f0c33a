"""Runs the commands of a journal again, and verifies that all numbers are the same, to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat

from autograd_tui.core.command_log import ITERATION, CommandLog
from autograd_tui.core.errors import Refused
from autograd_tui.core.run_config import RunConfig
from autograd_tui.engine.session import Session
from autograd_tui.journal.entry import Entry, frame_digest
from autograd_tui.journal.reader import Journal

MIN_FREE_ITERATIONS = 16  # iterations from which on they run freely


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


DEVICE_VERSIONS = ("card", "cuda", "cudnn", "algorithms", "cudnn benchmark")


NOT_DETERMINISTIC = " It ran without --deterministic, and so its numbers on {} may differ from run to run."


def is_repeatable(config: RunConfig) -> bool:
    """Return whether PyTorch was asked for the same bits each time, which on a CPU it need not be."""
    return config.device == "cpu" or bool(config.arguments.get("deterministic"))


def machine_differences(then: RunConfig, now: RunConfig) -> list[str]:
    """Return in what this machine differs from the one that wrote the journal: numbers may differ with it."""
    pairs = [("device", then.device, now.device), ("threads", then.threads, now.threads)]
    packages = [name for name in ("torch", "autograd-tui", *DEVICE_VERSIONS) if name in then.versions]
    pairs += [(name, then.versions[name], now.versions.get(name, "none")) for name in packages]
    return [f"{name} {after} (was {before})" for name, before, after in pairs if before != after]
