"""The tensors of a traced phase: each version of one is measured once, all with one copy to the host."""

from __future__ import annotations

import math
import weakref
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from autograd_tui.core.tensor_stats import (
    NONFINITE_COLUMN,
    ROW_WIDTH,
    SAMPLE_SIZE,
    StatsLayout,
    StatsTable,
    TensorStats,
)
from autograd_tui.core.trace import NonFinite, Value
from autograd_tui.engine.training.stats_reader import (
    MIN_EXACT_NORM,
    ReadPlan,
    draw_sample_indices,
    launch_large,
    launch_sparse,
    remeasure,
    to_host,
)
from autograd_tui.engine.training.tensor_properties import TensorKind, in_memory, kind_key, version_of

MAX_PLANS = 1024  # that are kept: a model may run on ever new shapes


@dataclass(frozen=True, slots=True)
class MeasuringPlan:
    """How tensors of one kind are measured."""

    kind: TensorKind
    sample_indices: Tensor | None  # (1 + SAMPLE_SIZE,), of a tensor too large to be copied whole; slow to draw anew


@dataclass(frozen=True, slots=True)
class MeasuringPlans:
    """The plans for all kinds of tensors so far; looking one up is quick, since every tensor of every phase does."""

    plans: dict[object, MeasuringPlan] = field(default_factory=dict)  # by `kind_key`

    def of(self, tensor: Tensor) -> MeasuringPlan:
        key = kind_key(tensor)
        plan = self.plans.get(key)
        return self._find(key, tensor) if plan is None else plan

    def _find(self, key: Any, tensor: Tensor) -> MeasuringPlan:
        if len(self.plans) >= MAX_PLANS:
            self.plans.clear()
        kind = TensorKind.of(tensor)
        large = kind.measurable and not kind.sparse and kind.size > SAMPLE_SIZE
        self.plans[key] = plan = MeasuringPlan(kind, draw_sample_indices(kind.reals, kind.device) if large else None)
        return plan


class MeasurementBatch:
    """Measures tensors; each measurement has a number, which is its row in `table` after `read`.

    A tensor is measured as it is at the call of `measure`: it may change or vanish afterwards.
    """

    def __init__(self, plans: MeasuringPlans | None = None) -> None:
        self.table = StatsTable(StatsLayout((), (), (), ()), array("d"))
        self._plans = MeasuringPlans() if plans is None else plans
        self._kinds: list[TensorKind] = []
        self._results: list[list[Tensor]] = []
        self._scalars: list[Tensor] = []
        self._to_remeasure: dict[int, Tensor] = {}  # copies, by number
        self._scalar_values: list[float] = []
        self._large_nonfinite: dict[int, bool] = {}  # by number: whether it has NaN

    def measure(self, tensor: Tensor) -> int:
        """Start measuring a tensor and return the number; only a large one on an accelerator is waited for.

        One whose memory was given back has no numbers: PyTorch would end the program where they are read.
        """
        plan, number = self._plans.of(tensor), len(self._kinds)
        if plan.kind.measurable and not in_memory(tensor):
            self._kinds.append(replace(plan.kind, measurable=False))
            self._results.append([])
            return number
        plain = tensor.detach()
        self._kinds.append(plan.kind)
        if plan.sample_indices is not None:
            self._results.append(self._launch_large(plain, plan.sample_indices, number))
        elif plan.kind.measurable:
            self._results.append([launch_sparse(plain) if plan.kind.sparse else plain.clone()])
        else:
            self._results.append([])
        return number

    def measure_scalar(self, number: Tensor) -> int:
        """Start reading a tensor of one element; return the number that `scalar` takes."""
        self._scalars.append(number.detach().reshape(()).clone())
        return len(self._scalars) - 1

    def read(self) -> None:
        """Bring all results to the host and fill `table`; values are kept where one is not finite."""
        on_host = iter(to_host([*(result for results in self._results for result in results), *self._scalars]))
        self._results = [[next(on_host) for _ in results] for results in self._results]
        self._scalar_values = [float(each) for each in on_host]
        plan = ReadPlan([""] * len(self._kinds), self._kinds)
        self.table = StatsTable(plan.layout, plan.numbers(plan.in_launch_order(self._results)))
        self._remeasure()
        if not any(self.table.numbers[NONFINITE_COLUMN::ROW_WIDTH]):
            self.drop_values()

    def drop_values(self) -> None:
        """Let go of the values that `read` has kept."""
        self._kinds, self._results, self._scalars, self._to_remeasure = [], [], [], {}

    @property
    def keeps_values(self) -> bool:
        """Whether `read` has kept values, and `drop_values` was not called."""
        return bool(self._kinds)

    def is_newly_nonfinite(self, number: int, inputs: Iterable[int]) -> bool:
        """Return, before `read`, whether a large tensor has NaN or infinity that none of the `inputs` has."""
        nan = self._large_nonfinite.get(number)
        return nan is not None and all(self._large_nonfinite.get(each) is not nan for each in inputs)

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

    def _launch_large(self, plain: Tensor, sample_indices: Tensor, number: int) -> list[Tensor]:
        """Start measuring a large tensor."""
        results = launch_large(plain, sample_indices)
        norm = math.hypot(*results[0].tolist())
        if not MIN_EXACT_NORM < norm < math.inf:
            self._to_remeasure[number] = plain.clone()
            if not math.isfinite(norm):
                self._large_nonfinite[number] = math.isnan(norm)
        return results

    def _remeasure(self) -> None:
        """Measure again what is not finite, or whose squares leave the dtype's range."""
        columns = (self.table.numbers[column::ROW_WIDTH] for column in range(3))
        for number, (kind, norm, low, high) in enumerate(zip(self._kinds, *columns, strict=True)):
            usual = MIN_EXACT_NORM < norm < math.inf or low == high == 0
            if kind.measurable and not kind.sparse and kind.size <= SAMPLE_SIZE and not usual:
                remeasure(self.table, number, self._results[number][0])
        for number, tensor in self._to_remeasure.items():
            if any(self.table.numbers[number * ROW_WIDTH + 1 : number * ROW_WIDTH + 3]):  # minimum and maximum
                remeasure(self.table, number, tensor)


Index = tuple[int, ...]


@torch.no_grad()
def first_nonfinite(result: Tensor, inputs: Sequence[Tensor | None], *, output: int) -> list[NonFinite]:
    """Return the first NaN of a result, or else the first infinity; [] where all is finite.

    `inputs`: of the operation, None for one that is gone. `output`: the index of `result` among its results.
    """
    result = result.detach()
    nan, infinite = result.isnan(), result.isinf()
    nan_count = int(nan.sum())
    if not nan_count and not bool(infinite.any()):
        return []
    flat = int((nan if nan_count else infinite).reshape(-1).to(torch.uint8).argmax())
    index = _unravelled(flat, tuple(result.shape))
    shape = tuple(result.shape)
    values = tuple(None if each is None else _broadcast_value(each.detach(), index, shape) for each in inputs)
    return [NonFinite(output, index, float(result[index]), nan_count, int(infinite.sum()), values)]


def _unravelled(flat: int, shape: Index) -> Index:
    index = []
    for size in reversed(shape):
        flat, last = divmod(flat, size)
        index.append(last)
    return tuple(reversed(index))


def _broadcast_value(tensor: Tensor, index: Index, shape: Index) -> float | None:
    """Return the value at `index` of the tensor broadcast to `shape`; None where it cannot be."""
    own, sizes = index[len(index) - tensor.dim() :], shape[len(shape) - tensor.dim() :]
    fits = tensor.dim() <= len(shape) and all(size in (1, each) for size, each in zip(tensor.shape, sizes, strict=True))
    if not fits or tensor.is_complex() or tensor.layout is not torch.strided:
        return None
    return float(tensor[tuple(at if size > 1 else 0 for size, at in zip(tensor.shape, own, strict=True))])


@dataclass(slots=True)
class TensorRecord:
    """One version of a tensor: where its numbers are, or will be once they have been read."""

    row: int  # in `table`, or in the measurements' own table
    name: str = ""
    maker: int | None = None
    version: int = 0
    table: StatsTable | None = None  # where it was measured before; None: in the measurements
    _stats: TensorStats | None = None  # with its name

    def value(self, measurements: MeasurementBatch, role: str = "") -> Value:
        """Return it as a plain value, once the measurements have been read."""
        table = measurements.table if self.table is None else self.table
        if self._stats is None:
            stats: TensorStats = table[self.row]
            self._stats = stats if stats.name == self.name else replace(stats, name=self.name)
        return Value(self._stats, role, self.maker, table.first(self.row), self.version)


class TensorRegistry:
    """Has one record for each version of a tensor, for as long as the tensor lives."""

    def __init__(self, measurements: MeasurementBatch) -> None:
        self.measurements = measurements
        self._records: dict[int, tuple[weakref.ref[Tensor], int, TensorRecord]] = {}  # by the tensor's id
        self._named: dict[int, tuple[Tensor, str]] = {}

    def name(self, tensors: Mapping[str, Tensor], table: StatsTable | None = None) -> None:
        """Call tensors by names from now on; `table`: rows about them as they are now, by name."""
        rows = {} if table is None else {name: row for row, name in enumerate(table.layout.names)}
        for name, tensor in tensors.items():
            if id(tensor) in self._named:
                continue
            self._named[id(tensor)] = tensor, name
            if id(tensor) in self._records and self._records[id(tensor)][0]() is tensor:
                self._records[id(tensor)][2].name = name
            elif name in rows:
                self._remember(tensor, TensorRecord(rows[name], name, None, version_of(tensor), table))

    def record(self, tensor: Tensor, *, maker: int | None = None) -> TensorRecord:
        """Return a tensor's record, measured if this version is new; `maker`: the operation that has just made it."""
        earlier = self._records.get(id(tensor))
        version = version_of(tensor)
        if earlier is not None and earlier[0]() is tensor:
            if earlier[1] == version and maker is None:
                return earlier[2]
            maker = earlier[2].maker if maker is None else maker
        record = TensorRecord(self.measurements.measure(tensor), self._name_of(tensor), maker, version)
        self._remember(tensor, record)
        return record

    def record_again(self, tensor: Tensor) -> TensorRecord:
        """Return a new record of a tensor that was changed without its version being counted up."""
        earlier = self._records.get(id(tensor))
        maker = earlier[2].maker if earlier is not None and earlier[0]() is tensor else None
        record = TensorRecord(self.measurements.measure(tensor), self._name_of(tensor), maker, version_of(tensor))
        self._remember(tensor, record)
        return record

    def _remember(self, tensor: Tensor, record: TensorRecord) -> None:
        self._records[id(tensor)] = weakref.ref(tensor), record.version, record

    def _name_of(self, tensor: Tensor) -> str:
        named = self._named.get(id(tensor))
        return named[1] if named is not None and named[0] is tensor else ""
