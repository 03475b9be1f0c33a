"""Which of many checkpoints is missed least, where there is no room for all.

Going back re-runs at most the gap behind a checkpoint. As long as gaps of 2.2 seconds of training cover the whole run,
every frame is within 2 seconds. A longer run of `n` checkpoints cannot have that: its gaps are an `n`-th of it on
average, and since nobody knows how long it will be, the widest is up to twice that. The newest is always near, and
every tenth lies where much has just run, in gaps that grow with their age. Once an old frame is there, checkpoints
taken on the way make its neighbours quick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log

QUICK = 2.2  # seconds of stepped training in a gap that is re-run within 2: most of it without frames
WIDEST = 2 * log(2)  # of the average gap: gaps that grow with the run, and are closed in pairs, lie between half of it
RECENT = 0.1  # of the checkpoints lie closer, for what has just run
FEW = 5  # where there are fewer, none is spared for what has just run


def apart(seconds: float, room: int) -> float:
    """Give the seconds of training from the last checkpoint to the next, in a run of so many seconds that fills `room`.

    A new one comes no sooner than some will lie apart that stay, or where they are many, so that the newest is near.
    """
    widest = WIDEST * seconds / room
    if room < FEW:
        return widest
    return 0.0 if widest <= QUICK else min(QUICK, widest / 2)


def most_crowded(at: Sequence[int], here: int, *, fixed: int, seconds: float) -> int | None:
    """Give the place whose loss leaves the gap that is least for its age.

    at: frames in order, with checkpoints at all but the one in place `here`, where training stands. The first `fixed`
    stay, and so does the last: None where none of the others is worth it. seconds: that one frame takes.
    """
    gaps = {place: at[place + 1] - at[place - 1] for place in range(fixed, len(at) - 1) if place != here}
    if not gaps:
        return None
    allowed = _allowed(WIDEST * at[-1] / (len(at) - 1), QUICK / max(seconds, 1e-9), room=len(at) - 1)

    def crowd(place: int) -> float:
        return gaps[place] / allowed(min(abs(at[here] - at[place]), at[-1] - at[place]))

    found = min(gaps, key=crowd)
    closed = at[here + 1] - at[here - 1] if here < len(at) - 1 else gaps[found]  # on the way to an old frame
    return found if gaps[found] <= closed else None  # no gap is closed by opening a larger one


def _allowed(widest: float, quick: float, *, room: int) -> Callable[[float], float]:
    """Give how wide a gap may be by its age, all in frames: from `quick` up to `widest`, or the same for all."""
    spared = RECENT * room
    if spared < 1 or widest <= quick:
        return lambda age: 1.0
    steep = (log(widest / quick) + 1) / spared  # gaps of `steep` times their age: so many fit between the two
    return lambda age: min(max(steep * age, quick), widest)
