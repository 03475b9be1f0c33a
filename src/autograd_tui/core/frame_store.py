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
        """Return frame `index`, on any thread; None where it is not stored."""
        with self._changing:
            pair = self._frames.get(index)
        return pair and pair[0]

    def frames(self) -> list[Frame]:
        """Return all frames that are stored, oldest first; any thread may ask."""
        with self._changing:
            return [frame for frame, _ in self._frames.values()]

    def nearest(self, index: int, by: int) -> int:
        """Return the index of the first frame at or after `index` (`by` 1), at or before it (-1), or else the last.

        Any thread may ask.
        """
        with self._changing:
            indices = list(self._frames) or [index]
        position = bisect_left(indices, index) if by > 0 else bisect_right(indices, index) - 1
        return indices[min(max(position, 0), len(indices) - 1)]

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
    return sum(table.bytes for key, table in _tables(frame).items() if key not in shared)


def _tables(frame: Frame) -> dict[int, StatsTable]:
    """Return the tables that a frame holds, each once, by id."""
    tables = [frame.params, frame.grads.table, frame.optimizer_state, frame.buffers, frame.before, frame.loss_params]
    tables += [grads.table for grads in (frame.added_to, frame.last_grads) if grads is not None]
    return {id(table): table for table in tables if table is not None}


# The newest ones are kept. A log is small; a history takes up to 200 kB, and shares the sizes of parameters up to its
# fork.
MAX_BRANCHES = 100


@dataclass(frozen=True, slots=True)
class Branch:
    """A whole run from frame 0 on, as it was when another command was run from one of its frames; it never changes."""

    number: int  # in order of abandonment, from 1, and never given twice
    log: CommandLog
    history: History | None  # None where another program ran it: taking it runs it once more
    fork: int  # the last frame that it shared with what took its place
    last_loss: float | None = None  # where there is no history
    ends_as: Callable[[Frame], bool] | None = None  # there, whether a frame is the one that it ended with

    def __len__(self) -> int:
        return len(self.log)

    @property
    def loss(self) -> float | None:
        """The last loss that it measured."""
        return self.last_loss if self.history is None else self.history.last_loss


class Branches:
    """Branches in order of abandonment; the one that is returned to leaves the list."""

    def __init__(self) -> None:
        self._count = 0  # of all that were left
        self.newest: tuple[Branch, ...] = ()  # replaced, never changed: any thread may read it

    def leave(self, log: CommandLog, history: History | None, *, fork: int, loss: float | None = None) -> Branch | None:
        """Add and return the branch of a run whose frames after `fork` are about to be left, where there are any."""
        if len(log) <= fork:
            return None
        self._count += 1
        branch = Branch(self._count, log, history, fork, loss)
        self.newest = (*self.newest, branch)[-MAX_BRANCHES:]
        return branch

    def get(self, number: int) -> Branch:
        """Return a branch by its number; raises Refused where there is none, or none any more."""
        for branch in self.newest:
            if branch.number == number:
                return branch
        numbers = [str(branch.number) for branch in self.newest]
        listed = f"there is {' '.join(numbers[-8:])}" if numbers else "nothing has been rewound over yet"
        raise Refused(f"there is no branch {number}: {listed}.")

    def remove(self, branch: Branch) -> None:
        """Take a branch out: it is the present one now."""
        self.newest = tuple(each for each in self.newest if each is not branch)
