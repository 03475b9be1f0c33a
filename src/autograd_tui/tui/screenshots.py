"""Screenshots, written as SVG."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from autograd_tui.core.files import absolute, replacing
from autograd_tui.tui.screen_state import Note


def write_screenshot(svg: str, path: Path, *, folder: str | None) -> Note:
    """Write a picture where no file is, a relative path in `folder`; return a note that says so, or why not."""
    try:
        _write_new(path, svg, folder)
    except FileExistsError:
        return Note(f"{path} exists: give another name.", "warn")
    except OSError as error:
        return Note(f"the picture could not be written: {error.strerror}", "error")
    return Note(f"written: {path}", "accent")


def write_screenshot_and_line(svg: str, line: str, *, folder: str | None, script: bool = False) -> Note:
    """Write a picture, named by the time, and beside it the command line that repeats the run, or runs a `script`."""
    path = Path(f"autograd-tui_{datetime.now():%Y-%m-%dT%H_%M_%S_%f}.svg")
    try:
        _write_new(path, svg, folder)
        _write_new(path.with_suffix(".txt"), line + "\n", folder)
    except OSError as error:
        return Note(f"the picture could not be written: {error.strerror}", "error")
    more = ":export run.html gives a page" if script else ":export run.py gives a script"
    return Note(f"written: {path.name}; {more}. {line}", "accent")


def _write_new(path: Path, text: str, folder: str | None) -> None:
    with replacing(Path(absolute(str(path), folder)), over=False) as file:
        file.write(text.encode())
