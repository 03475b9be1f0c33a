"""Does a run wait to be resumed?"""

from __future__ import annotations

import os
from pathlib import Path

from autograd_tui.engine.errors import Refused
from autograd_tui.journal.folder import journals
from autograd_tui.journal.reading import read_journal

MOST_BYTES = 1 << 20  # of a journal that is read for a word at the start

try:
    import fcntl
except ImportError:  # Windows: nobody knows whether another program writes the journal
    fcntl = None  # type: ignore[assignment]


def waiting_run() -> str | None:
    """Say, in a sentence, that the latest run was cut off and waits; None where it was left in order, or goes on."""
    latest = next(iter(journals()), None)
    try:
        if latest is None or latest.stat().st_size > MOST_BYTES or _is_written(latest):
            return None
        journal = read_journal(latest)
    except (Refused, OSError):
        return None
    if journal.left is not None or not journal.entries:
        return None
    return f"a run of {journal.opening.scenario} waits at frame {journal.frame:,}: autograd-tui resume goes on with it"


def _is_written(path: Path) -> bool:
    """Tell whether a program that runs writes to it."""
    if fcntl is None:
        return False
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
