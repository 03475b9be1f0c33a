"""Exports a run into a file; the ending of its name chooses the format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from autograd_tui.core.command_log import Recording
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.export.csv_table import write_csv
from autograd_tui.export.frame_replay import FrameReplay
from autograd_tui.export.output_path import Sources, check, whole, whole_folder
from autograd_tui.export.repro_script import case_script
from autograd_tui.export.script import script
from autograd_tui.export.tensorboard import write_events

if TYPE_CHECKING:
    from autograd_tui.engine.session import Session


def write_json_lines(file: BinaryIO, frames: Iterable[Frame]) -> None:
    """Write what `Frame.plain` says of each."""
    for frame in frames:
        file.write((json.dumps(frame.plain(), allow_nan=False) + "\n").encode())


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
    journal: Path | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> str:
    """Write a run in the form that the path's ending names; give a sentence of what was left out, or "".

    reopen: opens the run's session anew at frame 0, to be run again unless `stopped`.
    overwrite: what is there, but no file that the run is made of, nor its `journal`.
    Raises Refused, with nothing written, where the ending is unknown, a path is taken, or it cannot be written.
    """
    write = WRITERS.get(path.suffix)
    if write is None:
        known = ", ".join(WRITERS)
        raise Refused(f'"{path.name}" has no ending that says in which form: {known} are known.')
    sources = recording.opening.files | ({"the run's journal": journal} if journal else {})
    for each in written_paths(path):
        check(each, overwrite=overwrite, sources=sources)
    run = FrameReplay(recording, reopen(), stopped)
    if write is _case:
        for _ in run.frames():
            pass
        if looks is not None and looks.frame is not None:
            run.session.rewind(looks.frame)
        return export_case(path, run.session, overwrite=overwrite, sources=sources)
    if write is _events:
        with whole_folder(path, overwrite=overwrite, sources=sources) as folder:
            write_events(folder, run.frames())
        return ""
    with whole(path, overwrite=overwrite, sources=sources) as file:
        return write(file, run, looks or Looks())


def written_paths(path: Path) -> list[Path]:
    """Give what an export to a path writes: a case has a script beside it."""
    return [path, path.with_suffix(".py")] if path.suffix == ".pt" else [path]


def export_case(path: Path, session: Session, *, overwrite: bool = False, sources: Sources | None = None) -> str:
    """Write the iteration up to where a session stands, and a script beside it; training stays there.

    Gives what is to be said of it. Raises Refused, with nothing written, where it cannot be.
    """
    over: dict[str, Any] = {"overwrite": overwrite, "sources": sources or session.about.opening.files}
    path, beside = written_paths(path)
    with whole(path, **over) as file, whole(beside, **over) as script_file:
        case = session.write_case(file)
        script_file.write(compiled(case_script(session.about.opening, case), beside.name))
    return f"{beside.name} repeats it"


def compiled(text: str, name: str) -> bytes:
    """Give a script's text as it is written; raises Refused where it is no Python, so that none is kept."""
    try:
        compile(text, name, "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Refused(f"this run cannot be written as a script yet: it would be no Python ({error}).") from error
    return text.encode()


def _case(file: BinaryIO, run: FrameReplay, looks: Looks) -> str:
    """Stand for what `export_case` writes: two files."""
    raise NotImplementedError


def _events(file: BinaryIO, run: FrameReplay, looks: Looks) -> str:
    """Stand for what `write_events` writes: a folder."""
    raise NotImplementedError


def _script(file: BinaryIO, run: FrameReplay, looks: Looks) -> str:
    file.write(compiled(script(run.recording, run.session.frame, run.session.groups), "the script"))
    return ""


def _csv(file: BinaryIO, run: FrameReplay, looks: Looks) -> str:
    write_csv(file, run.frames())
    return ""


def _json_lines(file: BinaryIO, run: FrameReplay, looks: Looks) -> str:
    write_json_lines(file, run.frames())
    return ""


def _picture(file: BinaryIO, run: FrameReplay, looks: Looks) -> str:
    from autograd_tui.tui.offscreen import picture

    drawn = picture(run, frame=looks.frame, size=looks.size or (120, 40), theme=looks.theme)
    file.write(drawn.encode(errors="backslashreplace"))
    return ""


def _page(file: BinaryIO, run: FrameReplay, looks: Looks) -> str:
    from autograd_tui.export.html_page import page

    text, missing = page(run, size=looks.size or (120, 40), theme=looks.theme)
    file.write(text.encode(errors="backslashreplace"))
    return missing


WRITERS: dict[str, Callable[[BinaryIO, FrameReplay, Looks], str]] = {
    ".py": _script,
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".svg": _picture,
    ".html": _page,
    ".tb": _events,
    ".pt": _case,
}
