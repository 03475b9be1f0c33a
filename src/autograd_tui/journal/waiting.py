"""Does a run wait to be resumed?"""

from __future__ import annotations

from autograd_tui.engine.errors import Refused
from autograd_tui.journal.descriptor import is_locked
from autograd_tui.journal.folder import journals
from autograd_tui.journal.reading import read_journal

MOST_BYTES = 1 << 20  # of a journal that is read for a word at the start


def waiting_run() -> str | None:
    """Say, in a sentence, that the latest run was cut off and waits; None where it was left in order, or goes on."""
    latest = next(iter(journals()), None)
    try:
        if latest is None or latest.stat().st_size > MOST_BYTES or is_locked(latest):
            return None
        journal = read_journal(latest)
    except (Refused, OSError):
        return None
    if journal.left is not None or not journal.entries:
        return None
    return f"a run of {journal.opening.scenario} waits at frame {journal.frame:,}: autograd-tui resume goes on with it"
