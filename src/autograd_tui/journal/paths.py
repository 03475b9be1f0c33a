"""Where journals are kept that the user has given no place: the state folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from itertools import chain, count
from pathlib import Path

from platformdirs import user_state_path

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import other_kind, read_file
from autograd_tui.core.run_config import RunConfig

ENDING = ".journal"
LONGEST = 40  # characters of a scenario's name in that of a journal: a file's name may have 255 bytes
# What follows a journal's name in those of its companions, and how each of these files begins.
_UNFINISHED = r"((\.[0-9a-f]{8})?\.new)?"
BEGINNINGS = {
    r"\.frames" + _UNFINISHED: b'{"autograd-tui frames"',
    r"\.tensors-[0-9]+" + _UNFINISHED: b"PK\x03\x04",
    r"\.damaged(-[0-9]+)?" + _UNFINISHED: b'{"autograd-tui journal"',
}


def folder() -> Path:
    """Give the folder of the user's journals; it may not exist yet. Raises Refused where no home folder is known."""
    try:
        return user_state_path("autograd-tui") / "runs"
    except RuntimeError:
        why = "no home folder is known to keep runs in"
        raise Refused(f"{why}: set HOME or XDG_STATE_HOME, or use --no-journal.") from None


def new_paths(opening: RunConfig) -> Iterator[Path]:
    """Yield paths for a new journal, named by the time and the scenario: other runs may take the first ones.

    Nothing is made yet.
    """
    name = re.sub(r"\W+", "-", Path(opening.scenario).name.replace(".py", "")).strip("-")[:LONGEST] or "run"
    began = f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    names = chain([began], (f"{began}-{number}" for number in count(2)))  # several may begin in one second
    return (folder() / f"{each}{ENDING}" for each in names)


def journals() -> list[Path]:
    """Give the journals that there are, the newest first; in an empty one nothing has run."""
    begun: list[tuple[float, Path]] = []
    with suppress(OSError):
        for path in folder().glob(f"*{ENDING}"):
            with suppress(OSError):  # a link to nowhere hides no other
                found = path.stat()
                if found.st_size and other_kind(found.st_mode) is None:
                    begun.append((found.st_mtime, path))
    return [path for _, path in sorted(begun, reverse=True)]


def is_ours(path: Path, opened: os.stat_result) -> bool:
    """Tell whether a journal that is open is this user's own, from the state folder, and nobody else can write there.

    opened: what is known of the very file that is read, whatever its name may lead to by now.
    """
    try:
        here, named = folder().stat(), (folder() / path.name).lstat()
    except OSError:
        return False
    return os.path.samestat(named, opened) and all(map(_of_this_user_alone, (here, opened)))


def _of_this_user_alone(found: os.stat_result) -> bool:
    if not hasattr(os, "getuid"):  # Windows: the folder lies in the user's own
        return True
    return found.st_uid == os.getuid() and not found.st_mode & 0o022


def companions(path: Path) -> list[Path]:
    """Give the files beside a journal that this program wrote for it: drawn frames, tensors, damaged copies.

    They are known by name, kind and beginning; links and other people's files are not among them. Raises OSError.
    """
    names = (name for name in os.listdir(path.parent) if name.startswith(path.name))
    return sorted(
        path.with_name(name) for name in names if _is_companion(path.with_name(name), name.removeprefix(path.name))
    )


def remove_leftovers(path: Path) -> None:
    """Remove what a run that was killed has left unfinished beside its journal."""
    with suppress(OSError):
        for each in companions(path):
            if each.name.endswith(".new"):
                each.unlink()


def _is_companion(path: Path, ending: str) -> bool:
    begins = next((begins for name, begins in BEGINNINGS.items() if re.fullmatch(name, ending)), None)
    if begins is None or path.is_symlink():
        return False
    try:
        found = read_file(path, most=len(begins))
    except OSError:  # no file, or not to be read
        return False
    return found == begins or (ending.endswith(".new") and begins.startswith(found))
