"""Where a run is kept."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.files import other_kind

if TYPE_CHECKING:
    from autograd_tui.engine.session import Session


def kept(session: Session, options: argparse.Namespace) -> Session:
    """Have a session that has just been opened keep what it runs, where that is asked for."""
    from autograd_tui.journal.folder import new_paths
    from autograd_tui.journal.writing import JournalWriter

    if options.no_journal:
        return session
    if options.journal is None:
        paths = new_paths(session.about.opening)
        session.recorder = JournalWriter(next(paths), session.about, private=True, others=paths)
        return session
    path = Path(options.journal)
    if path.exists() and (kind := other_kind(path.stat().st_mode)):
        raise Refused(f"{path} is {kind}, and no file: give another name for the journal.")
    if os.path.lexists(path):
        raise Refused(f"{path} exists already: autograd-tui resume {path} goes on with it.")
    session.recorder = JournalWriter(path, session.about, private=False)
    return session
