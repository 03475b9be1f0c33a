"""Go on with a run that stopped: all of it stands again as it did."""

from __future__ import annotations

from autograd_tui.engine.line.again import run_again
from autograd_tui.engine.session import Session
from autograd_tui.journal.branches import told_branches
from autograd_tui.journal.reading import Journal
from autograd_tui.journal.tensors import load
from autograd_tui.journal.writing import JournalWriter


def resume(session: Session, journal: Journal) -> None:
    """Bring a session that has just been opened to where a journal's run stood; it goes on with the journal.

    What leads there runs again, from a checkpoint beside the journal where there is one; branches do not run until
    one of them is taken. Raises Refused where another run writes the journal.
    """
    told, rest = told_branches(journal), journal.recording(journal.present)
    if found := load(journal, session.checkpoint()):
        index, track = found.checkpoint.frame.index, told.present.copy()
        track.forget_after(index)
        _, rest = rest.split(index)
        session.take_up(found.checkpoint, track, found.history)
    for _ in run_again(session, rest):
        pass
    session.take_up_branches(told.branches)
    session.rewind(journal.frame)
    session.recorder = JournalWriter.go_on(journal, session.about, left=told.ends)
