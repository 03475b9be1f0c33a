"""Which checkpoints are kept: close enough to be quick, few enough to be cheap."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from time import perf_counter

from autograd_tui.engine.checkpoint import Checkpoint
from autograd_tui.engine.trainer import Trainer

SPACING = 0.5  # seconds of training between checkpoints, so that going back re-runs no more than that
SHARE = 0.02  # of the run's time that checkpoints may cost
BUDGET = 1 << 30  # bytes
MOST = 600  # of a small model: no more than a second apart in a run of ten minutes


class CheckpointLine:
    """Checkpoints by frame index, thinner towards the past once they exceed the budget.

    Small ones do not; of those there are at most so many, and they lie evenly.
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        spacing: float = SPACING,
        share: float = SHARE,
        budget: int = BUDGET,
        most: int = MOST,
    ) -> None:
        self._trainer = trainer
        self._spacing, self._share, self._budget, self._most = spacing, share, budget, most
        self._recycled: Checkpoint | None = None
        self._cost = 0.0  # seconds, of the last one
        self._since = 0.0  # seconds of training since the last one
        self._kept: list[Checkpoint] = []
        self._kept.append(self._take())
        self._bytes = self._kept[0].bytes

    def __len__(self) -> int:
        return len(self._kept)

    def spend(self, seconds: float) -> None:
        """Take note of time spent in training."""
        self._since += seconds

    def take_if_due(self) -> Checkpoint | None:
        """Take a checkpoint where the last one is long enough ago; `keep` it once its forward has succeeded."""
        if self._since < max(self._spacing, self._cost / self._share):
            return None
        return self._take()

    def keep(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint that a forward has followed, and drop what exceeds the budget."""
        self._since = 0.0
        self._kept.append(checkpoint)
        self._bytes += checkpoint.bytes
        while len(self._kept) > 2 and self._bytes > self._budget:
            self._let_go(self._least_missed())
        if len(self._kept) > self._most:
            self._let_go(self._most_crowded())

    def drop(self, checkpoint: Checkpoint) -> None:
        """Give up a checkpoint whose forward raised: the graph of the forward before it is still in use."""
        self._recycled = checkpoint

    def forget_after(self, index: int) -> None:
        """Drop the checkpoints of frame `index` and later: what follows them now may be no forward."""
        while len(self._kept) > 1 and self._kept[-1].frame.index >= index:
            self._let_go(len(self._kept) - 1)

    def before(self, index: int) -> Checkpoint:
        """Give the checkpoint to start from, to arrive at frame `index` with its graph."""
        place = bisect_left(self._kept, index, key=lambda each: each.frame.index)
        return self._kept[max(place - 1, 0)]

    def _take(self) -> Checkpoint:
        started = perf_counter()
        checkpoint = self._trainer.checkpoint(self._recycled)
        if self._kept:
            checkpoint = _sharing(checkpoint, self._kept[-1])
        self._cost, self._recycled = perf_counter() - started, None
        return checkpoint

    def _let_go(self, place: int) -> None:
        self._recycled = self._kept.pop(place)
        self._bytes -= self._recycled.bytes

    def _least_missed(self) -> int:
        """Find the place whose loss leaves the smallest gap for its age; the first and the newest stay."""
        at = [each.frame.index for each in self._kept]
        return min(range(1, len(at) - 1), key=lambda i: (at[i + 1] - at[i - 1]) / (at[-1] - at[i]))

    def _most_crowded(self) -> int:
        """Find the place whose loss leaves the smallest gap; the first and the newest stay."""
        at = [each.frame.index for each in self._kept]
        return min(range(1, len(at) - 1), key=lambda i: at[i + 1] - at[i - 1])


def _sharing(checkpoint: Checkpoint, last: Checkpoint) -> Checkpoint:
    """Give a checkpoint that shares random states with the last one: 35 kB, of which most models use nothing."""
    mark = checkpoint.mark
    if mark.foreign.same(last.mark.foreign):
        mark = replace(mark, foreign=last.mark.foreign)
    if mark.same(last.mark):
        mark = last.mark if mark.foreign is last.mark.foreign else replace(mark, torch=last.mark.torch)
    return replace(checkpoint, mark=mark)
