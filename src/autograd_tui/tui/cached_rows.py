"""Rows that Textual need not put together again: it asks every widget for all of them whenever one has changed."""

from __future__ import annotations

from typing import Self

from textual.containers import Horizontal, Vertical
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget


class CachedRows(Widget):
    """Gives the rows of before for as long as nothing has asked for others."""

    _rows_kept: tuple[Region, list[Strip]] | None = None

    def render_lines(self, crop: Region) -> list[Strip]:
        """Give the rows to the compositor."""
        if self._rows_kept is None or self._rows_kept[0] != crop:
            self._rows_kept = crop, self.rows(crop)
        return self._rows_kept[1]

    def rows(self, crop: Region) -> list[Strip]:
        """Put the rows together."""
        return super().render_lines(crop)

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Self:
        """Ask for other rows."""
        self._rows_kept = None
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def notify_style_update(self) -> None:
        """Forget the rows in the colours of before."""
        super().notify_style_update()
        self._rows_kept = None


class CachedHorizontal(Horizontal, CachedRows):
    """Holds panels side by side."""


class CachedVertical(Vertical, CachedRows):
    """Holds panels one above the other."""
