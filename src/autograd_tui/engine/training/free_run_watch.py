"""Tells from a few numbers in which iteration of a free run a watchpoint may hold: only there are frames made."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import MAX_LISTED_VALUES
from autograd_tui.core.watcher import ConditionMemory, Watcher
from autograd_tui.core.watchpoint import (
    FINITE,
    GRAD_NORM,
    LOSS,
    NOT_ZERO,
    PARAM_NORM,
    Watchpoint,
    is_too_small,
    safe_range,
    watched_values,
)
from autograd_tui.engine.training.lasting_faults import LastingFaults, optimizer_values
from autograd_tui.engine.training.phase_tests import (
    IsFine,
    NormTest,
    NumberTest,
    UpdateTest,
    ZeroShares,
    is_no_nan,
    joint_norm,
)
from autograd_tui.engine.training.state import TrainingState
from autograd_tui.engine.training.still_counter import Memories, StillCounter
from autograd_tui.engine.training.tensor_properties import as_real_floats, in_memory

PLAIN = (Tensor, nn.Parameter, nn.Buffer)
WIDE = (torch.float32, torch.float64)


class FreeRunWatch:
    """Looks at each phase of iterations without frames, and notes the first in which a condition may hold.

    Whatever a watch on each frame would stop at is noticed; what is noticed need not hold, which the frames decide.
    On an accelerator nothing is read back until `first_suspect` is asked for.
    """

    def __init__(self, watcher: Watcher) -> None:
        self.watcher, self.armed = watcher, watcher.armed
        self._nonfinite = any(each.kind == "nonfinite" for each in self.armed)
        self._still = [each for each in self.armed if each.kind == "still"]
        self._of_loss: list[Watchpoint] = []
        self._of_metrics: list[Watchpoint] = []
        self._of_activations = [each for each in self.armed if each.kind == "dead"]
        self._has_failed = False
        self._trusts_lasting = True  # whether what lasts is looked for at the end of a stretch alone
        self._trusts_probes = True  # whether a few values of a large parameter tell that it moves
        self._memories: Memories = {}
        self._rises: Memories = {}  # what is remembered of losses, as the iterations run
        self._sees_losses = False
        self._state: TrainingState | None = None
        self._first_iteration = self._first_forward = 0
        self._suspect: int | None = None  # an iteration of this stretch, counted from 1
        self._unread: list[tuple[int, IsFine, Tensor]] = []  # on an accelerator
        self._unread_values: list[Tensor] = []  # there too, after each step
        self._stillness: StillCounter | None = None
        self._let_go()

    def end(self) -> None:
        """Leave the model as it was, and hold nothing of it: it may be built anew."""
        if self._activations is not None:
            self._activations.detach()
        self._let_go()

    def _let_go(self) -> None:
        self._state = None
        self._params: list[nn.Parameter] = []
        self._grad_tests: list[NormTest] = []
        self._param_tests: list[NormTest] = []
        self._update_tests: list[UpdateTest] = []
        self._number_tests: tuple[NumberTest, NumberTest] | None = None  # where each parameter is a number
        self._buffer_owners: list[int] = []  # identities of the modules' dictionaries of buffers
        self._buffers: list[dict[str, Tensor | None]] = []
        self._finite_counts: dict[int, int] = {}  # of buffers that hold infinities on purpose, by identity
        self._lasting: LastingFaults | None = None
        self._looks_at_state = False
        self._activations: ZeroShares | None = None
        if self._stillness is not None:
            self._stillness.let_go()

    def suffices(self, state: TrainingState) -> bool:
        """Return whether everything is noticed; otherwise each frame is to be made."""
        names = tuple(state.params)
        kinds = [(each, watched_values(each, names).kind) for each in self.armed if each.kind == "bound"]
        self._of_loss = [each for each, kind in kinds if kind == LOSS]
        self._of_metrics = [each for each, kind in kinds if kind == "metric"]
        of_norms = (each for each, kind in kinds if kind in (GRAD_NORM, PARAM_NORM, "grads", "params"))
        return not (self._has_failed or any(map(is_too_small, of_norms))) and all(
            type(each) in PLAIN
            and each.layout is torch.strided
            and each.is_floating_point()
            and each.itemsize > 1
            and each.device.type == state.device.type
            for each in state.params.values()
        )

    def begin(self, state: TrainingState, frame: Frame, *, first_iteration: int) -> None:
        """Begin a stretch of iterations behind a frame, with what the watcher remembers there."""
        self.end()
        self._suspect = None
        self._memories = self.watcher.copy_memories(frame.index)
        self._rises = {each: self._copies().get(each, ConditionMemory()) for each in self.armed if each.kind == "rises"}
        self._sees_losses = bool(self._nonfinite or self._of_loss or self._rises)
        self._first_iteration, self._first_forward = first_iteration, state.forwards
        self._state, self._params = state, list(state.params.values())
        are_numbers = all(each.numel() == 1 and each.is_cpu and each.dtype in WIDE for each in self._params)
        self._is_on_host = state.device.type == "cpu"
        self._buffer_owners = [id(each._buffers) for each in state.model.modules()]
        try:
            self._choose_tests(tuple(state.params))
            if self._nonfinite:
                self._look_for_what_is_not_finite(state)
            if self._still:
                self._stillness = StillCounter(
                    self._params, self._still, frame, self._memories, probes=self._trusts_probes
                )
                self._suspect = 1 if self._stillness.holds_already else None
            if self._of_activations:
                self._activations = ZeroShares(state.model, [each.name for each in self._of_activations])
                self._activations.attach()
        except Exception:  # tensors of a kind that cannot be measured so
            self._has_failed, self._suspect = True, 1
        if are_numbers:
            count = len(self._params)
            self._number_tests = NumberTest(self._grad_tests, count), NumberTest(self._param_tests, count)
        self.measures_metrics = bool(self._of_metrics)
        self.sees_forward = self._nonfinite or self._activations is not None or self.measures_metrics
        self.sees_backward = bool(self._grad_tests)
        self.sees_step = bool(self._param_tests or self._update_tests or self._still or self._looks_at_state)

    def _choose_tests(self, names: tuple[str, ...]) -> None:
        joint = {GRAD_NORM: self._grad_tests, PARAM_NORM: self._param_tests}
        of_each = {"grads": self._grad_tests, "params": self._param_tests}
        all_params = range(len(names))
        for each in self.armed:
            watched = watched_values(each, names)
            if each.kind == "zero":
                of_each[watched.kind].append(NormTest(watched.params, NOT_ZERO, together=False))
            elif each.kind == "bound" and watched.kind in joint:
                joint[watched.kind].append(NormTest(all_params, safe_range([each]), together=True))
            elif each.kind == "bound" and watched.kind in of_each:
                of_each[watched.kind].append(NormTest(watched.params, safe_range([each]), together=False))
            elif watched.kind in ("update", "updates"):
                params = [self._params[index] for index in watched.params]
                self._update_tests.append(UpdateTest(params, safe_range([each]), together=watched.kind == "update"))

    def _look_for_what_is_not_finite(self, state: TrainingState) -> None:
        """Choose how: each time, or where it lasts at the end of the stretch alone."""
        lasting = LastingFaults.of(state) if self._trusts_lasting else None
        self._lasting = lasting
        self._looks_at_state = lasting is None
        if lasting is None:
            all_params = range(len(self._params))
            self._grad_tests.append(NormTest(all_params, FINITE, together=True))
            self._param_tests.append(NormTest(all_params, FINITE, together=True))
        self._find_buffers(state.model)

    # During the iterations.

    def notices(self, loss: float | Tensor) -> bool:
        """Return whether a condition may hold in the iteration that has just run: others would be undone.

        On an accelerator that is told at the end of the stretch alone, since reading the loss would wait for it.
        """
        if self._suspect is not None:
            return True
        if not self._sees_losses or isinstance(loss, Tensor):
            return False
        if self._nonfinite and not math.isfinite(loss):
            return True
        for each in self._of_loss:
            if each.holds_for(loss):
                return True
        for each, memory in self._rises.items():
            rises = memory.count_loss(loss, self._first_iteration + self._iteration - 1)
            if rises and rises % each.times == 0:
                return True
        return False

    def after_forward(self, prediction: Any, metrics: Iterable[tuple[str, Tensor]]) -> None:
        """Look for NaN in the prediction, and at buffers, metrics and activations."""
        try:
            if self._nonfinite:
                self._look_at_prediction(prediction)
                if self._buffers:
                    self._look_at_buffers()
            for name, value in metrics:
                for each in self._of_metrics:
                    if each.name == name:
                        self._judge(value, partial(_is_fine, each))
            if self._activations is not None:
                self._look_at_activations(self._activations)
        except Exception:  # tensors of a kind that cannot be measured so: each phase gets a frame
            self._fail()

    def after_backward(self) -> None:
        """Look at the norms of the gradients."""
        try:
            if self._number_tests is None:
                self._test_norms(self._grad_tests, [each.grad for each in self._params])
            elif not self._number_tests[0].is_fine(self._params, of_grads=True):
                self._note()
        except Exception:
            self._fail()

    def after_step(self) -> None:
        """Look at the norms of parameters and of the optimizer's state, and at which parameters have moved."""
        try:
            if self._number_tests is not None:  # numbers are read without a graph in any case
                self._look_at_step()
            else:
                with torch.no_grad():
                    self._look_at_step()
        except Exception:
            self._fail()

    def _look_at_step(self) -> None:
        if self._param_tests:
            if self._number_tests is None:
                self._test_norms(self._param_tests, self._params)
            elif not self._number_tests[1].is_fine(self._params, of_grads=False):
                self._note()
        if self._update_tests:
            self._look_at_updates()
        if self._looks_at_state:
            self._look_at_optimizer_state()
        if self._stillness is not None:
            self._look_at_moves(self._stillness)

    def _fail(self) -> None:
        self._has_failed = True
        self._note()

    def _note(self) -> None:
        """Note that something may hold in this iteration."""
        if self._suspect is None:
            self._suspect = self._iteration

    @property
    def _iteration(self) -> int:
        """The present iteration of this stretch, counted from 1."""
        assert self._state is not None
        return self._state.forwards - self._first_forward

    def _look_at_prediction(self, prediction: Any) -> None:
        if isinstance(prediction, Tensor) and (prediction.is_floating_point() or prediction.is_complex()):
            if type(prediction) not in PLAIN or prediction.layout is not torch.strided:
                raise TypeError("no plain tensor")
            if prediction.is_complex():
                prediction = as_real_floats(prediction)
            if self._is_on_host and prediction.dim() == 1 and prediction.numel() <= MAX_LISTED_VALUES:
                if math.isnan(sum(prediction.tolist())):
                    self._note()
                return
            if not in_memory(prediction):
                raise TypeError("no values")
            self._judge(prediction.detach().sum(), is_no_nan)

    @torch.no_grad()
    def _look_at_buffers(self) -> None:
        buffers = self._float_buffers()
        for buffer in buffers:
            if id(buffer) in self._finite_counts:
                has_changed = buffer.isfinite().sum() < self._finite_counts[id(buffer)]
                self._judge(torch.where(has_changed | buffer.isnan().any(), math.nan, 0.0), is_no_nan)
        usual = [each for each in buffers if id(each) not in self._finite_counts]
        if usual:
            self._judge(joint_norm(usual), math.isfinite)

    def _look_at_activations(self, activations: ZeroShares) -> None:
        for name, zeros, size in activations.take():
            watching = [each for each in self._of_activations if name in activations.named(each.name)]
            self._judge(zeros, partial(_is_share_fine, watching, size))

    def _test_norms(self, tests: Sequence[NormTest], tensors: Sequence[Tensor | None]) -> None:
        for test in tests:
            norms = test.measure(tensors)
            if norms is not None:
                self._judge(norms, test.is_fine)

    def _look_at_updates(self) -> None:
        for test in self._update_tests:
            is_fine = test.are_numbers_fine()
            if is_fine is None:
                self._judge(test.measure(), test.is_fine)
            elif not is_fine:
                self._note()

    def _look_at_optimizer_state(self) -> None:
        assert self._state is not None
        values, numbers = optimizer_values(self._state)
        if not all(map(math.isfinite, numbers)):
            self._note()
        if values:
            self._judge(joint_norm(values), math.isfinite)

    def _look_at_moves(self, stillness: StillCounter) -> None:
        if stillness.have_numbers_moved():
            return
        values = stillness.read()
        if not self._is_on_host:
            self._unread_values.append(values)
        elif stillness.may_hold_after_step(values):
            self._note()

    def _judge(self, values: Tensor, is_fine: IsFine) -> None:
        """Note this iteration unless all of some numbers are fine; on an accelerator they wait to be read."""
        if self._suspect is None:
            if not self._is_on_host:
                self._unread.append((self._iteration, is_fine, values))
            elif not (is_fine(values.item()) if values.numel() == 1 else all(map(is_fine, values.tolist()))):
                self._note()

    # After them.

    def first_suspect(self, model: nn.Module, losses: array[float]) -> int | None:
        """Return the first iteration of this stretch, counted from 1, in which a condition may hold."""
        self._read_back()
        suspects = [] if self._suspect is None else [self._suspect]
        looks_at_modules = self._nonfinite or self._of_activations
        if looks_at_modules and self._buffer_owners != [id(each._buffers) for each in model.modules()]:
            suspects.append(1)  # the model has got other modules
        if self._lasting is not None and not self._lasting.are_absent(len(losses)):
            suspects.append(1)  # the iterations run again, and each is looked at
            self._trusts_lasting = False
        if self._stillness is not None and self._stillness.needs_samples:
            suspects.append(1)
            self._trusts_probes = False
        self.end()
        return min([*suspects, *self._suspects_by_loss(losses)], default=None)

    def _read_back(self) -> None:
        """Judge what was measured on an accelerator, with a copy to the host."""
        suspects = [] if self._suspect is None else [self._suspect]
        if self._unread:
            suspects += [iteration for iteration, is_fine in self._unread_numbers() if not is_fine][:1]
        if self._unread_values and self._stillness is not None:
            for step, row in enumerate(torch.stack(self._unread_values).cpu(), 1):
                if self._stillness.may_hold_after_step(row):
                    suspects.append(step)
                    break
        self._unread, self._unread_values = [], []
        self._suspect = min(suspects, default=None)

    def _suspects_by_loss(self, losses: array[float]) -> Iterable[int]:
        """Yield, for each condition on the loss, the first iteration in which it holds."""
        start = max(len(losses) - 1, 0) if self._is_on_host else 0  # `notices` has looked at those before
        if self._nonfinite and not all(map(math.isfinite, losses)):
            yield next(index for index, loss in enumerate(losses, 1) if not math.isfinite(loss))
        for watchpoint in self._of_loss:
            yield from [index for index, loss in enumerate(losses[start:], start + 1) if watchpoint.holds_for(loss)][:1]
        for watchpoint in self._rises:
            _, first = self._count_rises(watchpoint, losses)
            if first is not None:
                yield first

    def _count_rises(self, watchpoint: Watchpoint, losses: Sequence[float]) -> tuple[ConditionMemory, int | None]:
        """Return what is remembered behind these losses, and the first iteration in which they have risen often enough.

        On the host they were counted as they came, up to the first such one.
        """
        memory, first = self._rises[watchpoint], None
        if losses and memory.iteration == self._first_iteration + len(losses) - 1:
            return memory, len(losses) if memory.rises and memory.rises % watchpoint.times == 0 else None
        memory = self._copies().get(watchpoint, ConditionMemory())
        for index, loss in enumerate(losses, 1):
            rises = memory.count_loss(loss, self._first_iteration + index - 1)
            if first is None and rises and rises % watchpoint.times == 0:
                first = index
        return memory, first

    def start_of(self, suspect: int) -> int:
        """Return behind how many iterations of this stretch frames must begin, to see what holds in the suspect one."""
        return 0 if self._still else suspect - 1  # how long a parameter has been still is not known in between

    def remember(self, index: int, losses: Sequence[float]) -> None:
        """Have the watcher remember what it would have at frame `index`, after iterations with these losses."""
        memories = self._copies()
        for watchpoint in self.armed:
            memory = memories.setdefault(watchpoint, ConditionMemory())
            if watchpoint.kind == "rises":
                memories[watchpoint], _ = self._count_rises(watchpoint, losses)
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
        later = set() if self._lasting is None else {id(each) for each in self._lasting.batch_norms}
        owners = [module._buffers for module in model.modules()]
        self._buffers = [each for each in owners if isinstance(each, dict) and each and id(each) not in later]
        buffers = self._float_buffers()
        counts = [each.isfinite().sum().to(buffers[0].device) for each in buffers]  # read together
        pairs = zip(buffers, torch.stack(counts).tolist() if counts else [], strict=True)
        self._finite_counts = {id(each): count for each, count in pairs if count < each.numel()}

    def _float_buffers(self) -> list[Tensor]:
        found = []
        for buffers in self._buffers:
            for buffer in buffers.values():
                if buffer is not None and (buffer.is_floating_point() or buffer.is_complex()) and buffer.numel():
                    if type(buffer) not in PLAIN or buffer.layout is not torch.strided or not in_memory(buffer):
                        raise TypeError("no plain tensor")
                    found.append(buffer)
        return found

    def _unread_numbers(self) -> Iterator[tuple[int, bool]]:
        """Yield of each number that waits on an accelerator its iteration and whether it is fine, with one copy."""
        rows = [values.reshape(-1) for *_, values in self._unread]
        wide = torch.float32 if rows[0].device.type == "mps" else torch.float64
        numbers = iter(torch.cat([row.to(wide) for row in rows]).tolist())
        for (iteration, is_fine, _), row in zip(self._unread, rows, strict=True):
            own = [next(numbers) for _ in range(len(row))]
            yield iteration, all(map(is_fine, own))


def _is_fine(watchpoint: Watchpoint, value: float) -> bool:
    return not watchpoint.holds_for(value)


def _is_share_fine(watching: Sequence[Watchpoint], size: int, zeros: float) -> bool:
    return not any(each.holds_for(zeros / size) for each in watching)
