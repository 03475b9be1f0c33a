"""What drawing the frames of a run may cost: bytes to the terminal, and time for which the run holds still."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise

MAX_BYTES_PER_SECOND = 8_000  # so that a run can be watched over a slow line
EXPECTED_BYTES = 5_000  # of a frame, at least: those at the beginning of a run change much
MAX_DRAW_SHARE = 0.015  # of a run's time that drawing may take: both are Python, and one waits for the other
MAX_PAUSE = 1.0  # seconds between two frames, whatever they cost


@dataclass(frozen=True, slots=True)
class Spent:
    """What had been spent when a frame was about to be drawn."""

    moment: float  # by `monotonic`
    sent: int  # bytes to the terminal
    work: float  # seconds of the screen's thread


class DrawingBudget:
    """Says when the next frame of a run may be drawn, so that no second has too many bytes, nor drawing too much time.

    The next frame is expected to take as many bytes as the largest of the last ones.
    """

    def __init__(self) -> None:
        self._drawn: deque[Spent] = deque(maxlen=8)

    def add(self, spent: Spent) -> None:
        """Take note that a frame is drawn."""
        self._drawn.append(spent)

    def clear(self) -> None:
        """Let the next frame be drawn as soon as it comes."""
        self._drawn.clear()

    def pause(self, now: Spent, *, paced: bool) -> float:
        """Return the seconds to wait before a frame is drawn; 0 or less where it may be drawn at once.

        paced: whether the run waits by itself, and so loses nothing while a frame is drawn.
        """
        if not self._drawn:
            return 0.0
        last = self._drawn[-1]
        seconds = 0.0 if paced else min((now.work - last.work) / MAX_DRAW_SHARE, MAX_PAUSE)
        seconds += last.moment - now.moment
        sent = [*(each.sent for each in self._drawn), now.sent]
        expected = max(EXPECTED_BYTES, *(end - start for start, end in pairwise(sent)))
        if now.sent == last.sent:  # the last one is not on its way yet
            expected *= 2
        for each in self._drawn:
            rest = each.moment + MAX_PAUSE - now.moment
            if rest > 0 and now.sent - each.sent + expected > MAX_BYTES_PER_SECOND:
                seconds = max(seconds, rest)
        return seconds
