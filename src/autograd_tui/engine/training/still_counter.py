"""Counts how long parameters have kept still in iterations without frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import SAMPLE_SIZE
from autograd_tui.core.watcher import ConditionMemory, is_unmoved, watched_for_stillness
from autograd_tui.core.watchpoint import Watchpoint
from autograd_tui.engine.training.stats_reader import draw_sample_indices, flat_in_memory

Memories = dict[Watchpoint, ConditionMemory]
PROBE_STRIDE = 32  # between those values of a sample that tell first whether a large parameter has moved


class StillCounter:
    """Counts how many steps in a row have left each parameter as it was, as far as its statistics show.

    Of a small one the count is exact; a large one may have been still no longer, since a sample alone is compared.
    With `probes` a few values of that sample are: once none of them has moved, the steps must be counted again without.
    """

    def __init__(
        self,
        params: Sequence[Tensor],
        armed: Sequence[Watchpoint],
        frame: Frame,
        memories: Memories,
        *,
        probes: bool = False,
    ) -> None:
        self._armed = [(each, watched_for_stillness(each, frame)) for each in armed]
        self._watched = sorted({index for _, indices in self._armed for index in indices})
        known = {each: memories[each].still if each in memories else {} for each in armed}
        self._at_start = {each: dict(counts) for each, counts in known.items()}
        self.holds_already = any(  # of a parameter that is watched no more, such as one that was frozen since
            count and count % each.times == 0 and index not in indices
            for each, indices in self._armed
            for index, count in known[each].items()
        )
        watched = [params[index] for index in self._watched]
        self._pieces = [compared_values(each, stride=PROBE_STRIDE if probes else 1) for each in watched]
        self._starts = np.cumsum([0, *(len(piece()) for piece in self._pieces[:-1])])
        self._exact = np.array([each.numel() <= SAMPLE_SIZE for each in watched], dtype=bool)
        self._first = self._starts[~self._exact]  # where the first value of each large one is, which is in no sample
        self._probed = ~self._exact if probes else None
        self.needs_samples = False  # since the probes of a parameter have not moved, and others may have
        self._unchanged = np.zeros(len(watched), dtype=np.int64)  # steps in a row, in this stretch
        self._is_any_unchanged = False
        self._steps = 0
        self._before = self.read().cpu().double().numpy()
        are_numbers = all(each.numel() == 1 and each.is_cpu for each in watched)
        self._numbers = watched if are_numbers else []  # whose values are read at the least cost
        self._numbers_before = self._before.tolist()

    def let_go(self) -> None:
        """Hold nothing of the model."""
        self._pieces, self._numbers = [], []

    def read(self) -> Tensor:
        """Return the values that are compared, (values,), on their device."""
        return torch.cat([piece() for piece in self._pieces]) if self._pieces else torch.zeros(0)

    def have_numbers_moved(self) -> bool:
        """Count a step and return True if all parameters are single numbers, and each has moved."""
        if not self._numbers:
            return False
        now = [each.item() for each in self._numbers]
        for value, before in zip(now, self._numbers_before, strict=True):
            if value == before:
                self._before = np.array(self._numbers_before)
                return False
        self._numbers_before = now
        self._steps += 1
        if self._is_any_unchanged:
            self._unchanged[:], self._is_any_unchanged = 0, False
        return True

    def may_hold_after_step(self, values: Tensor) -> bool:
        """Count a step that left these values; return whether some parameter may have been still for long enough."""
        if not self._pieces:
            return False
        now, before, self._steps = values.double().numpy(), self._before, self._steps + 1
        # As in statistics, infinity less infinity is no number, and so a move, as far as it is in a sample.
        moved, first = (now != before) | np.isinf(now), self._first
        moved[first] = (now[first] != before[first]) & ~(np.isnan(now[first]) & np.isnan(before[first]))
        changed = np.logical_or.reduceat(moved, self._starts)
        self._before = now
        self._numbers_before = now.tolist() if self._numbers else []
        self._unchanged = np.where(changed, 0, self._unchanged + 1)
        self._is_any_unchanged = not changed.all()
        if not self._is_any_unchanged:
            return False
        if self._probed is not None and (self._probed & ~changed).any():
            self.needs_samples = True
            return True
        self._exact &= ~np.logical_or.reduceat((now == 0) & (np.signbit(now) != np.signbit(before)), self._starts)
        return any(self._may_hold(watchpoint, indices) for watchpoint, indices in self._armed)

    def _may_hold(self, watchpoint: Watchpoint, indices: Sequence[int]) -> bool:
        counts = self.counts(watchpoint)
        for index in indices:
            unchanged = self._unchanged_of(index)
            if unchanged and (counts[index] % watchpoint.times == 0 or unchanged > watchpoint.times):
                return True
        return False

    def counts(self, watchpoint: Watchpoint) -> dict[int, int]:
        """Return for each parameter for how many steps it may have been still at most, 0 where it was not."""
        indices = next(indices for each, indices in self._armed if each == watchpoint)
        at_start = self._at_start[watchpoint]
        return {
            index: unchanged + (at_start.get(index, 0) if unchanged == self._steps else 0)
            for index in indices
            for unchanged in [self._unchanged_of(index)]
        }

    def is_open(self, step: Frame) -> bool:
        """Return whether a step has left a parameter as it was of which it is not known how long it had been still."""
        return any(
            unchanged and not exact and is_unmoved(step, index)
            for index, unchanged, exact in zip(self._watched, self._unchanged, self._exact, strict=True)
        )

    def _unchanged_of(self, index: int) -> int:
        return int(self._unchanged[self._watched.index(index)])


def compared_values(param: Tensor, *, stride: int = 1) -> Callable[[], Tensor]:
    """Return a function that reads the values of a parameter by which its statistics tell that it has moved.

    stride: between those of a large one that are read.
    """
    flat = flat_in_memory(param.detach())
    if flat.data_ptr() != param.data_ptr():
        raise TypeError("its values do not lie side by side")
    if param.numel() <= SAMPLE_SIZE:
        return lambda: flat
    indices = draw_sample_indices(param.numel(), param.device)[::stride].contiguous()
    return lambda: flat.index_select(0, indices)
