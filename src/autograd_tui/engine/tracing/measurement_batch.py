"""Measures the tensors of a traced phase where they are, and copies all numbers to the host at once."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from torch import Tensor

from autograd_tui.core.tensor_stats import NONFINITE_COLUMN, ROW_WIDTH, SAMPLE_SIZE, StatsLayout, StatsTable
from autograd_tui.core.trace import NonFinite
from autograd_tui.engine.tracing.nonfinite_search import first_nonfinite
from autograd_tui.engine.training.stats_reader import (
    MIN_EXACT_NORM,
    ReadPlan,
    draw_sample_indices,
    launch_large,
    launch_sparse,
    remeasure,
    to_host,
)
from autograd_tui.engine.training.tensor_properties import (
    TensorKind,
    in_memory,
    kind_key,
    storage_address,
    version_of,
)

MAX_PLANS = 1024  # that are kept: a model may run on ever new shapes
MAX_READ_PLANS = 4  # a forward's and a backward's, with room for a last batch of another size
MAX_HELD_BYTES = 1 << 28  # of an accelerator's memory, in large tensors whose norms have not been read yet

LOST_TENSORS = (
    "A tensor was changed in place before it was measured to the end: "
    "its norm, and its count of NaN and infinite values, may be greater than is shown."
)


@dataclass(frozen=True, slots=True)
class MeasuringPlan:
    """How tensors of one kind are measured."""

    kind: TensorKind
    sample_indices: Tensor | None  # (1 + SAMPLE_SIZE,), of a tensor too large to be copied whole; slow to draw anew
    on_host: bool
    is_strided: bool  # and measurable
    nbytes: int  # of the values of a strided tensor


@dataclass(frozen=True, slots=True)
class MeasuringPlans:
    """The plans for all kinds of tensors so far; looking one up is quick, since every tensor of every phase does."""

    plans: dict[object, MeasuringPlan] = field(default_factory=dict)  # by `kind_key`
    _read_plans: deque[tuple[list[TensorKind], ReadPlan]] = field(default_factory=lambda: deque(maxlen=MAX_READ_PLANS))

    def of(self, tensor: Tensor) -> MeasuringPlan:
        key = kind_key(tensor)
        plan = self.plans.get(key)
        return self._find(key, tensor) if plan is None else plan

    def _find(self, key: Any, tensor: Tensor) -> MeasuringPlan:
        if len(self.plans) >= MAX_PLANS:
            self.plans.clear()
        kind = TensorKind.of(tensor)
        strided = kind.measurable and not kind.sparse
        indices = draw_sample_indices(kind.reals, kind.device) if strided and kind.size > SAMPLE_SIZE else None
        nbytes = kind.size * tensor.element_size() if strided else 0
        self.plans[key] = plan = MeasuringPlan(kind, indices, kind.device.type == "cpu", strided, nbytes)
        return plan

    def read_plan(self, kinds: list[TensorKind]) -> ReadPlan:
        """Return how results of these kinds are read: most phases have those of an earlier one."""
        for known, plan in self._read_plans:
            if known == kinds:
                return plan
        plan = ReadPlan([""] * len(kinds), kinds)
        self._read_plans.appendleft((kinds, plan))
        return plan


class VersionedTensor:
    """A tensor that is looked at later, unless it has been changed in place by then."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor, self._version = tensor, version_of(tensor)
        self.is_copy = False

    @property
    def tensor(self) -> Tensor | None:
        """The tensor as it was; None where it was changed, or its memory given back."""
        tensor = self._tensor
        if self.is_copy:
            return tensor
        return tensor if version_of(tensor) == self._version and in_memory(tensor) else None

    def copy(self) -> None:
        """Keep the tensor as it is, whatever is done with its memory from now on."""
        if not self.is_copy and self.tensor is not None:
            self._tensor, self.is_copy = self._tensor.clone(), True


@dataclass(frozen=True, slots=True)
class NonFiniteSearch:
    """A result whose first NaN or infinity is wanted, if it has any that none of the inputs has."""

    number: int  # its measurement
    output: int  # its index among the results of the operation
    result: VersionedTensor
    inputs: Sequence[tuple[int | None, VersionedTensor | None]]  # each with the number of its measurement, if known
    found: list[NonFinite]  # which the answer is added to


class MeasurementBatch:
    """Measures tensors; each measurement has a number, which is its row in `table` after `read`.

    A tensor is measured as it is at the call of `measure`: it may change or vanish afterwards.

    Where a large tensor turns out to have NaN or infinity, it is looked at again. On the CPU that is known at once. An
    accelerator is not waited for: large tensors are held until `read`, but for MAX_HELD_BYTES at most.
    """

    def __init__(self, plans: MeasuringPlans | None = None) -> None:
        self.table = StatsTable(StatsLayout((), (), (), ()), array("d"))
        self._has_lost_tensors = False  # whether some were changed in place before they could be measured again
        self._plans = MeasuringPlans() if plans is None else plans
        self._kinds: list[TensorKind] = []
        self._is_on_host = True  # whether all that is measured is
        self._results: list[list[Tensor]] = []
        self._scalars: list[Tensor] = []
        self._to_remeasure: dict[int, Tensor | None] = {}  # copies, by number; None where it was lost
        self._scalar_values: list[float] = []
        self._large_nonfinite: dict[int, bool] = {}  # by number: whether it has NaN
        self._held: dict[int, VersionedTensor] = {}  # large ones on an accelerator, by number, until norms are read
        self._held_in: dict[int, list[VersionedTensor]] = {}  # all that are held, by the address of their memory
        self._held_bytes = 0
        self._searches: list[NonFiniteSearch] = []  # that wait for those norms

    def measure(self, tensor: Tensor) -> int:
        """Start measuring a tensor, without waiting for an accelerator, and return the number.

        One whose memory was given back has no numbers: PyTorch would end the program where they are read.
        """
        plan, number = self._plans.of(tensor), len(self._kinds)
        if plan.is_strided and not _is_in_memory(tensor, plan.nbytes):
            self._kinds.append(replace(plan.kind, measurable=False))
            self._results.append([])
            return number
        self._kinds.append(plan.kind)
        self._is_on_host = self._is_on_host and plan.on_host
        plain = tensor.detach()
        if plan.sample_indices is not None:
            results = launch_large(plain, plan.sample_indices, memory_order=True)
            self._results.append(results)
            if plan.on_host:
                self._check_norm(number, math.hypot(*results[0].tolist()), plain)
            else:
                held = self._held[number] = VersionedTensor(plain)
                self._hold(held, plain)
        elif plan.is_strided:
            self._results.append([plain.clone()])
        else:
            self._results.append([launch_sparse(plain)] if plan.kind.measurable else [])
        return number

    def measure_scalar(self, number: Tensor) -> int:
        """Start reading a tensor of one element; return the number that `scalar` takes."""
        self._is_on_host = self._is_on_host and number.is_cpu
        self._scalars.append(number.detach().reshape(()).clone())
        return len(self._scalars) - 1

    def search_nonfinite(
        self,
        number: int,
        result: Tensor,
        inputs: Sequence[tuple[int | None, Tensor | None]],
        *,
        output: int,
        found: list[NonFinite],
    ) -> None:
        """Add to `found` where a large result has its first NaN or infinity, if it has any that none of the inputs has.

        `number`: its measurement. `inputs`: each with the number of its measurement, if it has one, and None for what
        is gone. `output`: the index among the results. `found` may be added to as late as in `read`.
        """
        pairs = [(row, None if tensor is None else VersionedTensor(tensor.detach())) for row, tensor in inputs]
        search = NonFiniteSearch(number, output, VersionedTensor(result.detach()), pairs, found)
        if number not in self._held:
            self._answer(search, {})
            return
        self._searches.append(search)
        for (row, tensor), (_, versioned) in zip(inputs, pairs, strict=True):
            if row is None and tensor is not None and versioned is not None and not tensor.is_leaf:
                self._hold(versioned, tensor)

    def may_be_nonfinite(self, number: int) -> bool:
        """Return, before `read`, whether a tensor is a large one that has NaN or infinity, or may have."""
        return number in self._held or number in self._large_nonfinite

    @property
    def holds_tensors(self) -> bool:
        """Whether there are tensors that must be copied before they are changed in place."""
        return bool(self._held)

    def copy_held(self, tensors: Iterable[Tensor]) -> None:
        """Copy those of the tensors that are held, be it through views: something may change them in place."""
        for tensor in tensors:
            for held in self._held_in.get(storage_address(tensor), ()):
                held.copy()

    def read(self) -> None:
        """Bring all results to the host and fill `table`; values are kept where one is not finite."""
        if not self._is_on_host:
            on_host = iter(to_host([*chain.from_iterable(self._results), *self._scalars]))
            self._results = [[next(on_host) for _ in results] for results in self._results]
            self._scalars = list(on_host)
        self._scalar_values = [float(each) for each in self._scalars]
        self._let_go([self._results[number][0] for number in self._held])
        plan = self._plans.read_plan(self._kinds)
        self.table = StatsTable(plan.layout, plan.numbers(plan.in_launch_order(self._results)))
        plan.forget()
        self._remeasure()
        if not any(self.table.numbers[NONFINITE_COLUMN::ROW_WIDTH]):
            self.drop_values()

    def drop_values(self) -> None:
        """Let go of the values that `read` has kept."""
        self._kinds, self._results, self._scalars, self._to_remeasure = [], [], [], {}

    def notes(self) -> tuple[str, ...]:
        """Return, after `read`, what must be said about the numbers."""
        return (LOST_TENSORS,) if self._has_lost_tensors else ()

    @property
    def keeps_values(self) -> bool:
        """Whether `read` has kept values, and `drop_values` was not called."""
        return bool(self._kinds)

    def values(self, number: int) -> Tensor | None:
        """Return, after `read`, all values of a small tensor; None for others, and once they are dropped."""
        kind = self._kinds[number] if self._kinds else None
        if kind is None or not kind.measurable or kind.sparse or kind.size > SAMPLE_SIZE:
            return None
        return self._results[number][0].reshape(kind.shape)

    def not_finite(self, number: int) -> bool:
        """Return, after `read`, whether a small tensor has NaN or infinity in it, and its values are kept."""
        return bool(self.table.numbers[number * ROW_WIDTH + NONFINITE_COLUMN]) and self.values(number) is not None

    def scalar(self, number: int) -> float:
        """Return, after `read`, a value that `measure_scalar` has started to read."""
        return self._scalar_values[number]

    def _check_norm(self, number: int, norm: float, plain: Tensor | None) -> None:
        """Keep a copy of a large tensor that must be measured again; None: it is lost."""
        if not MIN_EXACT_NORM < norm < math.inf:
            self._to_remeasure[number] = None if plain is None else plain.clone()
            if not math.isfinite(norm):
                self._large_nonfinite[number] = math.isnan(norm)

    def _hold(self, held: VersionedTensor, tensor: Tensor) -> None:
        together = self._held_in.setdefault(storage_address(tensor), [])
        if all(each.is_copy for each in together):
            self._held_bytes += tensor.numel() * tensor.element_size()
        together.append(held)
        if self._held_bytes > MAX_HELD_BYTES:
            self._let_go(to_host([self._results[number][0] for number in self._held]))

    def _let_go(self, norms: Sequence[Tensor]) -> None:
        """Look at the held tensors again where their norms, which were read, tell to, and let all of them go."""
        all_held, searches = self._held, self._searches
        self._held, self._held_in, self._held_bytes, self._searches = {}, {}, 0, []
        for (number, held), parts in zip(all_held.items(), norms, strict=True):
            self._check_norm(number, math.hypot(*parts.tolist()), held.tensor)
        for search in searches:
            self._answer(search, all_held)

    def _answer(self, search: NonFiniteSearch, all_held: Mapping[int, VersionedTensor]) -> None:
        nan = self._large_nonfinite.get(search.number)
        numbers = [number for number, _ in search.inputs if number is not None]
        if nan is None or any(self._large_nonfinite.get(each) is nan for each in numbers):
            return
        result = all_held.get(search.number, search.result).tensor
        if result is not None:
            inputs = [each if number is None else each and all_held.get(number, each) for number, each in search.inputs]
            tensors = [None if each is None else each.tensor for each in inputs]
            search.found.extend(first_nonfinite(result, tensors, output=search.output))

    def _remeasure(self) -> None:
        """Measure again what is not finite, or whose squares leave the dtype's range."""
        columns = (self.table.numbers[column::ROW_WIDTH] for column in range(3))
        for number, (kind, norm, low, high) in enumerate(zip(self._kinds, *columns, strict=True)):
            usual = MIN_EXACT_NORM < norm < math.inf or low == high == 0
            if kind.measurable and not kind.sparse and kind.size <= SAMPLE_SIZE and not usual:
                remeasure(self.table, number, self._results[number][0])
        for number, tensor in self._to_remeasure.items():
            if any(self.table.numbers[number * ROW_WIDTH + 1 : number * ROW_WIDTH + 3]):  # minimum and maximum
                self._remeasure_large(number, tensor)

    def _remeasure_large(self, number: int, tensor: Tensor | None) -> None:
        if tensor is not None:
            remeasure(self.table, number, tensor)
            return
        start = number * ROW_WIDTH
        low, high = self.table.numbers[start + 1 : start + 3]
        if math.isfinite(low) and math.isfinite(high):
            self.table.numbers[start] = max(-low, high)
        else:
            self.table.numbers[start + NONFINITE_COLUMN] = 1
        self._has_lost_tensors = True


def _is_in_memory(tensor: Tensor, nbytes: int) -> bool:
    """Return what `in_memory` does of a strided tensor whose values take so many bytes, sooner in the usual case."""
    if type(tensor) is Tensor and not tensor.storage_offset() and tensor.untyped_storage().nbytes() >= nbytes:
        return True
    return in_memory(tensor)
