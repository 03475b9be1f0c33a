"""Where journals are kept that the user has given no place: the state folder."""

from __future__ import annotations

import re
from datetime import datetime
from itertools import chain, count
from pathlib import Path

from platformdirs import user_state_path

from autograd_tui.engine.values.opening import Opening

ENDING = ".journal"


def folder() -> Path:
    """Give the folder of the user's journals; it may not exist yet."""
    return user_state_path("autograd-tui") / "runs"


def new_path(opening: Opening) -> Path:
    """Give a new journal's path, named by the time and the scenario; nothing is made yet."""
    name = re.sub(r"\W+", "-", Path(opening.scenario).name.replace(".py", "")).strip("-") or "run"
    began = f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    names = chain([began], (f"{began}-{number}" for number in count(2)))  # several may begin in one second
    return next(path for each in names if not (path := folder() / f"{each}{ENDING}").exists())


def journals() -> list[Path]:
    """Give the journals that there are, the newest first; in an empty one nothing has run."""
    try:
        found = [(path.stat(), path) for path in folder().glob(f"*{ENDING}")]
    except OSError:
        return []
    begun = [(stat.st_mtime, path) for stat, path in found if stat.st_size]
    return [path for _, path in sorted(begun, reverse=True)]


def companions(path: Path) -> list[Path]:
    """Give the files that lie beside a journal and belong to it: drawn frames, tensors."""
    return sorted(each for each in path.parent.glob(f"{path.name}.*"))
