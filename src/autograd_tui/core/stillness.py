"""Whether a run still changes anything: a fixed point of training, to the bit."""

from __future__ import annotations

import math
from bisect import bisect_right

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import Series
from autograd_tui.core.tensor_stats import ROW_WIDTH, StatsTable

MIN_ITERATIONS = 100  # in which nothing changes, before a run is said to stand still


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
        and all(_same_number(one.loss, loss) for loss in losses.values[bisect_right(losses.indices, one.index) :])
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
        all(map(_same_number, one.numbers[start : start + ROW_WIDTH], other.numbers[start : start + ROW_WIDTH]))
        for start, name in rows
        if name.rpartition(".")[2] != (counter or None)
    )


def _same_number(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
