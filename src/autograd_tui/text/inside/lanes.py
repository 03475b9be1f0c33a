"""The lines of a graph: a row a node, and beside it the lanes that lead on to nodes further down."""

from __future__ import annotations

from collections.abc import Sequence

_CORNERS = {  # by what meets there: a lane from above, one that goes on below, a line to the left, one to the right
    (True, False, True, False): "╯",
    (True, False, False, True): "╰",
    (True, False, True, True): "┴",
    (False, True, True, False): "╮",
    (False, True, False, True): "╭",
    (False, True, True, True): "┬",
    (True, True, True, False): "┤",
    (True, True, False, True): "├",
    (True, True, True, True): "┼",
}


def lanes(below: Sequence[Sequence[int]], marks: Sequence[str]) -> list[tuple[str, str]]:
    """Draw each row's node with its lanes, and the lanes alone between it and the next row.

    below: for each row, those that lines lead to, all of them further down. The first goes straight on. marks: how each
    node is drawn.
    """
    waiting: list[int | None] = []  # the row that each lane leads to
    drawn = []
    for row, targets in enumerate(below):
        above = list(waiting)
        joined = {lane for lane, target in enumerate(waiting) if target == row}
        at = min(joined) if joined else _free(waiting)
        for lane in joined:
            waiting[lane] = None
        forked = _fork(waiting, at, targets)
        node = _row(above, waiting, at, joined - {at}, forked - {at}, marks[row])
        drawn.append((node, " ".join("│" if target is not None else " " for target in waiting)))
        while waiting and waiting[-1] is None:
            waiting.pop()
    return drawn


def _free(waiting: list[int | None]) -> int:
    if None not in waiting:
        waiting.append(None)
    return waiting.index(None)


def _fork(waiting: list[int | None], at: int, targets: Sequence[int]) -> set[int]:
    """Give each target a lane, the first the one of the node; tell which."""
    taken = set()
    for place, target in enumerate(dict.fromkeys(targets)):
        lane = _free(waiting) if place else at
        waiting[lane] = target
        taken.add(lane)
    return taken


def _row(
    above: list[int | None], after: list[int | None], at: int, joined: set[int], forked: set[int], mark: str
) -> str:
    """Draw one row: its node, the lanes that meet there, and those that pass by."""
    left, right = min({at} | joined | forked), max({at} | joined | forked)
    text = ""
    for lane in range(max(len(above), len(after))):
        inside = left <= lane <= right
        corner = _CORNERS.get((lane in joined, lane in forked, left < lane <= right, left <= lane < right))
        passing = lane < len(above) and above[lane] is not None
        text += mark if lane == at else corner or ("│" if passing else "─" if inside else " ")
        text += "─" if left <= lane < right else " "
    return text.rstrip()
