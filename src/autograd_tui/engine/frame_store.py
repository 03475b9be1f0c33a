"""The newest frames, whole, within a byte budget."""

from __future__ import annotations

from collections import deque

from autograd_tui.engine.frame import Frame
from autograd_tui.engine.stats_table import StatsTable

BUDGET = 64 << 20  # bytes
BARE_FRAME = 600  # bytes of a frame without tables, about


class FrameStore:
    """Frames by index; the oldest are let go when the budget is spent, and `get` then gives None."""

    def __init__(self, first: Frame, *, budget: int = BUDGET) -> None:
        self._budget = budget
        self._frames: deque[tuple[Frame, int]] = deque()
        self._bytes = 0
        self.append(first)

    @property
    def newest(self) -> Frame:
        return self._frames[-1][0]

    @property
    def oldest(self) -> Frame:
        return self._frames[0][0]

    def append(self, frame: Frame) -> None:
        """Add the newest frame."""
        size = BARE_FRAME + _own_bytes(frame, self.newest if self._frames else None)
        self._frames.append((frame, size))
        self._bytes += size
        while self._bytes > self._budget and len(self._frames) > 1:
            self._bytes -= self._frames.popleft()[1]

    def get(self, index: int) -> Frame | None:
        """Give frame `index`; None where it has been let go or has not come yet."""
        place = index - self.oldest.index
        return self._frames[place][0] if 0 <= place < len(self._frames) else None

    def forget_after(self, frame: Frame) -> None:
        """Drop the frames after `frame`, which is then the newest."""
        while self._frames and self.newest.index >= frame.index:
            self._bytes -= self._frames.pop()[1]
        self.append(frame)


def _own_bytes(frame: Frame, previous: Frame | None) -> int:
    """Count the bytes of the tables that the frame before does not share."""

    def tables(of: Frame) -> list[StatsTable]:
        return [of.params, of.grads.table, of.optimizer_state, of.buffers]

    shared = {id(table) for table in tables(previous)} if previous else set()
    return sum(table.numbers.itemsize * len(table.numbers) for table in tables(frame) if id(table) not in shared)
