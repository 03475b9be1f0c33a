"""What the screen remembers from one start to the next: theme, glyphs, and what was typed at the prompt."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from platformdirs import user_config_path

from autograd_tui.core.files import make_folder, read_file, replacing

THEMES = {"dark": "textual-dark", "light": "textual-light", "ansi": "ansi-dark"}  # short names on the command line
MOST_BYTES = 1 << 16  # that are read


@dataclass(frozen=True, slots=True)
class Preferences:
    """The looks of the screen; what trains has no part in them."""

    theme: str = THEMES["dark"]
    log_scale: bool = False
    ascii_only: bool | None = None  # None: where the terminal knows nothing else

    def changed(self, began: Preferences, now: Preferences) -> Preferences:
        """Take over what differs between the screen as it began and as it is now."""
        return replace(self, **{name: value for name, value in asdict(now).items() if value != getattr(began, name)})


def choices_file() -> Path | None:
    """Give the file that they are kept in; None where the user has no home folder."""
    try:
        return user_config_path("autograd-tui") / "screen.json"
    except RuntimeError:
        return None


def load(file: Path | None) -> Preferences:
    """Read the choices; what is missing or cannot be read is as if never chosen."""
    if file is None:
        return Preferences()
    try:
        kept = json.loads(read_file(file, max_bytes=MOST_BYTES))
        ascii_only = kept.get("ascii_only")
        return Preferences(
            str(kept["theme"]), bool(kept["log_scale"]), None if ascii_only is None else bool(ascii_only)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Preferences()


def save(file: Path | None, choices: Preferences) -> None:
    """Write the choices; a folder that cannot be written is no reason to disturb anyone."""
    if file is None:
        return
    try:
        make_folder(file.parent)
        with replacing(file) as new:
            new.write((json.dumps(asdict(choices)) + "\n").encode())
    except OSError:
        return


MOST_LINES = 100


class PromptHistory:
    """A line of what was submitted, oldest first, and a place in it; past the newest stands an empty line."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._place = 0

    @property
    def here(self) -> str:
        """Give the words at the place."""
        return self._lines[self._place] if self._place < len(self._lines) else ""

    def add(self, words: str) -> None:
        """Take in what was submitted, and go past it."""
        if words.strip() and words not in self._lines[-1:]:
            self._lines = [*self._lines, words][-MOST_LINES:]
        self.leave()

    def leave(self) -> None:
        """Go past the newest."""
        self._place = len(self._lines)

    def go(self, by: int) -> bool:
        """Move towards the older (-1) or the newer (1); tell whether there was anything."""
        place = self._place + by
        if not 0 <= place <= len(self._lines):
            return False
        self._place = place
        return True
