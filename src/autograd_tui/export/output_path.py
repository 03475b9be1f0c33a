"""Where an export goes: whole or not at all, and over nothing that is there without being told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import other_kind, part_of, replacing, same_file

EVENTS = "events.out.tfevents."  # what TensorBoard's files begin with
ProtectedFiles = Mapping[str, Path]  # files that are never written over, by what they are: "the scenario's own file"


def check_output(path: Path, *, overwrite: bool, sources: ProtectedFiles) -> None:
    """Refuse a target that cannot be, before anything is run for it."""
    for what, source in sources.items():
        if same_file(path, source):
            raise Refused(f"{path} is {what}, which is never written over: give another name.")
    if not os.path.isdir(path.parent):  # which, unlike Path, has an answer for any text
        raise Refused(f"there is no folder {path.parent} to write {path.name} into.")
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise Refused(f"{path} exists: --force writes over it.")
    kind = None if path.is_symlink() else other_kind(path.stat().st_mode)  # a link itself gives way
    if kind == "a folder" and not (path.suffix == ".tb" and _holds_events_alone(path)):
        raise Refused(f"{path} is a folder with other things in it, which are left alone: give another name.")
    if kind not in (None, "a folder"):
        raise Refused(f"{path} is {kind}, and no file: give another name.")


def _holds_events_alone(folder: Path) -> bool:
    return all(each.name.startswith(EVENTS) for each in folder.iterdir())


@contextmanager
def write_whole(path: Path, *, overwrite: bool, sources: ProtectedFiles) -> Iterator[BinaryIO]:
    """Open a file that is put in the target's place once all is written; raises Refused.

    Where a link is written over, it is the link that gives way, and what it leads to stays.
    """
    check_output(path, overwrite=overwrite, sources=sources)
    try:
        with replacing(path, over=overwrite) as file:
            yield file
            check_output(path, overwrite=overwrite, sources=sources)
    except OSError as error:
        raise Refused(f"{path} could not be written: {error.strerror or error}.") from error


@contextmanager
def write_whole_folder(path: Path, *, overwrite: bool, sources: ProtectedFiles) -> Iterator[Path]:
    """Make a folder that is put in the target's place once all is written; raises Refused."""
    check_output(path, overwrite=overwrite, sources=sources)
    part = part_of(path)
    try:
        part.mkdir()
        yield part
        check_output(path, overwrite=overwrite, sources=sources)
        _remove(path)
        os.replace(part, path)
    except OSError as error:
        raise Refused(f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _remove(path: Path) -> None:
    """Remove what a folder is to take the place of."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
