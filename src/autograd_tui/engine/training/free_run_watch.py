"""Tells from a few numbers in which iteration of a free run a watchpoint may hold: only there are frames made."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autograd_tui.core.frame import Frame
from autograd_tui.core.norm_bounds import FINITE, Range, is_safe, is_too_small, safe_range
from autograd_tui.core.tensor_stats import MAX_LISTED_VALUES, SAMPLE_SIZE
from autograd_tui.core.watchpoint import (
    GRAD_NORM,
    LOSS,
    PARAM_NORM,
    ConditionMemory,
    Watcher,
    Watchpoint,
    is_unmoved,
    watched_for_stillness,
)
from autograd_tui.engine.training.state import TrainingState
from autograd_tui.engine.training.stats_reader import draw_sample_indices, flat_in_memory, norms_of_parts
from autograd_tui.engine.training.tensor_properties import in_memory

PLAIN = (Tensor, nn.Parameter, nn.Buffer)
WIDE = (torch.float32, torch.float64)
MIN_PARTS_SIZE = 1 << 16  # values of a tensor whose norm is taken in parts: quicker, and exact enough
Memories = dict[Watchpoint, ConditionMemory]


class FreeRunWatch:
    """Looks at each phase of iterations without frames, and notes the first in which a condition may hold.

    Whatever a watch on each frame would stop at is noticed; what is noticed need not hold, which the frames decide.
    On an accelerator nothing is read back until `first_suspect` is asked for.
    """

    def __init__(self, watcher: Watcher) -> None:
        self.watcher, self.armed = watcher, watcher.armed
        self._nonfinite = any(each.kind == "nonfinite" for each in self.armed)
        bounds = [each for each in self.armed if each.kind == "bound"]
        self._of_loss = [each for each in bounds if each.name == LOSS]
        self._named = [each for each in bounds if each.tensor]
        self._grad_range = safe_range(each for each in bounds if each.name == GRAD_NORM)
        self._param_range = safe_range(each for each in bounds if each.name == PARAM_NORM)
        self._looks_at_grads = self._nonfinite or self._grad_range != FINITE
        self._looks_at_params = self._nonfinite or self._param_range != FINITE
        self._still = [each for each in self.armed if each.kind == "still"]
        self._has_failed = any(map(is_too_small, self.armed))
        self._memories: Memories = {}
        self._first_iteration = 0
        self._iteration = 0  # in this stretch, counted from 1
        self._suspect: int | None = None
        self._unread: list[tuple[int, Range | None, Tensor]] = []  # on an accelerator
        self._unread_values: list[Tensor] = []  # there too, after each step
        self._stillness: StillCounter | None = None
        self._let_go()

    def _let_go(self) -> None:
        """Hold nothing of the model, which may be built anew."""
        self._optimizer: torch.optim.Optimizer | None = None
        self._params: list[nn.Parameter] = []
        self._named_params: list[tuple[nn.Parameter, Range]] = []
        self._named_grads: list[tuple[nn.Parameter, Range]] = []
        self._buffer_owners: list[dict[str, Tensor | None]] = []
        self._buffers: list[dict[str, Tensor | None]] = []
        self._finite_counts: dict[int, int] = {}  # of buffers that hold infinities on purpose, by identity
        if self._stillness is not None:
            self._stillness.let_go()

    def suffices(self, state: TrainingState) -> bool:
        """Return whether everything is noticed; otherwise each frame is to be made."""
        return not self._has_failed and all(
            type(each) in PLAIN
            and each.layout is torch.strided
            and each.is_floating_point()
            and each.itemsize > 1
            and each.device.type == state.device.type
            for each in state.params.values()
        )

    def begin(self, state: TrainingState, frame: Frame, *, first_iteration: int) -> None:
        """Begin a stretch of iterations behind a frame, with what the watcher remembers there."""
        self._iteration, self._suspect = 0, None
        self._memories = self.watcher.copy_memories(frame.index)
        self._first_iteration = first_iteration
        self._optimizer, self._params = state.optimizer, list(state.params.values())
        self._are_numbers = all(each.numel() == 1 and each.is_cpu and each.dtype in WIDE for each in self._params)
        self._is_on_host = state.device.type == "cpu"
        for each in self._named:
            is_param = each.name in state.params
            param = state.params[each.name if is_param else each.name.removesuffix(".grad")]
            (self._named_params if is_param else self._named_grads).append((param, safe_range([each])))
        try:
            if self._nonfinite:
                self._find_buffers(state.model)
            if self._still:
                self._stillness = StillCounter(self._params, self._still, frame, self._memories)
                self._suspect = 1 if self._stillness.holds_already else None
        except Exception:  # tensors of a kind that cannot be measured so
            self._has_failed, self._suspect = True, 1

    # During the iterations.

    @property
    def has_suspect(self) -> bool:
        """Whether something has been noticed, as far as is known without a readback."""
        return self._suspect is not None

    def after_forward(self, prediction: Any) -> None:
        """Look for NaN in the prediction, and at the buffers."""
        self._iteration += 1
        if self._nonfinite:
            try:
                self._look_at_prediction(prediction)
                if self._buffers:
                    self._look_at_buffers()
            except Exception:  # tensors of a kind that cannot be measured so: each phase gets a frame
                self._fail()

    def after_backward(self) -> None:
        """Look at the norms of the gradients."""
        if self._looks_at_grads or self._named_grads:
            try:
                self._look_at_grads()
            except Exception:
                self._fail()

    def after_step(self) -> None:
        """Look at the norms of parameters and of the optimizer's state, and at which parameters have moved."""
        if self._looks_at_params or self._named_params or self._stillness is not None:
            was_enabled = torch.is_grad_enabled()
            torch._C._set_grad_enabled(False)
            try:
                self._look_at_params()
                if self._stillness is not None:
                    self._look_at_moves(self._stillness)
            except Exception:
                self._fail()
            finally:
                torch._C._set_grad_enabled(was_enabled)

    def _fail(self) -> None:
        self._has_failed = True
        self._note()

    def _note(self) -> None:
        """Note that something may hold in this iteration."""
        if self._suspect is None:
            self._suspect = self._iteration

    def _look_at_prediction(self, prediction: Any) -> None:
        if isinstance(prediction, Tensor) and prediction.is_floating_point():
            if type(prediction) not in PLAIN or prediction.layout is not torch.strided or not in_memory(prediction):
                raise TypeError("no plain tensor")
            if self._is_on_host and prediction.dim() == 1 and len(prediction) <= MAX_LISTED_VALUES:
                if any(map(math.isnan, prediction.tolist())):
                    self._note()
                return
            self._judge(prediction.detach().sum(), None)

    @torch.no_grad()
    def _look_at_buffers(self) -> None:
        buffers = self._float_buffers()
        for buffer in buffers:
            if id(buffer) in self._finite_counts:
                has_changed = buffer.isfinite().sum() < self._finite_counts[id(buffer)]
                self._judge(torch.where(has_changed | buffer.isnan().any(), math.nan, 0.0), None)
        usual = [each for each in buffers if id(each) not in self._finite_counts]
        if usual:
            self._judge(_joint_norm(usual), FINITE)

    def _look_at_grads(self) -> None:
        if self._looks_at_grads:
            grads = [each.grad for each in self._params if each.grad is not None]
            if grads:
                self._judge(self._norm(grads), self._grad_range)
        for param, safe in self._named_grads:
            if param.grad is not None:
                self._judge(self._norm([param.grad]), safe)

    def _look_at_params(self) -> None:
        if self._looks_at_params:
            self._judge(self._norm(self._params), self._param_range)
        for param, safe in self._named_params:
            self._judge(self._norm([param]), safe)
        if self._nonfinite and self._optimizer is not None and self._optimizer.state:
            values = self._optimizer_values(self._optimizer.state)
            if values:
                self._judge(self._norm(values), FINITE)

    def _look_at_moves(self, stillness: StillCounter) -> None:
        if stillness.have_numbers_moved():
            return
        values = stillness.read()
        if not self._is_on_host:
            self._unread_values.append(values)
        elif stillness.may_hold_after_step(values):
            self._note()

    def _optimizer_values(self, state: Any) -> list[Tensor]:
        """Return those tensors of the optimizer's state of which a frame would have a count of values not finite."""
        values = []
        for param in self._params:
            for key, value in state.get(param, {}).items():
                if isinstance(value, Tensor):
                    if key != "step" and value.is_floating_point() and 0 < value.numel() <= SAMPLE_SIZE:
                        values.append(value)
                elif isinstance(value, float) and not math.isfinite(value):
                    self._note()
        return values

    def _norm(self, tensors: Sequence[Tensor]) -> float | Tensor:
        """Return the norm over all of some tensors together."""
        if not self._are_numbers:
            return _joint_norm(tensors)
        squares = 0.0
        for tensor in tensors:
            value = tensor.item()
            squares += value * value
        return math.sqrt(squares)

    def _judge(self, value: float | Tensor, safe: Range | None) -> None:
        """Note this iteration where a value is not safe."""
        if self._suspect is not None:
            return
        if isinstance(value, Tensor):
            if not self._is_on_host:
                self._unread.append((self._iteration, safe, value))
                return
            value = value.item()
        if not _is_safe(value, safe):
            self._suspect = self._iteration

    # After them.

    def first_suspect(self, model: nn.Module, losses: array[float]) -> int | None:
        """Return the first iteration of this stretch, counted from 1, in which a condition may hold."""
        self._read_back()
        suspects = [] if self._suspect is None else [self._suspect]
        if self._nonfinite and list(map(id, self._buffer_owners)) != [id(each._buffers) for each in model.modules()]:
            suspects.append(1)  # the model has got other modules
        self._let_go()
        return min([*suspects, *self._suspects_by_loss(losses)], default=None)

    def _read_back(self) -> None:
        """Judge what was measured on an accelerator, with a copy to the host."""
        suspects = [] if self._suspect is None else [self._suspect]
        if self._unread:
            values = torch.stack([value.reshape(()).float() for *_, value in self._unread]).tolist()
            pairs = zip(self._unread, values, strict=True)
            suspects += [iteration for (iteration, safe, _), value in pairs if not _is_safe(value, safe)][:1]
        if self._unread_values and self._stillness is not None:
            for step, row in enumerate(torch.stack(self._unread_values).cpu(), 1):
                if self._stillness.may_hold_after_step(row):
                    suspects.append(step)
                    break
        self._unread, self._unread_values = [], []
        self._suspect = min(suspects, default=None)

    def _suspects_by_loss(self, losses: array[float]) -> Iterable[int]:
        """Yield, for each condition on the loss, the first iteration in which it holds."""
        if self._nonfinite and not all(map(math.isfinite, losses)):
            yield next(index for index, loss in enumerate(losses, 1) if not math.isfinite(loss))
        for watchpoint in self._of_loss:
            yield from [index for index, loss in enumerate(losses, 1) if watchpoint.holds_for(loss)][:1]
        for watchpoint in self.armed:
            if watchpoint.kind == "rises":
                memory = self._copies().get(watchpoint, ConditionMemory())
                for index, loss in enumerate(losses, 1):
                    rises = memory.count_loss(loss, self._first_iteration + index - 1)
                    if rises and rises % watchpoint.times == 0:
                        yield index
                        break

    def start_of(self, suspect: int) -> int:
        """Return behind how many iterations of this stretch frames must begin, to see what holds in the suspect one."""
        return 0 if self._still else suspect - 1  # how long a parameter has been still is not known in between

    def remember(self, index: int, losses: Sequence[float]) -> None:
        """Have the watcher remember what it would have at frame `index`, after iterations with these losses."""
        memories = self._copies()
        for watchpoint in self.armed:
            memory = memories.setdefault(watchpoint, ConditionMemory())
            if watchpoint.kind == "rises":
                for place, loss in enumerate(losses):
                    memory.count_loss(loss, self._first_iteration + place)
            if watchpoint.kind == "still" and losses and self._stillness is not None:
                memory.still |= self._stillness.counts(watchpoint)
        self.watcher.restore_memories(memories, index)

    def is_still_unknown(self, step: Frame) -> bool:
        """Return whether it is open how long some parameter has been still that this step has left as it was too."""
        return self._stillness is not None and self._stillness.is_open(step)

    def _copies(self) -> Memories:
        """Return copies of what was remembered where the stretch began."""
        return {each: replace(memory, still=dict(memory.still)) for each, memory in self._memories.items()}

    # What can be measured.

    def _find_buffers(self, model: nn.Module) -> None:
        """Take the modules' buffers, and count the finite values of those that hold infinities already."""
        self._buffer_owners = [module._buffers for module in model.modules()]
        self._buffers = [each for each in self._buffer_owners if isinstance(each, dict) and each]
        buffers = self._float_buffers()
        counts = [each.isfinite().sum().to(buffers[0].device) for each in buffers]  # read together
        pairs = zip(buffers, torch.stack(counts).tolist() if counts else [], strict=True)
        self._finite_counts = {id(each): count for each, count in pairs if count < each.numel()}

    def _float_buffers(self) -> list[Tensor]:
        found = []
        for buffers in self._buffers:
            for buffer in buffers.values():
                if buffer is not None and buffer.is_floating_point() and buffer.numel():
                    if type(buffer) not in PLAIN or buffer.layout is not torch.strided or not in_memory(buffer):
                        raise TypeError("no plain tensor")
                    found.append(buffer)
        return found


class StillCounter:
    """Counts how many steps in a row have left each parameter as it was, as far as its statistics show.

    Of a small one the count is exact; a large one may have been still no longer, since a sample alone is compared.
    """

    def __init__(self, params: Sequence[Tensor], armed: Sequence[Watchpoint], frame: Frame, memories: Memories) -> None:
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
        self._pieces = [_compared_values(each) for each in watched]
        self._starts = np.cumsum([0, *(len(piece()) for piece in self._pieces[:-1])])
        self._exact = np.array([each.numel() <= SAMPLE_SIZE for each in watched], dtype=bool)
        self._unchanged = np.zeros(len(watched), dtype=np.int64)  # steps in a row, in this stretch
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
        self._unchanged[:] = 0
        return True

    def may_hold_after_step(self, values: Tensor) -> bool:
        """Count a step that left these values; return whether some parameter may have been still for long enough."""
        if not self._pieces:
            return False
        now, before, self._steps = values.double().numpy(), self._before, self._steps + 1
        # As in statistics, infinity less infinity is no number, and so a move.
        changed = np.logical_or.reduceat((now != before) | np.isinf(now), self._starts)
        self._before = now
        self._numbers_before = now.tolist() if self._numbers else []
        self._unchanged = np.where(changed, 0, self._unchanged + 1)
        if changed.all():
            return False
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


def _is_safe(value: float, safe: Range | None) -> bool:
    """Return whether a norm is inside its range; without a range, whether the value is no NaN."""
    return not math.isnan(value) if safe is None else is_safe(value, safe)


def _compared_values(param: Tensor) -> Callable[[], Tensor]:
    """Return a function that reads the values of a parameter by which its statistics tell that it has moved."""
    flat = flat_in_memory(param.detach())
    if flat.data_ptr() != param.data_ptr():
        raise TypeError("its values do not lie side by side")
    if param.numel() <= SAMPLE_SIZE:
        return lambda: flat
    indices = draw_sample_indices(param.numel(), param.device)
    return lambda: flat.index_select(0, indices)


def _joint_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the norm over all of some tensors together, ()."""
    norms: list[Tensor] = []
    small: list[Tensor] = []
    for tensor in tensors:
        if tensor.layout is not torch.strided:
            raise TypeError("no plain tensor")
        if tensor.dtype is not torch.float32:
            norms.append(torch.linalg.vector_norm(tensor.float()).reshape(1))
        elif tensor.numel() >= MIN_PARTS_SIZE:
            norms.append(norms_of_parts(tensor.view(-1) if tensor.is_contiguous() else flat_in_memory(tensor)))
        else:
            small.append(tensor)
    if small:
        norms.append(torch.stack([*torch._foreach_norm(small)]))
    joint: Tensor = norms[0] if len(norms) == 1 else torch.cat([each.float() for each in norms])
    return joint[0] if len(joint) == 1 else torch.linalg.vector_norm(joint)
