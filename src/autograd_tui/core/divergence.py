"""Divergence: where a frame that is computed again differs from the first time."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History
from autograd_tui.core.tensor_stats import StatsTable, TensorStats


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first frame that differs, and the number that shows it."""

    index: int
    what: str  # "loss", "parameter w", "buffer count"; "" where no number differs
    before: float | None = None
    now: float | None = None


class ReplayChecker:
    """Holds what a re-run makes against what is known of the first time; `first` is where they part, if anywhere."""

    def __init__(self, stored: Callable[[int], Frame | None], history: History) -> None:
        self._stored, self._history = stored, history
        self.first: Divergence | None = None

    def see(self, frame: Frame) -> None:
        """Compare one frame; of one that is not stored any more, the loss alone where it is known."""
        if self.first is not None:
            return
        stored = self._stored(frame.index)
        if stored is not None:
            self.first = None if stored.same(frame) else _between(stored, frame)
        elif frame.phase is Phase.FORWARD and frame.loss is not None:
            self.see_losses(frame.index, array("d", [frame.loss]))

    def see_losses(self, index: int, losses: array[float]) -> None:
        """Compare the losses of whole iterations without frames, the first of them measured by frame `index`."""
        known = self._history.loss
        place, end = bisect_left(known.indices, index), index + len(Phase) * len(losses)
        while self.first is None and place < len(known) and known.indices[place] < end:
            which, off = divmod(known.indices[place] - index, len(Phase))
            if not off and not _equal(known.values[place], losses[which]):
                self.first = Divergence(known.indices[place], "loss", known.values[place], losses[which])
            place += 1


class RerunChecker(ReplayChecker):
    """Takes down what the frames after `after` bring, of a run that this program sees for the first time."""

    def __init__(self, stored: Callable[[int], Frame | None], history: History, *, after: int) -> None:
        super().__init__(stored, history)
        self._after = after

    def see(self, frame: Frame) -> None:
        """Compare a frame that is known, or take it down."""
        if frame.index <= self._after:
            super().see(frame)
        else:
            self._history.append(frame)


def _between(stored: Frame, frame: Frame) -> Divergence:
    """Name the number that differs: the loss before all, else of each kind of tensor the one furthest apart."""
    if not _equal(stored.loss, frame.loss):
        return Divergence(frame.index, "loss", stored.loss, frame.loss)
    kinds = (
        ("parameter", stored.params, frame.params),
        ("gradient of", stored.grads.table, frame.grads.table),
        ("buffer", stored.buffers, frame.buffers),
        ("state", stored.optimizer_state, frame.optimizer_state),
    )
    found = (_furthest(frame.index, *kind) for kind in kinds)
    return next((difference for difference in found if difference), Divergence(frame.index, ""))


def _furthest(index: int, kind: str, before: StatsTable, now: StatsTable) -> Divergence | None:
    if before == now:
        return None
    known = {row.name: row for row in before}
    pairs = [
        (f"{kind} {row.name}", *pair)
        for row in now
        if row.name in known
        for pair in _numbers(known[row.name], row)
        if not _equal(*pair)
    ]
    if not pairs:
        return Divergence(index, f"{kind}s".replace(" ofs", "s"))
    return Divergence(index, *max(pairs, key=lambda pair: abs(pair[1] - pair[2])))


def _numbers(before: TensorStats, now: TensorStats) -> Iterator[tuple[float, float]]:
    """Pair what two rows hold: each value where all are known, else norm, mean and the like."""
    if before.values is not None and now.values is not None:
        yield from zip(before.values, now.values, strict=False)
        return
    for field in fields(now):
        pair = getattr(before, field.name), getattr(now, field.name)
        if all(isinstance(each, float) for each in pair):
            yield pair


def _equal(one: float | None, other: float | None) -> bool:
    return one == other or (one != one and other != other)
