"""Which checkpoints are kept: close enough to rewind quickly, few enough to stay within the memory budget."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from math import log
from time import perf_counter

from autograd_tui.core.run_config import DEFAULT_MEMORY, size_in_words
from autograd_tui.engine.training.checkpoint import Checkpoint, can_take_checkpoint, checkpoint_size
from autograd_tui.engine.training.trainer import Trainer

QUICK_GAP = 2.2  # seconds of stepped training in a gap that is re-run within 2: most of it without frames
# In average gaps: those that grow with the run, and are closed in pairs, lie between half of it and this.
WIDEST_GAP = 2 * log(2)
RECENT_SHARE = 0.1  # of the checkpoints lie closer, for what has just run
MIN_FOR_RECENT = 5  # where there are fewer, none is spared for what has just run


def min_spacing(seconds: float, room: int) -> float:
    """Return the least seconds of training from the last checkpoint to the next, in a run that fills `room`.

    seconds: of training so far. room: the number of checkpoints. A new one comes no sooner than those that stay will
    lie apart; where they are many, soon enough that the newest is near.
    """
    widest = WIDEST_GAP * seconds / room
    if room < MIN_FOR_RECENT:
        return widest
    return 0.0 if widest <= QUICK_GAP else min(QUICK_GAP, widest / 2)


def index_to_evict(at: Sequence[int], here: int, *, fixed: int, seconds: float) -> int | None:
    """Return the index of the checkpoint to evict: its removal opens the smallest gap relative to its age.

    at: frames in order, with checkpoints at all but `at[here]`, where training stands. The first `fixed` stay, and so
    does the last: None where none of the others is worth it. seconds: that one frame takes.
    """
    gaps = {index: at[index + 1] - at[index - 1] for index in range(fixed, len(at) - 1) if index != here}
    if not gaps:
        return None
    allowed = _allowed(WIDEST_GAP * at[-1] / (len(at) - 1), QUICK_GAP / max(seconds, 1e-9), room=len(at) - 1)

    def relative_gap(index: int) -> float:
        return gaps[index] / allowed(min(abs(at[here] - at[index]), at[-1] - at[index]))

    evicted = min(gaps, key=relative_gap)
    closed = at[here + 1] - at[here - 1] if here < len(at) - 1 else gaps[evicted]  # on the way to an old frame
    return evicted if gaps[evicted] <= closed else None  # no gap is closed by opening a larger one


def _allowed(widest: float, quick: float, *, room: int) -> Callable[[float], float]:
    """Return how wide a gap may be by its age, all in frames: from `quick` up to `widest`, or the same for all."""
    spared = RECENT_SHARE * room
    if spared < 1 or widest <= quick:
        return lambda age: 1.0
    steep = (log(widest / quick) + 1) / spared  # gaps of `steep` times their age: so many fit between the two
    return lambda age: min(max(steep * age, quick), widest)


MIN_SPACING = 0.5  # seconds of training between checkpoints, so that going back re-runs no more than that
MAX_WAY_BACK = 3.0  # seconds of training behind the last one, from where a run may still have to go back to it
MAX_TIME_SHARE = 0.03  # of the run's time that checkpoints may cost
USUAL_COST_FACTOR = 4  # so many times less do they cost where going back is quick all the same
MAX_USUAL_SPACING = MAX_WAY_BACK / 2  # seconds for that: a run without frames goes on for another second at most
# Of an accelerator's memory that is free even when training needs most, for one more checkpoint there: the rest is for
# what training has not needed so far. Where it is too little, checkpoints go to the host.
MAX_DEVICE_SHARE = 0.25
MAX_BRANCH_SHARE = 0.25  # of the byte budget, for the last checkpoints of branches that were left
MAX_LEFT_BRANCHES = 100  # that have one
MAX_CHECKPOINTS = 600  # of a small model: no more than a second apart in a run of ten minutes


class CheckpointStore:
    """Checkpoints by frame index within a byte budget: at best the first, the newest and some between.

    There are at most `max_count` of them, and where there is no room for even the first, there are none.
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        spacing: float = MIN_SPACING,
        share: float = MAX_TIME_SHARE,
        budget: int = DEFAULT_MEMORY,
        max_count: int = MAX_CHECKPOINTS,
    ) -> None:
        self._trainer = trainer
        self._spacing, self._share, self._max_count = spacing, share, max_count
        self._whole = self._budget = budget
        self._may_use_device = trainer.state.accelerator is not None
        self._recycled: Checkpoint | None = None
        self._cost = 0.0  # seconds, of the last one
        self._since = 0.0  # seconds of training since the last one
        self._gap = 0.0  # how long that should be at least, now that not all have room
        self._frames, self._seconds = 0, 0.0  # of all training, for how long a frame takes
        self._checkpoints: list[Checkpoint] = []
        self._of_branches: dict[int, Checkpoint] = {}  # the last one of each branch that was left, by its number
        self._iteration_start: Checkpoint | None = None  # just before the last forward, beside the budget
        self._start_leads = False  # whether a forward starts there that did not raise
        self._start_restarts = 0  # of the trainer, when it was taken
        self._fixed = 1  # how many of them stay, from the first on
        self._size = checkpoint_size(trainer.state)  # of one, at first
        if self._makes_room():
            self._checkpoints.append(self._take())

    def __len__(self) -> int:
        return len(self._checkpoints)

    @property
    def warning(self) -> str | None:
        """What going back will cost where there is no room for even one."""
        if self._checkpoints:
            return None
        size, budget = size_in_words(self._size), size_in_words(self._budget).replace(" ", "")
        return f"no checkpoint of {size} fits into --memory {budget}: going back runs everything again from frame 0."

    @property
    def newest(self) -> Checkpoint | None:
        """The last one."""
        return self._checkpoints[-1] if self._checkpoints else None

    @property
    def is_near(self) -> bool:
        """Whether the last one is so near that going back to it, in case, takes little time."""
        newest = self.newest
        if newest is None:
            return False
        return (self._trainer.frame.index - newest.frame.index) * self._frame_seconds <= MAX_WAY_BACK

    @property
    def bytes(self) -> int:
        """The bytes of all checkpoints, those of branches that were left aside."""
        return sum(each.bytes for each in self._checkpoints)

    def spend(self, seconds: float, *, frames: int = 1) -> None:
        """Count time spent in training."""
        self._since += seconds
        self._seconds += seconds
        self._frames += frames

    def is_due(self, seconds: float = 0.0) -> bool:
        """Return whether the last one will be long enough ago in so many seconds."""
        least = self._cost / self._share
        spacing = max(self._spacing, least, min(least * USUAL_COST_FACTOR, MAX_USUAL_SPACING), self._gap)
        return bool(self._checkpoints) and self._since + seconds >= spacing

    def take_if_due(self) -> Checkpoint | None:
        """Take a checkpoint where the last one is long enough ago; `keep` it once its forward has succeeded."""
        here = self._trainer.frame.index
        before = self._checkpoints[: self._insertion_index(here)][-1:]
        if (
            not self.is_due()
            or any(each.frame.index == here for each in before)
            or not can_take_checkpoint(self._trainer.state)
        ):
            return None
        if self._makes_room():
            return self._take()
        self._since = 0.0  # looking for room takes time too
        return None

    def take_iteration_start(self) -> Checkpoint | None:
        """Take a checkpoint beside the budget, into the memory of the last iteration start, which it replaces."""
        if not can_take_checkpoint(self._trainer.state):
            return None
        last, self._iteration_start = self._iteration_start, None
        return self._trainer.checkpoint(last, on_device=self._has_room_on_device(last))

    def keep_iteration_start(self, checkpoint: Checkpoint, *, raised: bool) -> None:
        """Keep the start of the latest iteration beside the budget; `raised`: its forward did, so none starts there."""
        self._iteration_start, self._start_leads, self._start_restarts = checkpoint, not raised, self._trainer.builds

    def drop_iteration_start(self) -> None:
        """Keep no iteration start any more."""
        self._iteration_start = None

    @property
    def iteration_start(self) -> Checkpoint | None:
        """The start of the latest iteration, if it is of the model that is there now."""
        return self._iteration_start if self._start_restarts == self._trainer.builds else None

    def keep(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint that a forward has followed."""
        self._since = 0.0
        self._checkpoints.insert(self._insertion_index(checkpoint.frame.index), checkpoint)

    def drop(self, checkpoint: Checkpoint) -> None:
        """Drop a checkpoint whose forward raised: the graph of the forward before it is still in use."""
        self._recycled = checkpoint

    def drop_from(self, index: int) -> None:
        """Drop the checkpoints of frame `index` and later: what follows them now may be no forward."""
        while len(self._checkpoints) > 1 and self._checkpoints[-1].frame.index >= index:
            dropped = self._checkpoints.pop()
            if all(dropped is not each for each in self._of_branches.values()):
                self._recycled = dropped
        if self._iteration_start is not None and self._iteration_start.frame.index >= index:
            self._iteration_start = None

    def before(self, index: int) -> Checkpoint | None:
        """Return the checkpoint to start from, to arrive at frame `index` with its graph; None where none are kept."""
        position = bisect_left(self._checkpoints, index, key=lambda each: each.frame.index)
        nearest = self._checkpoints[max(position - 1, 0)] if self._checkpoints else None
        start = self.iteration_start if self._start_leads else None
        if start is None or start.frame.index >= index:
            return nearest
        return start if nearest is None or nearest.frame.index < start.frame.index else nearest

    def state_at(self, index: int) -> Checkpoint | None:
        """Return one of frame `index`, even if its forward raised: a state, but no start for other frames."""
        start = self.iteration_start
        return start if start is not None and start.frame.index == index else self.at(index)

    def at(self, index: int) -> Checkpoint | None:
        """Return one of frame `index` itself, for a forward from there; None where none is kept."""
        position = bisect_left(self._checkpoints, index, key=lambda each: each.frame.index)
        start = [self.iteration_start] if self.iteration_start and self._start_leads else []
        candidates = [*self._checkpoints[position : position + 1], *start]
        return next((each for each in candidates if each.frame.index == index), None)

    def keep_of_branch(self, number: int, checkpoint: Checkpoint | None, *, fork: int) -> None:
        """Keep the last checkpoint of a branch that is being left, if that lies after frame `fork`.

        Those of the branches that were left first make room for it.
        """
        if checkpoint is None or checkpoint.frame.index <= fork:
            return
        self._of_branches[number] = checkpoint
        while self._branch_bytes > MAX_BRANCH_SHARE * self._whole or len(self._of_branches) > MAX_LEFT_BRANCHES:
            del self._of_branches[min(self._of_branches)]

    def fork(self, index: int, *, branch: int) -> CheckpointStore:
        """Return a store of those before frame `index` and the last of a branch, to grow beside this one.

        It grows in the room that is left. One of the two is dropped in the end; if it is this one, `take_over` gives
        the other all the room.
        """
        other = copy(self)
        other._recycled = self._recycled = None
        if self._iteration_start is not None and self._iteration_start.frame.index >= index:
            other._iteration_start = None
        count = bisect_left(self._checkpoints, index, key=lambda each: each.frame.index)
        other._checkpoints = self._checkpoints[: max(count, 1)]
        if other._checkpoints and branch in self._of_branches:
            other._checkpoints.append(self._of_branches[branch])
        other._fixed = len(other._checkpoints)
        other._budget = self._whole - self.bytes + other.bytes
        return other

    def take_over(self, branch: int) -> None:
        """Use the whole budget, now that the store is gone that this one was forked from to return to a branch."""
        self._fixed, self._budget = 1, self._whole
        self._of_branches.pop(branch, None)

    @property
    def _branch_bytes(self) -> int:
        return sum(each.bytes for each in self._of_branches.values())

    def _take(self) -> Checkpoint:
        started = perf_counter()
        on_device = self._has_room_on_device(self._recycled)
        checkpoint = self._trainer.checkpoint(self._recycled, on_device=on_device)
        if self._checkpoints:
            checkpoint = _sharing(checkpoint, self._checkpoints[-1])
        self._cost, self._recycled = perf_counter() - started, None
        return checkpoint

    def leave_device(self) -> bool:
        """Move all checkpoints to the host for good, since training has run out of memory; return whether any was."""
        self._may_use_device, self._recycled = False, None
        everywhere = [*self._checkpoints, *self._of_branches.values()]
        if self._iteration_start is not None:
            everywhere.append(self._iteration_start)
        moved: dict[int, Checkpoint] = {}
        is_any_there = False
        for each in everywhere:
            is_any_there |= each.is_on_device
            moved[id(each)] = moved.get(id(each)) or each.on_host()
        self._checkpoints = [moved[id(each)] for each in self._checkpoints]
        self._of_branches = {number: moved[id(each)] for number, each in self._of_branches.items()}
        if self._iteration_start is not None:
            self._iteration_start = moved[id(self._iteration_start)]
        return is_any_there

    def _has_room_on_device(self, recycled: Checkpoint | None) -> bool:
        """Return whether a checkpoint may be taken on the accelerator; a recycled one there has room already."""
        accelerator = self._trainer.state.accelerator
        if accelerator is None or not self._may_use_device:
            return False
        if recycled is not None and recycled.is_on_device:
            return True
        return checkpoint_size(self._trainer.state) <= MAX_DEVICE_SHARE * accelerator.spare_memory()

    def _makes_room(self) -> bool:
        """Drop what is in the way of one more within the budget; return whether it fits."""
        room = self._budget - checkpoint_size(self._trainer.state) - self._branch_bytes
        if room < sum(each.bytes for each in self._checkpoints[: self._fixed]):
            return False
        self._gap = 0.0
        while self.bytes > room or len(self._checkpoints) >= self._max_count:
            evicted = self._index_to_evict()
            if evicted is None:
                return False
            self._recycled = self._checkpoints.pop(evicted)
            self._gap = min_spacing(self._checkpoints[-1].frame.index * self._frame_seconds, len(self._checkpoints) + 1)
        return True

    def _index_to_evict(self) -> int | None:
        """Return the index of the one that is missed least once there is one where the trainer stands."""
        here, at = self._trainer.frame.index, [each.frame.index for each in self._checkpoints]
        position = self._insertion_index(here)
        at.insert(position, here)
        evicted = index_to_evict(at, position, fixed=self._fixed, seconds=self._frame_seconds)
        return evicted if evicted is None or evicted < position else evicted - 1

    @property
    def _frame_seconds(self) -> float:
        return self._seconds / max(self._frames, 1)

    def _insertion_index(self, index: int) -> int:
        return bisect_right(self._checkpoints, index, key=lambda each: each.frame.index)


def _sharing(checkpoint: Checkpoint, last: Checkpoint) -> Checkpoint:
    """Return a checkpoint that shares random states with the last one: 35 kB, of which most models use nothing."""
    mark = checkpoint.mark
    if mark.host_rng.same(last.mark.host_rng):
        mark = replace(mark, host_rng=last.mark.host_rng)
    if mark.same(last.mark):
        mark = replace(mark, torch=last.mark.torch)
    return replace(checkpoint, mark=mark)
