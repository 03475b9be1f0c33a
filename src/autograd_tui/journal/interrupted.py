"""Runs that were interrupted and can be resumed, each in one line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import accumulate, groupby, islice
from pathlib import Path

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import is_locked
from autograd_tui.core.run_config import BUILT_IN, RunConfig, size_in_words
from autograd_tui.core.terminal_text import one_line, quoted
from autograd_tui.journal.paths import companion_files, list_journals
from autograd_tui.journal.reader import Journal, read_journal

MAX_NAME_LENGTH = 40  # characters of a script's command line
SUMMARY_HEADER = f"{'begun':<16}  {'scenario':<14}  {'frames':>9}  {'last loss':>11}  {'size':>8}  journal"


def journal_summaries(paths: Iterable[Path]) -> Iterator[str]:
    """Yield a row for each journal, as `journal_summary` does; each folder is listed once. Raises OSError."""
    for folder, journals in groupby(paths, key=lambda path: path.parent):
        listing = sorted(os.listdir(folder))
        for path in journals:
            yield journal_summary(path, listing=listing)


def journal_summary(path: Path, *, listing: Sequence[str] | None = None) -> str:
    """Return a row of when a run began, of what, how long it is, its last loss, and the bytes that it takes.

    listing: as in `companion_files`.
    """
    try:
        journal = read_journal(path)
        size = sum(each.lstat().st_size for each in (path, *companion_files(path, listing=listing)))
    except Refused as error:
        return f"{'?':<16}  {error}"
    except OSError as error:
        return f"{'?':<16}  {path}: {error.strerror}"
    start = f"{datetime.fromtimestamp(journal.started):%Y-%m-%d %H:%M}"
    loss = "-" if journal.loss is None else f"{journal.loss:.6g}"
    scenario = one_line(_name(journal.config))
    row = f"{start}  {scenario:<14}  {journal.frame:>9,}  {loss:>11}  {size_in_words(size):>8}  {path}"
    return f"{row} is damaged: {journal.damage}" if journal.damage else row


def _name(config: RunConfig) -> str:
    """Return what ran: a scenario, or the beginning of a script's command line."""
    if not config.script:
        return config.scenario
    name = " ".join(("script", *map(quoted, config.script)))
    return name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 3] + "..."


MAX_JOURNAL_BYTES = 1 << 20  # of a journal that is read for a word at the start
MAX_JOURNALS = 20  # that are read
MIN_COMMANDS = 8  # commands: a shorter run, tried out in passing, hides none that waits behind it


def interrupted_run() -> str | None:
    """Return a sentence on which run was cut off and how to go on with it.

    That is the latest run of some length, else a later and shorter one; None where they were left in order, or go on.
    """
    interrupted: Journal | None = None
    for path in islice(list_journals(), MAX_JOURNALS):
        with suppress(Refused, OSError):  # what is no journal, or is gone, hides none that waits behind it
            if path.stat().st_size > MAX_JOURNAL_BYTES:
                break
            journal = read_journal(path)
            if journal.config.script:
                continue  # it is run anew, and waits for nobody
            has_length = _has_commands(journal, MIN_COMMANDS)
            if _is_interrupted(journal) and (has_length or interrupted is None):
                interrupted = journal
            if has_length:
                break
    return _resume_hint(interrupted) if interrupted else None


def _is_interrupted(journal: Journal) -> bool:
    return journal.left is None and bool(journal.entries) and not is_locked(journal.path)


def _has_commands(journal: Journal, count: int) -> bool:
    """Return whether at least so many commands have run."""
    counts = accumulate(len(entry.commands()) for entry in journal.entries)
    return any(each >= count for each in counts)


def _resume_hint(journal: Journal) -> str:
    """Return the command with the journal's path: the latest one is another as soon as a key is pressed."""
    state = f"a run of {one_line(journal.config.scenario)} waits at frame {journal.frame:,}"
    name, salvage = journal.config.scenario, " --salvage" if journal.damage else ""
    scenario = "" if name in BUILT_IN else f" --scenario {quoted(name)}"
    return f"{state}; to go on with it: autograd-tui resume {_shell_path(journal.path)}{scenario}{salvage}"


def _shell_path(path: Path) -> str:
    """Return a path as a shell takes it."""
    home = Path(os.path.expanduser("~"))
    return f"~/{quoted(str(path.relative_to(home)))}" if path.is_relative_to(home) else quoted(str(path))
