"""The words submitted before, to be had again."""

from __future__ import annotations

MOST_LINES = 100


class EarlierWords:
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
