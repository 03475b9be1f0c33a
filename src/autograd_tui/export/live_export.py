"""Export what a session has run while it stays open: a second one runs it again beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from autograd_tui.core.files import go_to, working_folder
from autograd_tui.core.run_observer import Interrupted
from autograd_tui.engine.open_session import open_again
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.global_state import HostRng
from autograd_tui.export.formats import export_file, export_repro, new_output


def export_live(
    path: Path, session: Session, stopped: Callable[[], bool], *, folder: str | None = None, numbered: bool = False
) -> str:
    """Write what has led to where the session stands, which it does not move; return a sentence on what was written.

    folder: where the program was started, which code of the session may have left. numbered: a repro goes to a name of
    its own where its files exist already.
    Raises Refused, also where it is `stopped`, with nothing written.
    """
    before = working_folder()
    path, target = new_output(path, folder or before, numbered=numbered)
    if path.suffix == ".pt":
        return f"written: {path}; {export_repro(target, session)}"
    config, foreign = session.about.config, HostRng.read()

    def reopen() -> Session:
        go_to(folder)
        return open_again(config, config.scenario)

    try:
        missing = export_file(target, config, session.log(), reopen, stopped=stopped)
    except Interrupted as error:
        raise Interrupted(f"nothing is written: beside this run, where it runs again for the file, {error}") from error
    finally:
        foreign.write()
        go_to(before)
    return f"written: {path}" + (f"; {missing}" if missing else "")
