"""Paths of journals in the user's state folder, and of the files beside them."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import chain, count, islice, takewhile
from pathlib import Path

from platformdirs import user_state_path

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import other_kind, read_file
from autograd_tui.core.run_config import RunConfig

SUFFIX = ".journal"
MAX_NAME_LENGTH = 40  # characters of a scenario's name in that of a journal: a file's name may have 255 bytes
# What follows a journal's name in those of its companions, and how each of these files begins.
_UNFINISHED = r"((\.[0-9a-f]{8})?\.new)?"
COMPANION_SIGNATURES = {
    r"\.frames" + _UNFINISHED: b'{"autograd-tui frames"',
    r"\.tensors-[0-9]+" + _UNFINISHED: b"PK\x03\x04",
    r"\.damaged(-[0-9]+)?" + _UNFINISHED: b'{"autograd-tui journal"',
}


def runs_folder() -> Path:
    """Return the folder of the user's journals, which may not exist. Raises Refused where no home folder is known."""
    try:
        return user_state_path("autograd-tui") / "runs"
    except RuntimeError:
        why = "no home folder is known to keep runs in"
        raise Refused(f"{why}: set HOME or XDG_STATE_HOME, or use --no-journal.") from None


def new_journal_paths(config: RunConfig) -> Iterator[Path]:
    """Yield paths for a new journal, named by the time and the scenario: other runs may take the first ones.

    Nothing is made yet.
    """
    name = re.sub(r"\W+", "-", Path(config.scenario).name.replace(".py", "")).strip("-")[:MAX_NAME_LENGTH] or "run"
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    names = chain([stem], (f"{stem}-{number}" for number in count(2)))  # several may begin in one second
    return (runs_folder() / f"{each}{SUFFIX}" for each in names)


def list_journals() -> list[Path]:
    """Return the journals in the state folder, the newest first, without empty ones."""
    journals: list[tuple[float, Path]] = []
    with suppress(OSError):
        for path in runs_folder().glob(f"*{SUFFIX}"):
            with suppress(OSError):  # a link to nowhere hides no other
                status = path.stat()
                if status.st_size and other_kind(status.st_mode) is None:
                    journals.append((status.st_mtime, path))
    return [path for _, path in sorted(journals, reverse=True)]


def is_own_journal(path: Path, status: os.stat_result) -> bool:
    """Return whether an open journal is this user's own: in the state folder, where nobody else can write.

    status: of the open file itself, since its name may lead elsewhere by now.
    """
    runs = runs_folder()
    try:
        folder, link = runs.stat(), (runs / path.name).lstat()
    except OSError:
        return False
    return os.path.samestat(link, status) and all(map(_is_private, (folder, status)))


def _is_private(status: os.stat_result) -> bool:
    if not hasattr(os, "getuid"):  # Windows: the folder lies in the user's own
        return True
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def companion_files(path: Path, *, listing: Sequence[str] | None = None) -> list[Path]:
    """Return the files beside a journal that this program wrote for it: drawn frames, tensors, damaged copies.

    They are known by name, kind and beginning; links and other people's files are not among them. Raises OSError.
    listing: the sorted names in the journal's folder, for who asks about many journals there; read where it is None.
    """
    names = sorted(os.listdir(path.parent)) if listing is None else listing
    behind = islice(names, bisect_right(names, path.name), None)
    beside = takewhile(lambda name: name.startswith(path.name), behind)
    return [
        path.with_name(name) for name in beside if _is_companion(path.with_name(name), name.removeprefix(path.name))
    ]


def remove_unfinished(path: Path) -> None:
    """Remove what a run that was killed has left unfinished beside its journal."""
    with suppress(OSError):
        for each in companion_files(path):
            if each.name.endswith(".new"):
                each.unlink()


def _is_companion(path: Path, ending: str) -> bool:
    signature = next((start for name, start in COMPANION_SIGNATURES.items() if re.fullmatch(name, ending)), None)
    if signature is None or path.is_symlink():
        return False
    try:
        start = read_file(path, max_bytes=len(signature))
    except OSError:  # no file, or not to be read
        return False
    return start == signature or (ending.endswith(".new") and signature.startswith(start))
