"""What is stored of a run: its newest frames within a memory budget, and the branches that were rewound over."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History
from autograd_tui.core.tensor_stats import StatsTable

MAX_BYTES = 64 << 20  # bytes
MAX_FRAMES = 1000  # frames: older ones are soon made again
BARE_FRAME_BYTES = 1000  # bytes of a frame without tables, about


class FrameStore:
    """Frames by index, not all of a free run; the oldest are let go when the budget is spent, or there are too many."""

    def __init__(self, first: Frame, *, budget: int = MAX_BYTES, max_frames: int = MAX_FRAMES) -> None:
        self._budget, self._max_frames = budget, max_frames
        self._frames: OrderedDict[int, tuple[Frame, int]] = OrderedDict()
        self._bytes = 0
        self._changing = Lock()  # a screen looks at frames while others come
        self.append(first)

    @property
    def newest(self) -> Frame:
        return self._frames[next(reversed(self._frames))][0]

    @property
    def oldest(self) -> Frame:
        return self._frames[next(iter(self._frames))][0]

    def append(self, frame: Frame) -> None:
        """Add the newest frame."""
        size = BARE_FRAME_BYTES + _own_bytes(frame, self.newest if self._frames else None)
        with self._changing:
            self._frames[frame.index] = (frame, size)
            self._bytes += size
            while (self._bytes > self._budget or len(self._frames) > self._max_frames) and len(self._frames) > 1:
                self._bytes -= self._frames.popitem(last=False)[1][1]

    def get(self, index: int) -> Frame | None:
        """Give frame `index`, on any thread; None where there is none, or none any more."""
        with self._changing:
            kept = self._frames.get(index)
        return kept and kept[0]

    def nearest(self, index: int, by: int) -> int:
        """Give the index of the first frame at or after `index` (`by` 1), at or before it (-1), or else the last.

        Any thread may ask.
        """
        with self._changing:
            places = list(self._frames) or [index]
        at = bisect_left(places, index) if by > 0 else bisect_right(places, index) - 1
        return places[min(max(at, 0), len(places) - 1)]

    def truncate_to(self, frame: Frame) -> None:
        """Drop the frames after `frame`, which is then the newest."""
        self.truncate_after(frame.index - 1)
        self.append(frame)

    def truncate_after(self, index: int) -> None:
        """Drop the frames after frame `index`; the next one to be appended may be any later one."""
        with self._changing:
            while self._frames and self.newest.index > index:
                self._bytes -= self._frames.popitem()[1][1]


def _own_bytes(frame: Frame, previous: Frame | None) -> int:
    """Count the bytes of the tables that the frame before does not share."""
    shared = _tables(previous) if previous else {}
    own = [table.numbers for place, table in _tables(frame).items() if place not in shared]
    return sum(numbers.itemsize * len(numbers) for numbers in own)


def _tables(frame: Frame) -> dict[int, StatsTable]:
    """Give the tables that a frame holds, each once."""
    held = [frame.params, frame.grads.table, frame.optimizer_state, frame.buffers, frame.before, frame.loss_params]
    held += [grads.table for grads in (frame.added_to, frame.last_grads) if grads is not None]
    return {id(table): table for table in held if table is not None}


MAX_BRANCHES = 100  # the newest ones are kept; a log is small, a history up to 200 kB


@dataclass(frozen=True, slots=True)
class Branch:
    """A whole run from frame 0 on, as it was when another command was run from one of its frames; it never changes."""

    number: int  # in order of abandonment, from 1, and never given twice
    log: CommandLog
    history: History | None  # None where another program ran it: taking it runs it once more
    fork: int  # the last frame that it shared with what took its place
    told: float | None = None  # its last loss, where there is no history
    ends_as: Callable[[Frame], bool] | None = None  # there, whether a frame is the one that it ended with

    def __len__(self) -> int:
        return len(self.log)

    @property
    def loss(self) -> float | None:
        """Give the last loss that it measured."""
        return self.told if self.history is None else self.history.last_loss


class Branches:
    """Branches in order of abandonment; the one that is returned to leaves the list."""

    def __init__(self) -> None:
        self._left = 0  # by now
        self.kept: tuple[Branch, ...] = ()  # replaced, never changed: any thread may read it

    def leave(self, log: CommandLog, history: History | None, *, fork: int, told: float | None = None) -> Branch | None:
        """Keep a run whose frames after `fork` are about to be left, where there are any, as a branch; give it."""
        if len(log) <= fork:
            return None
        self._left += 1
        left = Branch(self._left, log, history, fork, told)
        self.kept = (*self.kept, left)[-MAX_BRANCHES:]
        return left

    def get(self, number: int) -> Branch:
        """Give a branch by its number; raises Refused where there is none, or none any more."""
        found = next((branch for branch in self.kept if branch.number == number), None)
        if found is None:
            numbers = [str(branch.number) for branch in self.kept]
            there = f"there is {' '.join(numbers[-8:])}" if numbers else "nothing has been rewound over yet"
            raise Refused(f"there is no branch {number}: {there}.")
        return found

    def remove(self, branch: Branch) -> None:
        """Take a branch out: it is the present one now."""
        self.kept = tuple(each for each in self.kept if each is not branch)
