"""Where a run is kept."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.files import absolute, other_kind, working_folder
from autograd_tui.engine.values.printed import quoted

if TYPE_CHECKING:
    from autograd_tui.engine.session import Session


def place(options: argparse.Namespace) -> Path | None:
    """Give where a run is to be kept that the user gives a place; raises Refused where something is there.

    From the root on, since code of a scenario may go elsewhere.
    """
    if options.journal is None:
        return None
    if not options.journal:
        raise Refused("--journal needs a file's name, and none was given.")
    if os.path.exists(options.journal) and (kind := other_kind(os.stat(options.journal).st_mode)):
        raise Refused(f"{options.journal} is {kind}, and no file: give another name for the journal.")
    if os.path.exists(options.journal) and not os.path.getsize(options.journal):
        raise Refused(f"{options.journal} is there and holds no run: delete it, or give another name for the journal.")
    if os.path.lexists(options.journal):
        on = f"where it is a journal, autograd-tui resume {quoted(options.journal)} goes on with it"
        raise Refused(f"{options.journal} exists already: give another name; {on}.")
    return Path(absolute(options.journal, working_folder()))


def kept(session: Session, options: argparse.Namespace, path: Path | None = None) -> Session:
    """Have a session that has just been opened keep what it runs, in the state folder where it has no path."""
    from autograd_tui.journal.folder import new_paths
    from autograd_tui.journal.writing import JournalWriter

    if path is not None:
        session.recorder = JournalWriter(path, session.about, private=False)
    elif not options.no_journal:
        paths = new_paths(session.about.opening)
        session.recorder = JournalWriter(next(paths), session.about, private=True, others=paths)
    return session
