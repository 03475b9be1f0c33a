"""Which rows of a long list are seen: the ones around the cursor."""

from __future__ import annotations

from autograd_tui.text.line import Line


def scrolled(top: int, wanted: range, *, count: int, room: int) -> int:
    """Give the first row to show of `count`: as near to `top` as lets the wanted ones be seen, the first above all."""
    if wanted:
        top = max(top, wanted.stop - room)
        top = min(top, wanted.start)
    return max(min(top, count - room), 0)


def more_line(top: int, bottom: int, count: int) -> Line:
    """Say how many rows lie above `top` and from `bottom` on: "↑ 3 more  ↓ 12 more"."""
    parts = [f"{arrow} {rows} more" for arrow, rows in (("↑", top), ("↓", count - bottom)) if rows]
    return [("   " + "   ".join(parts), "dim")]
