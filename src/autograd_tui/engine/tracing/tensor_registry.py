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
    ask_large,
    ask_sparse,
    look_again,
    sample_indices_of,
    to_host,
)
from autograd_tui.engine.training.tensor_properties import TensorKind, kind_key, version_of

MAX_PLANS = 1024  # that are remembered: a model may meet ever new shapes


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
        self.plans[key] = plan = MeasuringPlan(kind, sample_indices_of(kind.reals, kind.device) if large else None)
        return plan


class MeasurementBatch:
    """Measures tensors; each measurement has a number, which is its row in `table` after `read`.

    A tensor is measured as it is at the call of `measure`: it may change or vanish afterwards.
    """

    def __init__(self, plans: MeasuringPlans | None = None) -> None:
        self.table = StatsTable(StatsLayout((), (), (), ()), array("d"))
        self._plans = MeasuringPlans() if plans is None else plans
        self._kinds: list[TensorKind] = []
        self._answers: list[list[Tensor]] = []
        self._scalars: list[Tensor] = []
        self._to_remeasure: dict[int, Tensor] = {}  # copies of what is to be looked at again
        self._scalar_values: list[float] = []
        self._large_nonfinite: dict[int, bool] = {}  # by number: whether it has NaN

    def measure(self, tensor: Tensor) -> int:
        """Start measuring a tensor and return the number; only a large one on an accelerator is waited for."""
        plan, plain, number = self._plans.of(tensor), tensor.detach(), len(self._kinds)
        self._kinds.append(plan.kind)
        if plan.sample_indices is not None:
            self._answers.append(self._ask(plain, plan.sample_indices, number))
        elif plan.kind.measurable:
            self._answers.append([ask_sparse(plain) if plan.kind.sparse else plain.clone()])
        else:
            self._answers.append([])
        return number

    def measure_scalar(self, number: Tensor) -> int:
        """Start reading a tensor of one element; return the number to ask `scalar` with."""
        self._scalars.append(number.detach().reshape(()).clone())
        return len(self._scalars) - 1

    def read(self) -> None:
        """Bring all that was asked to the host; only numbers are left."""
        answered = iter(to_host([*(answer for answers in self._answers for answer in answers), *self._scalars]))
        self._answers = [[next(answered) for _ in answers] for answers in self._answers]
        self._scalar_values = [float(each) for each in answered]
        plan = ReadPlan([""] * len(self._kinds), self._kinds)
        self.table = StatsTable(plan.layout, plan.numbers(plan.sorted(self._answers)))
        self._remeasure()
        if not any(self.table.numbers[NONFINITE_COLUMN::ROW_WIDTH]):
            self.drop_values()

    def drop_values(self) -> None:
        """Let go of the values that were measured, of which some are kept where not all is finite."""
        self._kinds, self._answers, self._scalars, self._to_remeasure = [], [], [], {}

    @property
    def keeps_values(self) -> bool:
        """Whether there are such, and `drop_values` has not been called."""
        return bool(self._kinds)

    def is_newly_nonfinite(self, number: int, inputs: Iterable[int]) -> bool:
        """Tell, before anything is read, whether a large tensor has NaN or infinity that none of the `inputs` has."""
        nan = self._large_nonfinite.get(number)
        return nan is not None and all(self._large_nonfinite.get(each) is not nan for each in inputs)

    def values(self, number: int) -> Tensor | None:
        """Give what was measured, once read, as long as it is kept: all values of a small tensor."""
        kind = self._kinds[number] if self._kinds else None
        if kind is None or not kind.measurable or kind.sparse or kind.size > SAMPLE_SIZE:
            return None
        return self._answers[number][0].reshape(kind.shape)

    def not_finite(self, number: int) -> bool:
        """Tell, once read, whether a small tensor has NaN or infinity in it, and its values are kept."""
        return bool(self.table.numbers[number * ROW_WIDTH + NONFINITE_COLUMN]) and self.values(number) is not None

    def scalar(self, number: int) -> float:
        """Return a value that `measure_scalar` has started to read."""
        return self._scalar_values[number]

    def _ask(self, plain: Tensor, sample_indices: Tensor, number: int) -> list[Tensor]:
        """Start measuring a large tensor."""
        answers = ask_large(plain, sample_indices)
        norm = math.hypot(*answers[0].tolist())
        if not MIN_EXACT_NORM < norm < math.inf:
            self._to_remeasure[number] = plain.clone()
            if not math.isfinite(norm):
                self._large_nonfinite[number] = math.isnan(norm)
        return answers

    def _remeasure(self) -> None:
        """Measure again what is not finite, or out of range."""
        columns = (self.table.numbers[column::ROW_WIDTH] for column in range(3))
        for number, (kind, norm, low, high) in enumerate(zip(self._kinds, *columns, strict=True)):
            usual = MIN_EXACT_NORM < norm < math.inf or low == high == 0
            if kind.measurable and not kind.sparse and kind.size <= SAMPLE_SIZE and not usual:
                look_again(self.table, number, self._answers[number][0])
        for number, tensor in self._to_remeasure.items():
            if any(
                self.table.numbers[number * ROW_WIDTH + 1 : number * ROW_WIDTH + 3]
            ):  # its least and greatest are not 0
                look_again(self.table, number, tensor)


Index = tuple[int, ...]


@torch.no_grad()
def first_nonfinite(result: Tensor, inputs: Sequence[Tensor | None], *, output: int) -> list[NonFinite]:
    """Find the first NaN, or else the first infinity; nothing where all is finite.

    `inputs`: of the operation, None for one that is gone. `output`: the index of `result` among its results.
    """
    result = result.detach()
    nan, infinite = result.isnan(), result.isinf()
    many = int(nan.sum())
    if not many and not bool(infinite.any()):
        return []
    flat = int((nan if many else infinite).reshape(-1).to(torch.uint8).argmax())
    index = _unravelled(flat, tuple(result.shape))
    shape = tuple(result.shape)
    values = tuple(None if each is None else _broadcast_value(each.detach(), index, shape) for each in inputs)
    return [NonFinite(output, index, float(result[index]), many, int(infinite.sum()), values)]


def _unravelled(flat: int, shape: Index) -> Index:
    index = []
    for size in reversed(shape):
        flat, here = divmod(flat, size)
        index.append(here)
    return tuple(reversed(index))


def _broadcast_value(tensor: Tensor, index: Index, shape: Index) -> float | None:
    """Look up one value, as broadcasting would; None where the tensor is not broadcast to the shape."""
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
        """Give it as a plain value."""
        table = measurements.table if self.table is None else self.table
        if self._stats is None:
            stats: TensorStats = table[self.row]
            self._stats = stats if stats.name == self.name else replace(stats, name=self.name)
        return Value(self._stats, role, self.maker, table.first(self.row), self.version)


class TensorRegistry:
    """Gives each version of a tensor one record, for as long as the tensor lives."""

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
        """Measure a tensor again that was changed without its changes being counted."""
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
