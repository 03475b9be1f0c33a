"""A kept run in one line."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.memory import size_in_words
from autograd_tui.engine.values.printed import one_line
from autograd_tui.journal.folder import companions
from autograd_tui.journal.reading import read_journal

HEADER = f"{'begun':<16}  {'scenario':<14}  {'frames':>9}  {'last loss':>11}  {'size':>8}  journal"


def summary_line(path: Path) -> str:
    """Say when a run was begun, of what, how long it is, its last loss where there is one, and what it takes."""
    try:
        journal = read_journal(path)
        size = sum(each.lstat().st_size for each in (path, *companions(path)))
    except Refused as error:
        return f"{'?':<16}  {error}"
    except OSError as error:
        return f"{'?':<16}  {path}: {error.strerror}"
    begun = f"{datetime.fromtimestamp(journal.started):%Y-%m-%d %H:%M}"
    loss = "-" if journal.loss is None else f"{journal.loss:.6g}"
    scenario = one_line(journal.opening.scenario)
    what = f"{begun}  {scenario:<14}  {journal.frame:>9,}  {loss:>11}  {size_in_words(size):>8}  {path}"
    return f"{what} is damaged: {journal.damage}" if journal.damage else what
