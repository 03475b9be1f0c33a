"""Which rows and columns each panel gets: text what it has to say, pictures the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from textual.geometry import NULL_OFFSET, NULL_SPACING, Region, Size
from textual.layout import ArrangeResult, Layout, WidgetPlacement
from textual.widget import Widget

from autograd_tui.tui.panels.panel import Panel

MIN_ROWS_ALONE = 8  # for each row that the phases have above a panel that is alone


class Room(NamedTuple):
    """What a kind of panel asks for, in rows of content; None for as many as there are to show."""

    least: int | None = None  # with fewer it is not shown
    wanted: int | None = None  # what it should have before others get more than that
    share: int = 0  # of the rows that no text needs; 0 for text
    limit: float = 1.0  # the part of a column above which a text gets only rows that nobody else takes
    optional: bool = False  # it is not shown before the others have what they want


class Wish(NamedTuple):
    """The rows that one panel asks for, its frame included."""

    least: int
    wanted: int
    most: int  # before pictures grow
    full: int  # with all that there is to show
    share: int = 0
    optional: bool = False


class PanelColumn(NamedTuple):
    """Panels one below the other. One listed in several goes to the first that has no other picture, else the last."""

    width: int  # in relation to the other columns
    panels: tuple[type[Panel], ...]


def share_rows(wishes: Sequence[Wish], height: int) -> list[int]:
    """Share `height` rows out to panels, those that matter most first; 0 for a panel that there is no room for.

    Each gets the least it asks for while there are rows, then what it wants; then come the optional ones. Texts get all
    that they can use, and pictures divide what is left.
    """
    rows = [0] * len(wishes)
    left = height
    for optional in (False, True):
        for index, wish in enumerate(wishes):
            if wish.optional is optional and wish.least <= left:
                rows[index] = wish.least
                left -= wish.least
                if optional:
                    left = _grow(rows, {index: wish.wanted}, left)
        left = _grow(rows, {index: wish.wanted for index, wish in enumerate(wishes) if rows[index]}, left)
    shown = {index: wish for index, wish in enumerate(wishes) if rows[index]}
    left = _grow(rows, {index: wish.most for index, wish in shown.items()}, left)
    pictures = {index: wish.share for index, wish in shown.items() if wish.share}
    shares = sum(pictures.values())
    for index, share in pictures.items():
        added = left * share // shares
        rows[index] += added
        left, shares = left - added, shares - share
    _grow(rows, {index: wish.full for index, wish in shown.items()}, left)
    return rows


def _grow(rows: list[int], goals: Mapping[int, int], left: int) -> int:
    """Add rows up to each panel's goal, in order; return how many are left."""
    for index, goal in goals.items():
        added = min(max(goal - rows[index], 0), left)
        rows[index] += added
        left -= added
    return left


class Arrangement(Layout):
    """Panels over the whole width, then columns of panels below them.

    rooms: what each kind of panel asks for, in the order of what matters most; a column of its own stands in it under
    `PanelColumn`, for the block of all columns.
    """

    name = "arrangement"

    def __init__(self, rooms: Mapping[type, Room], above: tuple[type[Panel], ...]) -> None:
        self._rooms, self._above = rooms, above
        self._importance = {kind: index for index, kind in enumerate(rooms)}
        self.columns: tuple[PanelColumn, ...] = ()
        self.block = rooms[PanelColumn]

    def arrange(self, parent: Widget, children: list[Widget], size: Size, greedy: bool = True) -> ArrangeResult:
        """Place the children that are displayed and that there is room for."""
        panels = {type(child): child for child in children if isinstance(child, Panel)}
        placements: list[WidgetPlacement] = []
        alone = next((panel for panel in panels.values() if panel.has_class("-zoomed")), None)
        above = [panels[kind] for kind in self._above if kind in panels]
        if alone is not None:
            rows = dict.fromkeys(above[:1], min(size.height // MIN_ROWS_ALONE, 2))
            y = self._place(above[:1], rows, size.region, placements)
            return [*placements, _placed(alone, Region(0, y, size.width, size.height - y))]
        columns = self._filled(panels)
        y = self._place(above, self._rows_above(above, columns, size), size.region, placements)
        x = 0
        weights = sum(width for width, _ in columns)
        for width, stack in columns:
            taken = (size.width - x) * width // weights
            weights -= width
            self._stack(stack, Region(x, y, taken, size.height - y), placements)
            x += taken
        return placements

    def _filled(self, panels: Mapping[type[Panel], Panel]) -> list[tuple[int, list[Panel]]]:
        """Return the columns in which something is displayed, with what stands in them."""
        listed = [kind for column in self.columns for kind in column.panels]
        has_picture = [
            any(kind in panels and self._rooms[kind].share for kind in column.panels if listed.count(kind) == 1)
            for column in self.columns
        ]
        home: dict[type[Panel], int] = {}
        for kind in dict.fromkeys(listed):
            indices = [index for index, column in enumerate(self.columns) if kind in column.panels]
            home[kind] = next((index for index in indices if not has_picture[index]), indices[-1])
        filled = [
            (column.width, [panels[kind] for kind in column.panels if kind in panels and home[kind] == index])
            for index, column in enumerate(self.columns)
        ]
        return [(width, stack) for width, stack in filled if stack]

    def _rows_above(
        self, above: Sequence[Panel], columns: Sequence[tuple[int, list[Panel]]], size: Size
    ) -> dict[Panel, int]:
        """Return the rows of the panels above the columns, for which there must be room too."""
        room = self.block
        rows: dict[Panel, int] = {}
        least, wanted = room.least or 0, room.wanted or 0
        block = Wish(least, wanted, wanted, wanted, share=1) if columns else Wish(0, 0, 0, 0)
        wishes: dict[Panel | None, Wish] = {panel: self._wish(panel, size.width, size.height) for panel in above}
        order: list[Panel | None] = sorted([*above, None], key=self._rank)
        heights = share_rows([wishes.get(each, block) for each in order], size.height)
        for each, height in zip(order, heights, strict=True):
            if each is not None:
                rows[each] = height
        return rows

    def _stack(self, panels: Sequence[Panel], region: Region, placements: list[WidgetPlacement]) -> int:
        """Place panels one below the other; return the row below the last."""
        order = sorted(panels, key=self._rank)
        wishes = [self._wish(panel, region.width, region.height) for panel in order]
        if not any(wish.share for wish in wishes):  # no picture would take the rows that are left
            rooms = [self._rooms[type(panel)] for panel in order]
            shares = [room.share if room.wanted == room.least else 0 for room in rooms]  # that of the console
            wishes = [wish._replace(share=share) for wish, share in zip(wishes, shares, strict=True)]
        rows = dict(zip(order, share_rows(wishes, region.height), strict=True))
        return self._place(panels, rows, region, placements)

    def _place(
        self,
        panels: Sequence[Panel],
        rows: Mapping[Panel, int],
        region: Region,
        placements: list[WidgetPlacement],
    ) -> int:
        y = region.y
        for panel in panels:
            if rows[panel]:
                placements.append(_placed(panel, Region(region.x, y, region.width, rows[panel])))
                y += rows[panel]
        return y

    def _rank(self, panel: Panel | None) -> int:
        return self._importance[PanelColumn if panel is None else type(panel)]

    def _wish(self, panel: Panel, width: int, height: int) -> Wish:
        """Return what a panel asks for in a column of so many columns and rows."""
        room, frame = self._rooms[type(panel)], panel.gutter.height
        panel.offered_width = columns = width - panel.gutter.width
        counted = room.wanted is None or not (room.share or room.wanted == room.least)
        full = panel.rows_wanted_in(columns) if counted or panel.is_text() else room.wanted or 0
        least = min(full if room.least is None else room.least, full)
        most = max(min(full, int(height * room.limit) - frame), least)
        wanted = most if room.wanted is None else min(max(room.wanted, least), most)
        return Wish(
            least + frame,
            wanted + frame,
            most + frame,
            full + frame,
            0 if panel.is_text() else room.share,
            room.optional,
        )


def _placed(panel: Panel, region: Region) -> WidgetPlacement:
    return WidgetPlacement(region, NULL_OFFSET, NULL_SPACING, panel)
