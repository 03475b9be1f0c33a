"""Measures the tensors of a traced phase where they are, and copies all numbers to the host at once."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
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
    as_real_floats,
    in_memory,
    kind_key,
    storage_address,
    version_of,
)

MAX_PLANS = 1024  # that are kept: a model may run on ever new shapes
MAX_READ_PLANS = 4  # a forward's and a backward's, with room for a last batch of another size
MAX_HELD_BYTES = 1 << 28  # of an accelerator's memory, in large tensors whose norms have not been read yet
MAX_COPIED_VALUES = 1 << 15  # of a tensor that is copied, which is sooner than measuring it: more have several threads
_SUMMED = (torch.float32, torch.float64)  # whose sum tells on the CPU whether all values are finite
MAX_COPIED_BYTES = 1 << 22  # in copies that are measured once somebody asks for a phase's numbers

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
    may_be_copied: bool  # though it is large
    is_small_float: bool  # of any width, real or complex, and not sparse


@dataclass(frozen=True, slots=True)
class MeasuringPlans:
    """The plans for all kinds of tensors so far."""

    plans: dict[object, MeasuringPlan] = field(default_factory=dict)  # by `kind_key`
    _read_plans: deque[tuple[list[TensorKind], ReadPlan]] = field(default_factory=lambda: deque(maxlen=MAX_READ_PLANS))

    def find(self, key: Any, tensor: Tensor) -> MeasuringPlan:
        if len(self.plans) >= MAX_PLANS:
            self.plans.clear()
        kind = TensorKind.of(tensor)
        strided = kind.measurable and not kind.sparse
        indices = draw_sample_indices(kind.reals, kind.device) if strided and kind.size > SAMPLE_SIZE else None
        nbytes = kind.size * tensor.element_size() if strided else 0
        on_host = kind.device.type == "cpu"
        may_be_copied = on_host and kind.size <= MAX_COPIED_VALUES and tensor.dtype in _SUMMED
        is_small_float = strided and indices is None and (tensor.is_floating_point() or tensor.is_complex())
        plan = MeasuringPlan(kind, indices, on_host, strided, nbytes, may_be_copied, is_small_float)
        self.plans[key] = plan
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


@dataclass(frozen=True, slots=True)
class RawMeasurements:
    """What was taken of tensors while they were as they were, on the host: their numbers are computed of it."""

    plan: ReadPlan
    kinds: Sequence[TensorKind]
    results: Sequence[list[Tensor]]  # by number: all values of a small tensor or a copied one, or what was launched
    copied: Mapping[int, Tensor]  # the sample indices of copied tensors, by number
    unusual: Mapping[int, Tensor | None]  # large ones to be measured again, by number; None where it was lost

    def to_table(self) -> StatsTable:
        """Return the numbers; always the same, since two threads may ask at once."""
        results, unusual = list(self.results), dict(self.unusual)
        for number, indices in self.copied.items():
            copy = results[number][0]
            results[number] = launch_large(copy, indices, memory_order=True)
            if _is_unusual(_norm(results[number])):
                unusual[number] = copy
        table = StatsTable(self.plan.layout, self.plan.numbers(self.plan.in_launch_order(results)))
        self.plan.forget()
        columns = (table.numbers[column::ROW_WIDTH] for column in range(3))
        for number, (norm, low, high) in enumerate(zip(*columns, strict=True)):
            if low == high == 0:
                continue
            if number in unusual:
                _remeasure_large(table, number, unusual[number])
            elif _is_unusual(norm) and _is_small(self.kinds[number]):
                remeasure(table, number, results[number][0])
        return table


class MeasurementBatch:
    """Measures tensors; each measurement has a number, which is its row in `table` after `read`.

    A tensor is measured as it is at the call of `measure`: it may change or vanish afterwards. What can be computed
    later is computed when `table` is asked for first.

    Where a large tensor turns out to have NaN or infinity, it is looked at again. On the CPU that is known at once. An
    accelerator is not waited for: large tensors are held until `read`, but for MAX_HELD_BYTES at most.
    """

    def __init__(self, plans: MeasuringPlans | None = None) -> None:
        self._table = StatsTable(StatsLayout((), (), (), ()), array("d"))
        self._raw: RawMeasurements | None = None  # from `read` on, until the table is made of it
        self._keeps_values = False
        self._has_lost_tensors = False  # whether some were changed in place before they could be measured again
        self._plans = MeasuringPlans() if plans is None else plans
        self._kinds: list[TensorKind] = []
        self._is_on_host = True  # whether all that is measured is
        self._results: list[list[Tensor]] = []
        self._small_floats: list[int] = []  # the numbers of those that may not be finite
        self._copied: dict[int, Tensor] = {}  # the sample indices of large tensors that are copied, by number
        self._copied_bytes = 0
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
        key, number = kind_key(tensor), len(self._kinds)
        plan = self._plans.plans.get(key) or self._plans.find(key, tensor)
        if plan.is_strided and not _is_in_memory(tensor, plan.nbytes):
            self._kinds.append(replace(plan.kind, measurable=False))
            self._results.append([])
            return number
        self._kinds.append(plan.kind)
        self._is_on_host = self._is_on_host and plan.on_host
        plain = tensor.detach()
        if plan.sample_indices is None:
            measured = plain.clone() if plan.is_strided else launch_sparse(plain) if plan.kind.measurable else None
            self._results.append([] if measured is None else [measured])
            if plan.is_small_float:
                self._small_floats.append(number)
        elif plan.may_be_copied and (copy := self._copy(plain, plan)) is not None:
            self._copied[number] = plan.sample_indices
            self._results.append([copy])
        else:
            results = launch_large(plain, plan.sample_indices, memory_order=True)
            self._results.append(results)
            if plan.on_host:
                self._check(number, results, plain)
            else:
                held = self._held[number] = VersionedTensor(plain)
                self._hold(held, plain)
        return number

    def launched(self, number: int) -> Sequence[Tensor]:
        """Return, before `read`, what `launch_large` gave of a tensor; nothing of one that is small, or was copied."""
        results = self._results[number]
        return results if len(results) > 1 else ()

    def _copy(self, plain: Tensor, plan: MeasuringPlan) -> Tensor | None:
        """Return a copy that will be measured later; None for one that may not be finite, and where there are many."""
        if self._copied_bytes + plan.nbytes > MAX_COPIED_BYTES or not plain.is_contiguous():
            return None
        copy = plain.clone()
        if not math.isfinite(copy.sum().item()):
            return None
        self._copied_bytes += plan.nbytes
        return copy

    def measure_scalar(self, number: Tensor) -> int:
        """Start reading a tensor of one element that nobody changes; return the number that `scalar` takes."""
        self._is_on_host = self._is_on_host and number.is_cpu
        self._scalars.append(number)
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

    def may_be_small_nonfinite(self, number: int) -> bool:
        """Return, before `read`, whether a tensor is a small one that may have NaN or infinity."""
        if not _is_small(self._kinds[number]):
            return False
        copy = self._results[number][0]
        return copy.dtype not in _SUMMED or not copy.is_cpu or not math.isfinite(copy.sum().item())

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
        """Bring all results to the host; values are kept where one is not finite."""
        if not self._is_on_host:
            on_host = iter(to_host([*chain.from_iterable(self._results), *self._scalars]))
            self._results = [[next(on_host) for _ in results] for results in self._results]
            self._scalars = list(on_host)
        self._scalar_values = [float(each) for each in self._scalars]
        self._let_go([self._results[number] for number in self._held])
        plan = self._plans.read_plan(self._kinds)
        self._raw = RawMeasurements(plan, self._kinds, self._results, self._copied, self._to_remeasure)
        again = self._to_remeasure
        if self._may_have_small_nonfinite() or not all(each is not None and each.is_cpu for each in again.values()):
            numbers = self.table.numbers  # what must be looked at before the tensors change
            rows = [number for number, each in again.items() if each is None]
            self._has_lost_tensors = any(any(numbers[row * ROW_WIDTH + 1 : row * ROW_WIDTH + 3]) for row in rows)
            self._keeps_values = any(numbers[NONFINITE_COLUMN::ROW_WIDTH])
        if not self._keeps_values:
            self.drop_values()

    @property
    def table(self) -> StatsTable:
        """After `read`, the numbers."""
        raw = self._raw
        if raw is not None:
            self._table = raw.to_table()
            self._raw = None
        return self._table

    def drop_values(self) -> None:
        """Let go of the values that `read` has kept."""
        self._kinds, self._results, self._scalars, self._to_remeasure = [], [], [], {}
        self._copied, self._keeps_values = {}, False

    def notes(self) -> tuple[str, ...]:
        """Return, after `read`, what must be said about the numbers."""
        return (LOST_TENSORS,) if self._has_lost_tensors else ()

    @property
    def keeps_values(self) -> bool:
        """Whether `read` has kept values, and `drop_values` was not called."""
        return self._keeps_values

    def values(self, number: int) -> Tensor | None:
        """Return, after `read`, all values of a small tensor; None for others, and once they are dropped."""
        kind = self._kinds[number] if self._kinds else None
        return self._results[number][0].reshape(kind.shape) if kind is not None and _is_small(kind) else None

    def not_finite(self, number: int) -> bool:
        """Return, after `read`, whether a small tensor has NaN or infinity in it, and its values are kept."""
        return bool(self.table.numbers[number * ROW_WIDTH + NONFINITE_COLUMN]) and self.values(number) is not None

    def scalar(self, number: int) -> float:
        """Return, after `read`, a value that `measure_scalar` has started to read."""
        return self._scalar_values[number]

    def _may_have_small_nonfinite(self) -> bool:
        """Return whether a small tensor has NaN or infinity; finite values that add up to it are taken for that too."""
        rows: dict[torch.dtype, list[Tensor]] = {}
        for number in self._small_floats:
            values = self._results[number][0]
            rows.setdefault(values.dtype, []).append(values if values.dim() == 1 else values.reshape(-1))
        return not all(math.isfinite(as_real_floats(torch.cat(each)).sum().item()) for each in rows.values())

    def _check(self, number: int, results: Sequence[Tensor], plain: Tensor | None) -> None:
        """Keep a copy of a large tensor that must be measured again; None: it is lost."""
        if _is_unusual(_norm(results)):
            self._to_remeasure[number] = None if plain is None else plain.clone()
            low, high = results[1].item(), results[2].item()
            if not (math.isfinite(low) and math.isfinite(high)):  # only its squares may be out of range
                self._large_nonfinite[number] = math.isnan(low)

    def _hold(self, held: VersionedTensor, tensor: Tensor) -> None:
        together = self._held_in.setdefault(storage_address(tensor), [])
        if all(each.is_copy for each in together):
            self._held_bytes += tensor.numel() * tensor.element_size()
        together.append(held)
        if self._held_bytes > MAX_HELD_BYTES:
            on_host = iter(to_host([each for number in self._held for each in self._results[number][:3]]))
            self._let_go([[next(on_host) for _ in range(3)] for _ in self._held])

    def _let_go(self, all_results: Sequence[Sequence[Tensor]]) -> None:
        """Look at the held tensors again where their norms, which were read, tell to, and let all of them go."""
        all_held, searches = self._held, self._searches
        self._held, self._held_in, self._held_bytes, self._searches = {}, {}, 0, []
        for (number, held), results in zip(all_held.items(), all_results, strict=True):
            self._check(number, results, held.tensor)
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


def _is_small(kind: TensorKind) -> bool:
    """Return whether all values of a tensor are copied, and have numbers."""
    return kind.measurable and not kind.sparse and kind.size <= SAMPLE_SIZE


def _norm(results: Sequence[Tensor]) -> float:
    """Return the norm of a large tensor from what was launched."""
    return math.hypot(*results[0].tolist())


def _is_unusual(norm: float) -> bool:
    """Return whether a tensor must be looked at again: it is not finite, or its squares leave the dtype's range."""
    return not MIN_EXACT_NORM < norm < math.inf


def _remeasure_large(table: StatsTable, number: int, tensor: Tensor | None) -> None:
    """Correct the row of a large tensor that is not finite, or out of range; None where it was lost."""
    if tensor is not None:
        remeasure(table, number, tensor)
        return
    start = number * ROW_WIDTH
    low, high = table.numbers[start + 1 : start + 3]
    if math.isfinite(low) and math.isfinite(high):
        table.numbers[start] = max(-low, high)
    else:
        table.numbers[start + NONFINITE_COLUMN] = 1


def _is_in_memory(tensor: Tensor, nbytes: int) -> bool:
    """Return what `in_memory` does of a strided tensor whose values take so many bytes, sooner in the usual case."""
    if type(tensor) is Tensor and not tensor.storage_offset() and tensor.untyped_storage().nbytes() >= nbytes:
        return True
    return in_memory(tensor)
