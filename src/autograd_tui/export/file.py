"""A run into a file, whose ending says in which form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.recording import Recording
from autograd_tui.export.case_script import case_script
from autograd_tui.export.frames import Rerun
from autograd_tui.export.json_lines import write_json_lines
from autograd_tui.export.long_table import write_csv
from autograd_tui.export.script import script
from autograd_tui.export.target import check, whole
from autograd_tui.export.tensorboard import write_events

if TYPE_CHECKING:
    from autograd_tui.engine.session import Session


@dataclass(frozen=True, slots=True)
class Looks:
    """How screens are drawn; None for what suits the format."""

    frame: int | None = None  # the one of a picture: the last by default
    size: tuple[int, int] | None = None  # columns, rows
    theme: str | None = None


def export_file(
    path: Path,
    recording: Recording,
    reopen: Callable[[], Session],
    *,
    looks: Looks | None = None,
    overwrite: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> str:
    """Write a run in the form that the path's ending names; give a sentence of what was left out, or "".

    reopen: opens the run's session anew at frame 0, to be run again unless `stopped`.
    Raises Refused, with nothing written, where the
    ending is unknown, the path is taken, or it cannot be written.
    """
    write = WRITERS.get(path.suffix)
    if write is None:
        known = ", ".join(WRITERS)
        raise Refused(f'"{path.name}" has no ending that says in which form: {known} are known.')
    check(path, overwrite=overwrite)
    run = Rerun(recording, reopen(), stopped)
    if write is _case:
        for _ in run.frames():
            pass
        if looks is not None and looks.frame is not None:
            run.session.rewind(looks.frame)
        return export_case(path, run.session, overwrite=overwrite)
    with whole(path, overwrite=overwrite) as part:
        return write(part, run, looks or Looks())


def export_case(path: Path, session: Session, *, overwrite: bool = False) -> str:
    """Write the iteration up to where a session stands, and a script beside it; training stays there.

    Gives what is to be said of it. Raises Refused, with nothing written, where it cannot be.
    """
    beside = path.with_suffix(".py")
    with whole(path, overwrite=overwrite) as part, whole(beside, overwrite=overwrite) as script_part:
        case = session.write_case(part)
        script_part.write_text(case_script(session.about.opening, case), encoding="utf-8")
    return f"{beside.name} repeats it"


def _case(path: Path, run: Rerun, looks: Looks) -> str:
    """Stand for what `export_case` writes: two files."""
    raise NotImplementedError


def _script(path: Path, run: Rerun, looks: Looks) -> str:
    path.write_text(script(run.recording, run.session.frame, run.session.groups), encoding="utf-8")
    return ""


def _csv(path: Path, run: Rerun, looks: Looks) -> str:
    write_csv(path, run.frames())
    return ""


def _json_lines(path: Path, run: Rerun, looks: Looks) -> str:
    write_json_lines(path, run.frames())
    return ""


def _events(path: Path, run: Rerun, looks: Looks) -> str:
    write_events(path, run.frames())
    return ""


def _picture(path: Path, run: Rerun, looks: Looks) -> str:
    from autograd_tui.export.screens import write_picture  # Textual is imported here, and no sooner

    write_picture(path, run, frame=looks.frame, size=looks.size or (120, 40), theme=looks.theme)
    return ""


def _page(path: Path, run: Rerun, looks: Looks) -> str:
    from autograd_tui.export.page import write_page

    return write_page(path, run, size=looks.size or (120, 40), theme=looks.theme)


WRITERS: dict[str, Callable[[Path, Rerun, Looks], str]] = {
    ".py": _script,
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".svg": _picture,
    ".html": _page,
    ".tb": _events,
    ".pt": _case,
}
