"""What a journal must tell of the session that writes it: exactly where that stands, after each line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.frame_store import Branch
from autograd_tui.engine.session import Session
from autograd_tui.journal.entry import frame_digest
from autograd_tui.journal.reader import read_journal
from autograd_tui.journal.resume_run import rebuild_branches


def listed(branches: Iterable[Branch]) -> list[tuple[int, int, int, float | None]]:
    """Give number, fork, length and last loss of each."""
    return [(branch.number, branch.fork, len(branch), branch.loss) for branch in branches]


def spelled(log: CommandLog) -> list[str]:
    """Return its commands, each with the type of what it raised."""
    return [f"{command} {raised}" if raised else str(command) for command, raised in log.with_errors(0, len(log))]


def told_otherwise(path: Path, session: Session) -> list[str]:
    """Say in what a journal that is read now differs from the session that has just written its last line."""
    journal = read_journal(path)
    rebuilt = rebuild_branches(journal)
    pairs = {
        "damage, cut": ((journal.damage, journal.unread_bytes), (None, 0)),
        "frame, newest": ((journal.frame, len(rebuilt.log)), (session.frame.index, session.newest)),
        "digest": (journal.tip.digest, frame_digest(session.frame)),
        "loss": (journal.loss, session.frame.loss),
        "branches": (listed(rebuilt.branches.newest), listed(session.branches)),
        "commands": (spelled(journal.log()), spelled(session.log())),
    }
    # As text, where a NaN is a NaN.
    return [f"{what}: {said}, not {true}" for what, (said, true) in pairs.items() if str(said) != str(true)]
