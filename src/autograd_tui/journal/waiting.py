"""Does a run wait to be resumed?"""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import islice
from pathlib import Path

from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.printed import one_line, quoted
from autograd_tui.engine.values.scenario_names import BUILT_IN
from autograd_tui.journal.descriptor import is_locked
from autograd_tui.journal.folder import journals
from autograd_tui.journal.reading import Journal, read_journal

MOST_BYTES = 1 << 20  # of a journal that is read for a word at the start
MOST_JOURNALS = 20  # that are read
FEW = 8  # commands: a shorter run, tried out in passing, hides none that waits behind it


def waiting_run() -> str | None:
    """Say, in a sentence, which run was cut off and how to go on with it.

    That is the latest run of some length, else a later and shorter one; None where they were left in order, or go on.
    """
    waiting: Journal | None = None
    for path in islice(journals(), MOST_JOURNALS):
        with suppress(Refused, OSError):  # what is no journal, or is gone, hides none that waits behind it
            if path.stat().st_size > MOST_BYTES:
                break
            journal = read_journal(path)
            has_length = _commands(journal) >= FEW
            if _waits(journal) and (has_length or waiting is None):
                waiting = journal
            if has_length:
                break
    return _sentence(waiting) if waiting else None


def _waits(journal: Journal) -> bool:
    return journal.left is None and bool(journal.entries) and not is_locked(journal.path)


def _commands(journal: Journal) -> int:
    return sum(len(entry.commands()) for entry in journal.entries)


def _sentence(journal: Journal) -> str:
    """Name the journal: the latest one is another as soon as a key is pressed."""
    where = f"a run of {one_line(journal.opening.scenario)} waits at frame {journal.frame:,}"
    named, salvage = journal.opening.scenario, " --salvage" if journal.damage else ""
    scenario = "" if named in BUILT_IN else f" --scenario {quoted(named)}"
    return f"{where}; to go on with it: autograd-tui resume {_spelled(journal.path)}{scenario}{salvage}"


def _spelled(path: Path) -> str:
    """Write a path as a shell takes it."""
    home = Path(os.path.expanduser("~"))
    return f"~/{quoted(str(path.relative_to(home)))}" if path.is_relative_to(home) else quoted(str(path))
