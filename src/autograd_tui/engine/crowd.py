"""Which of many checkpoints is missed least, where there is no room for all.

Going back re-runs at most the gap behind a checkpoint. As long as gaps of 1.5 seconds of training cover the whole run,
the smallest two neighbours are merged, and every frame is within 2 seconds. A longer run cannot have that: 1 GiB holds
11 checkpoints of resnet18 with momentum, 94 MB each, whose quick gaps cover some 16 seconds of training. From then on
gaps grow with their age: the newest frames stay within 2 seconds, and a frame of `t` seconds ago takes at most 3 `t`
in a run of an hour (with room for twice as many, at most `t`). Once one is there, checkpoints taken on the way make
its neighbours quick.
"""

from __future__ import annotations

from collections.abc import Sequence

QUICK = 1.5  # seconds of training in a gap that is re-run within 2: restoring and making frames take the rest


def most_crowded(at: Sequence[int], here: int, *, fixed: int, seconds: float) -> int | None:
    """Give the place whose loss leaves the least gap, or the least for its age where that gap is no longer quick.

    at: frames in order, with checkpoints at all but the one in place `here`, where training stands. The first `fixed`
    stay, and so does the last: None where there are no others. seconds: that one frame takes.
    """
    gaps = {place: at[place + 1] - at[place - 1] for place in range(fixed, len(at) - 1) if place != here}
    if not gaps:
        return None
    tightest = min(gaps, key=lambda place: gaps[place])
    if gaps[tightest] * seconds <= QUICK:
        return tightest

    def crowd(place: int) -> float:
        age = min(abs(at[here] - at[place]), at[-1] - at[place])
        return gaps[place] / max(age, 1)

    return min(gaps, key=crowd)
