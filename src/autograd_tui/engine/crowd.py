"""Which of many checkpoints is missed least, where there is no room for all.

Going back re-runs at most the gap behind a checkpoint. As long as gaps of 2.2 seconds of training cover the whole run,
the oldest ones are widened to that, and every frame is within 2 seconds. A longer run cannot have that: 1 GiB holds
11 checkpoints of resnet18 with momentum, 94 MB each, whose quick gaps cover some 20 seconds of training. From then on
gaps grow with their age: the newest frames stay within 2 seconds, and a frame of `t` seconds ago takes at most 3 `t`
in a run of an hour (with room for twice as many, at most `t`). Once one is there, checkpoints taken on the way make
its neighbours quick.
"""

from __future__ import annotations

from collections.abc import Sequence

QUICK = 2.2  # seconds of stepped training in a gap that is re-run within 2: most of it without frames


def most_crowded(at: Sequence[int], here: int, *, fixed: int, seconds: float) -> int | None:
    """Give the oldest place whose loss leaves a quick gap, or else that whose gap is least for its age.

    at: frames in order, with checkpoints at all but the one in place `here`, where training stands. The first `fixed`
    stay, and so does the last: None where none of the others is worth it. seconds: that one frame takes.
    """
    gaps = {place: at[place + 1] - at[place - 1] for place in range(fixed, len(at) - 1) if place != here}
    if not gaps:
        return None
    oldest = next((place for place, gap in gaps.items() if gap * seconds <= QUICK), None)
    if oldest is not None:
        return oldest

    def crowd(place: int) -> float:
        age = min(abs(at[here] - at[place]), at[-1] - at[place])
        return gaps[place] / max(age, 1)

    found = min(gaps, key=crowd)
    closed = at[here + 1] - at[here - 1] if here < len(at) - 1 else gaps[found]  # on the way to an old frame
    return found if gaps[found] <= closed else None  # no gap is closed by opening a larger one
