"""Where an export goes: whole or not at all, and over nothing that is there without being told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path

from autograd_tui.engine.values.errors import Refused

EVENTS = "events.out.tfevents."  # what TensorBoard's files begin with


def check(path: Path, *, overwrite: bool) -> None:
    """Refuse a target that cannot be, before anything is run for it."""
    if path.exists() and not overwrite:
        raise Refused(f"{path} exists: --force writes over it.")
    if not path.parent.is_dir():
        raise Refused(f"there is no folder {path.parent} to write {path.name} into.")
    if path.is_dir() and not (path.suffix == ".tb" and all(each.name.startswith(EVENTS) for each in path.iterdir())):
        raise Refused(f"{path} is a folder with other things in it, which are left alone: give another name.")


def free(path: Path, *, beside: str) -> Path:
    """Give a path where nothing is, nor with the ending of what lies `beside`: this one, or numbered, case-9-2.pt."""
    names = chain([path], (path.with_stem(f"{path.stem}-{number}") for number in count(2)))
    return next(each for each in names if not each.exists() and not each.with_suffix(beside).exists())


@contextmanager
def whole(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a path beside the target to write to, and put it in its place once all is written; raises Refused."""
    check(path, overwrite=overwrite)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        check(path, overwrite=overwrite)
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(part, path)
    except OSError as error:
        raise Refused(f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        part.unlink(missing_ok=True) if part.is_file() else None
