"""What the screen remembers from one start to the next: the theme, the plot's scale, and whether it draws in ASCII."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from platformdirs import user_config_path

from autograd_tui.core.files import make_folder, read_file, replacing

THEMES = {"dark": "textual-dark", "light": "textual-light", "ansi": "ansi-dark"}  # short names on the command line
MAX_BYTES = 1 << 16  # that are read


@dataclass(frozen=True, slots=True)
class Preferences:
    """How the screen looks; what trains has no part in it."""

    theme: str = THEMES["dark"]
    log_scale: bool = False
    ascii_only: bool | None = None  # None: where the terminal knows nothing else

    def changed(self, began: Preferences, now: Preferences) -> Preferences:
        """Return these with what differs between the screen as it began and as it is now."""
        return replace(self, **{name: value for name, value in asdict(now).items() if value != getattr(began, name)})


def preferences_file() -> Path | None:
    """Return the path of the file of preferences; None where the user has no home folder."""
    try:
        return user_config_path("autograd-tui") / "screen.json"
    except RuntimeError:
        return None


def load_preferences(file: Path | None) -> Preferences:
    """Read the preferences; what is missing or cannot be read is as if never chosen."""
    if file is None:
        return Preferences()
    try:
        saved = json.loads(read_file(file, max_bytes=MAX_BYTES))
        ascii_only = saved.get("ascii_only")
        return Preferences(
            str(saved["theme"]), bool(saved["log_scale"]), None if ascii_only is None else bool(ascii_only)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Preferences()


def save_preferences(file: Path | None, preferences: Preferences) -> None:
    """Write the preferences; a folder that cannot be written is no reason to disturb anyone."""
    if file is None:
        return
    try:
        make_folder(file.parent)
        with replacing(file) as new:
            new.write((json.dumps(asdict(preferences)) + "\n").encode())
    except OSError:
        return
