"""How fast a run goes: from one command a second to as many as there is time for."""

from __future__ import annotations

PACES: tuple[float | None, ...] = (1, 2, 5, 10, 20, 50, 100, None)  # commands a second; None: full speed


def faster(pace: float | None) -> float | None:
    """Give the next pace up."""
    return next((each for each in PACES if pace is not None and each is not None and each > pace), None)


def slower(pace: float | None) -> float | None:
    """Give the next pace down."""
    lower = [each for each in PACES if each is not None and (pace is None or each < pace)]
    return lower[-1] if lower else PACES[0]


def pace_in_words(pace: float | None) -> str:
    """Say it: "5 commands a second"."""
    if pace is None:
        return "full speed"
    return f"{pace:g} command{'s' * (pace != 1)} a second"
