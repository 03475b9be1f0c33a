"""Export what a session has run while it stays open: a second one runs it again beside it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from autograd_tui.engine.session import Session
from autograd_tui.engine.training.surroundings import ForeignRandom
from autograd_tui.engine.values.errors import Refused
from autograd_tui.export.file import export_case, export_file, written_paths
from autograd_tui.export.target import free
from autograd_tui.open import open_session


def export_beside(path: Path, session: Session, stopped: Callable[[], bool], *, numbered: bool = False) -> str:
    """Write what has led to where the session stands, and leave the session as it is; say what was written.

    numbered: a case goes to a name of its own where its files exist already.
    Raises Refused, also where it is `stopped`, with nothing written.
    """
    if numbered:
        path = free(path, beside=".py")
    for each in written_paths(path):
        if os.path.lexists(each):
            raise Refused(f"{each} exists: give another name.")
    if path.suffix == ".pt":
        return f"written: {path}; {export_case(path, session)}"
    recording = session.recording()
    opening, foreign = recording.opening, ForeignRandom.read()

    def reopen() -> Session:
        return open_session(opening.scenario, **opening.arguments, **opening.own)

    try:
        missing = export_file(path, recording, reopen, stopped=stopped)
    finally:
        foreign.write()
    return f"written: {path}" + (f"; {missing}" if missing else "")
