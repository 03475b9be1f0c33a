"""How fast runs go: the speeds that + and - choose from, and the pace at which a run begins."""

from __future__ import annotations

import math

SPEEDS: tuple[float | None, ...] = (1, 2, 5, 10, 20, 50, 100, None)  # commands a second; None: as many as it can
FIRST_PACE = 10.0  # iterations a second at which a run begins that is to be watched
PACE_GROWTH = 0.46  # iterations a second more with each iteration: the pace doubles in 1.5 seconds
SHOWN_PACES = (10, 20, 50)  # and these × 10, × 100, ...: a pace is said in steps, so that its words stand still


def faster(speed: float | None) -> float | None:
    """Return the next higher speed."""
    return next((each for each in SPEEDS if speed is not None and each is not None and each > speed), None)


def slower(speed: float | None) -> float | None:
    """Return the next lower speed, the lowest at the end."""
    lower = [each for each in SPEEDS if each is not None and (speed is None or each < speed)]
    return lower[-1] if lower else SPEEDS[0]


def speed_in_words(speed: float | None) -> str:
    """Return a speed as a reader says it: "5 commands a second"."""
    if speed is None:
        return "full speed"
    return f"{speed:g} command{'s' * (speed != 1)} a second"


def rising_pace(iteration: int) -> float:
    """Return how many iterations a second a run does behind this one, so that one sees it learn.

    It follows from the iteration alone: a run that is paused goes on at its pace, one from frame 0 begins slowly.
    """
    return FIRST_PACE + PACE_GROWTH * iteration


def iterations_between_frames(pace: float) -> int:
    """Return how many iterations a run at a pace does between two frames that are shown.

    The first ones are shown one by one, ten a second; a fast run shows four frames a second.
    """
    seconds = min(0.1 * math.pow(pace / FIRST_PACE, 0.2), 0.25)
    return max(round(pace * seconds), 1)


def pace_in_words(pace: float) -> str:
    """Return a pace as a reader says it, rounded down: "about 20 iterations a second"."""
    power = 1
    while pace >= SHOWN_PACES[0] * 10 * power:
        power *= 10
    shown = max(each * power for each in SHOWN_PACES if each * power <= max(pace, FIRST_PACE))
    return f"about {shown:,} iterations a second"
