"""What the user chose for the screen, remembered in the configuration folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from platformdirs import user_config_path

THEMES = {"dark": "textual-dark", "light": "textual-light", "ansi": "ansi-dark"}  # short names on the command line


@dataclass(frozen=True, slots=True)
class Choices:
    """The looks of the screen; what trains has no part in them."""

    theme: str = THEMES["dark"]
    log_scale: bool = False


def choices_file() -> Path:
    """Give the file that they are kept in."""
    return user_config_path("autograd-tui") / "screen.json"


def load(file: Path) -> Choices:
    """Read the choices; what is missing or cannot be read is as if never chosen."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        return Choices(theme=str(kept["theme"]), log_scale=bool(kept["log_scale"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Choices()


def save(file: Path, choices: Choices) -> None:
    """Write the choices; a folder that cannot be written is no reason to disturb anyone."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(choices)) + "\n", encoding="utf-8")
    except OSError:
        return
