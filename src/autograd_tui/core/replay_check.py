"""Frames compared to the bit: where one that is computed again differs, and since when a run changes nothing."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History, Series
from autograd_tui.core.tensor_stats import ROW_WIDTH, StatsTable, TensorStats

MIN_ITERATIONS = 100  # in which nothing changes, before a run is said to stand still


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first frame that differs, and the number that shows it."""

    index: int
    what: str  # "loss", "parameter w", "buffer count"; "" where no number differs
    before: float | None = None
    now: float | None = None


class ReplayChecker:
    """Compares frames that are computed again with what is stored of the first time.

    `divergence` is the first one, if any.
    """

    def __init__(self, stored: Callable[[int], Frame | None], history: History) -> None:
        self._stored, self._history = stored, history
        self.divergence: Divergence | None = None

    def check(self, frame: Frame) -> None:
        """Compare one frame; of one that is not stored any more, the loss alone where it is known."""
        if self.divergence is not None:
            return
        stored = self._stored(frame.index)
        if stored is not None:
            self.divergence = None if stored.same(frame) else _divergence(stored, frame)
        elif frame.phase is Phase.FORWARD and frame.loss is not None:
            self.check_losses(frame.index, array("d", [frame.loss]))

    def check_losses(self, index: int, losses: array[float]) -> None:
        """Compare the losses of whole iterations without frames, the first of them measured by frame `index`."""
        if self.divergence is not None:
            return
        series = self._history.loss
        start, end = (bisect_left(series.indices, each) for each in (index, index + len(Phase) * len(losses)))
        for frame, before in zip(series.indices[start:end], series.values[start:end], strict=True):
            iteration, phase = divmod(frame - index, len(Phase))
            if not phase and not _equal(before, losses[iteration]):
                self.divergence = Divergence(frame, "loss", before, losses[iteration])
                return


class RerunChecker(ReplayChecker):
    """Adds the frames after `after` to the history, of a branch that this program computes for the first time."""

    def __init__(self, stored: Callable[[int], Frame | None], history: History, *, after: int) -> None:
        super().__init__(stored, history)
        self._after = after

    def check(self, frame: Frame) -> None:
        """Compare a frame that is stored, or add it to the history."""
        if frame.index <= self._after:
            super().check(frame)
        else:
            self._history.append(frame)


def _divergence(stored: Frame, frame: Frame) -> Divergence:
    """Return the number that differs: the loss first, else of each kind of tensor the one furthest apart."""
    if not _equal(stored.loss, frame.loss):
        return Divergence(frame.index, "loss", stored.loss, frame.loss)
    kinds = (
        ("parameter", stored.params, frame.params),
        ("gradient of", stored.grads.table, frame.grads.table),
        ("buffer", stored.buffers, frame.buffers),
        ("state", stored.optimizer_state, frame.optimizer_state),
    )
    divergences = (_furthest(frame.index, *kind) for kind in kinds)
    return next((each for each in divergences if each), Divergence(frame.index, ""))


def _furthest(index: int, kind: str, before: StatsTable, now: StatsTable) -> Divergence | None:
    if before == now:
        return None
    rows = {row.name: row for row in before}
    pairs = [
        (f"{kind} {row.name}", *pair)
        for row in now
        if row.name in rows
        for pair in _numbers(rows[row.name], row)
        if not _equal(*pair)
    ]
    if not pairs:
        return Divergence(index, f"{kind}s".replace(" ofs", "s"))
    return Divergence(index, *max(pairs, key=lambda pair: abs(pair[1] - pair[2])))


def _numbers(before: TensorStats, now: TensorStats) -> Iterator[tuple[float, float]]:
    """Yield pairs of what two rows hold: each value where all are known, else norm, mean and the like."""
    if before.values is not None and now.values is not None:
        yield from zip(before.values, now.values, strict=False)
        return
    for field in fields(now):
        pair = getattr(before, field.name), getattr(now, field.name)
        if all(isinstance(each, float) for each in pair):
            yield pair


def _equal(one: float | None, other: float | None) -> bool:
    return one == other or (one != one and other != other)


class Stillness:
    """Notes since when the frames of a run, each at the end of an iteration, have been the same to the bit.

    The same are: parameters, optimizer state and buffers but for counters, learning rates, the batch, and each loss
    in between. So warm-up from a learning rate of 0, a velocity that dies away, dropout and data that change are no
    standstill. Of a tensor above 1,024 values its norm, least and greatest value are compared.
    """

    def __init__(self) -> None:
        self._since: Frame | None = None

    def iterations(self, frame: Frame, losses: Series) -> int:
        """Return for how many iterations nothing has changed, 0 where they are fewer than MIN_ITERATIONS."""
        ends_iteration = frame.phase is Phase.ZERO_GRAD or (frame.phase is Phase.FORWARD and frame.graph == "none")
        if not ends_iteration:
            return 0
        since = self._since
        if since is None or since.index >= frame.index or not _same(since, frame, losses):
            self._since = frame
            return 0
        length = len(Phase) if frame.phase is Phase.ZERO_GRAD else 1
        count = (frame.index - since.index) // length if frame.script is None else frame.iteration - since.iteration
        return count if count >= MIN_ITERATIONS else 0


def _same(one: Frame, other: Frame, losses: Series) -> bool:
    """Return whether training stands at `other` exactly where it stood at `one`, and measured the same loss between."""
    fields = ("phase", "optimizer", "learning_rates", "frozen", "inputs", "targets")
    return (
        one.loss is not None
        and all(getattr(one, field) == getattr(other, field) for field in fields)
        and all(_equal(one.loss, loss) for loss in losses.values[bisect_right(losses.indices, one.index) :])
        and _same_tables(one.params, other.params)
        and _same_tables(one.optimizer_state, other.optimizer_state, counter="step")
        and _same_tables(one.buffers, other.buffers, counter="num_batches_tracked")
    )


def _same_tables(one: StatsTable, other: StatsTable, *, counter: str = "") -> bool:
    """Return whether two tables hold the same numbers; one NaN is as good as another, whatever its bits.

    counter: the last part of names whose tensors rise with each iteration, and move nothing.
    """
    if one.layout != other.layout:
        return False
    rows = zip(range(0, len(one.numbers), ROW_WIDTH), one.layout.names, strict=True)
    return one == other or all(
        all(map(_equal, one.numbers[start : start + ROW_WIDTH], other.numbers[start : start + ROW_WIDTH]))
        for start, name in rows
        if name.rpartition(".")[2] != (counter or None)
    )
