"""Which screens of a long run a page keeps."""

from __future__ import annotations

from collections.abc import Sequence

from autograd_tui.engine.values.recording import Recording

MOST = 300
NEWEST = 8


def kept_screens(recording: Recording, *, most: int = MOST) -> list[int]:
    """Give frames: the first and the newest, each error and setting as far as they fit, and some between."""
    total = len(recording)
    if total < most:
        return list(range(total + 1))
    marked = [index for index, step in enumerate(recording, start=1) if step.raised or step.command.phase is None]
    found = {*range(most // 3), *range(total - NEWEST + 1, total + 1), *_spread(marked, most // 3)}
    between = [index for index in range(most // 3, total) if index not in found]
    return sorted(found | set(_spread(between, most - len(found))))


def left_out(recording: Recording, kept: Sequence[int]) -> str:
    """Say in a sentence what is not there; "" where all is."""
    if len(kept) > len(recording):
        return ""
    return (
        f"{len(kept)} of {len(recording) + 1:,} screens are kept: the first ones, the last ones, "
        "errors and settings, and some between."
    )


def _spread(places: Sequence[int], most: int) -> Sequence[int]:
    """Take so many of them, evenly."""
    if len(places) <= most:
        return places
    return [places[each * len(places) // most] for each in range(most)]
