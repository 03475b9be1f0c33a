"""A run into a file, whose ending says in which form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autograd_tui.engine.errors import Refused
from autograd_tui.engine.recording import Recording
from autograd_tui.export.frames import frames
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
) -> str:
    """Write a run in the form that the path's ending names; give a sentence of what was left out, or "".

    reopen: opens the run's session anew at frame 0, to be run again. Raises Refused, with nothing written, where the
    ending is unknown, the path is taken, or it cannot be written.
    """
    write = WRITERS.get(path.suffix)
    if write is None:
        known = ", ".join(WRITERS)
        raise Refused(f'"{path.name}" has no ending that says in which form: {known} are known.')
    check(path, overwrite=overwrite)
    session = reopen()
    with whole(path, overwrite=overwrite) as part:
        return write(part, recording, session, looks or Looks())


def _script(path: Path, recording: Recording, session: Session, looks: Looks) -> str:
    path.write_text(script(recording, session.frame), encoding="utf-8")
    return ""


def _csv(path: Path, recording: Recording, session: Session, looks: Looks) -> str:
    write_csv(path, frames(session, recording))
    return ""


def _json_lines(path: Path, recording: Recording, session: Session, looks: Looks) -> str:
    write_json_lines(path, frames(session, recording))
    return ""


def _events(path: Path, recording: Recording, session: Session, looks: Looks) -> str:
    write_events(path, frames(session, recording))
    return ""


def _picture(path: Path, recording: Recording, session: Session, looks: Looks) -> str:
    from autograd_tui.export.screens import write_picture  # Textual is imported here, and no sooner

    write_picture(path, recording, session, frame=looks.frame, size=looks.size or (120, 40), theme=looks.theme)
    return ""


def _page(path: Path, recording: Recording, session: Session, looks: Looks) -> str:
    from autograd_tui.export.page import write_page

    return write_page(path, recording, session, size=looks.size or (120, 40), theme=looks.theme)


WRITERS: dict[str, Callable[[Path, Recording, Session, Looks], str]] = {
    ".py": _script,
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".svg": _picture,
    ".html": _page,
    ".tb": _events,
}
