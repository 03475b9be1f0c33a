"""What the user chose for the screen, remembered in the configuration folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from platformdirs import user_config_path

from autograd_tui.engine.values.files import make_folder, read_file, replacing

THEMES = {"dark": "textual-dark", "light": "textual-light", "ansi": "ansi-dark"}  # short names on the command line
MOST_BYTES = 1 << 16  # that are read


@dataclass(frozen=True, slots=True)
class Choices:
    """The looks of the screen; what trains has no part in them."""

    theme: str = THEMES["dark"]
    log_scale: bool = False
    ascii_only: bool | None = None  # None: where the terminal knows nothing else

    def changed(self, began: Choices, now: Choices) -> Choices:
        """Take over what differs between the screen as it began and as it is now."""
        return replace(self, **{name: value for name, value in asdict(now).items() if value != getattr(began, name)})


def choices_file() -> Path | None:
    """Give the file that they are kept in; None where the user has no home folder."""
    try:
        return user_config_path("autograd-tui") / "screen.json"
    except RuntimeError:
        return None


def load(file: Path | None) -> Choices:
    """Read the choices; what is missing or cannot be read is as if never chosen."""
    if file is None:
        return Choices()
    try:
        kept = json.loads(read_file(file, most=MOST_BYTES))
        ascii_only = kept.get("ascii_only")
        return Choices(str(kept["theme"]), bool(kept["log_scale"]), None if ascii_only is None else bool(ascii_only))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Choices()


def save(file: Path | None, choices: Choices) -> None:
    """Write the choices; a folder that cannot be written is no reason to disturb anyone."""
    if file is None:
        return
    try:
        make_folder(file.parent)
        with replacing(file) as new:
            new.write((json.dumps(asdict(choices)) + "\n").encode())
    except OSError:
        return
