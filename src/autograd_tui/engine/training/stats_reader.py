"""Statistics of tensors, with one device-to-host copy for all tensors that a command reads."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import accumulate, groupby
from operator import attrgetter

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autograd_tui.core.tensor_stats import (
    HISTOGRAM_BINS,
    KEY_COLUMNS,
    MAX_LISTED_VALUES,
    MEAN_COLUMN,
    NONFINITE_COLUMN,
    NORM_COLUMN,
    ROW_WIDTH,
    SAMPLE_SIZE,
    LazyStatsTable,
    StatsLayout,
    StatsTable,
)
from autograd_tui.engine.training.tensor_properties import TensorKind, as_real_floats, kind_key, stored_values
from autograd_tui.engine.training.user_code import is_out_of_memory

Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
NO_VALUES, NO_SAMPLES, NO_ROWS = np.zeros(0), np.zeros((0, SAMPLE_SIZE)), np.zeros((0, 5))
SAMPLE_SEED = 20_240_229  # of a generator of its own: the model's random numbers stay as they are
MIN_PARTS = 4  # of a large tensor, each with a norm of its own
MAX_PART_SIZE = 8192  # values: float32 adds up the squares of many more with errors in the fifth digit
MAX_JOINED_VALUES = 1 << 24  # of large tensors on an accelerator, in a copy of which their samples are found
MAX_WAITING_BYTES = 1 << 19  # of the values from which one table's rows are computed later
MIN_EXACT_NORM = 1e-18  # below it the squares of float32 lose digits


@dataclass(frozen=True, slots=True)
class TensorGroup:
    """Tensors to measure together.

    Of those above SAMPLE_SIZE values, mean, std and histogram come from the sample; with `sampled_range` minimum and
    maximum too, which spares a pass over all values. Where the group is not `exact` they have mean and std alone.
    `launched`: of an exact group with `sampled_range`, what `launch_large` has already given of some, by name.
    """

    tensors: Mapping[str, Tensor]
    exact: bool = True
    sampled_range: bool = False
    launched: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)


class StatsReader:
    """Measures groups of tensors; what depends on their shapes alone is computed once."""

    def __init__(self) -> None:
        self._plans: dict[str, dict[object, ReadPlan]] = {}  # by the group's name
        self._latest: dict[str, ReadPlan] = {}  # the one that was read last

    @torch.no_grad()
    def read(self, groups: Mapping[str, TensorGroup]) -> dict[str, StatsTable]:
        """Return a table for each group, all with one copy to the host; tensor subclasses are read as plain tensors."""
        with torch._C.DisableTorchFunctionSubclass():
            return self._read(groups)

    def _read(self, groups: Mapping[str, TensorGroup]) -> dict[str, StatsTable]:
        plans = {name: self._plan(name, group) for name, group in groups.items()}
        self._latest |= plans
        try:
            return _measured(plans, groups)
        except RuntimeError as error:  # of which nothing is kept
            if not is_out_of_memory(error):
                raise
        with suppress(NotImplementedError, RuntimeError):  # a device that has no cache to empty
            torch.accelerator.empty_cache()
        return self._read_on_host(groups, plans)

    def _read_on_host(self, groups: Mapping[str, TensorGroup], plans: Mapping[str, ReadPlan]) -> dict[str, StatsTable]:
        """Read copies, since the device has no memory left; the last digits of a norm may be others there.

        plans: of the groups as they are, which are left as if they had read them.
        """
        on_host = {
            name: replace(group, tensors={key: each.detach().cpu() for key, each in group.tensors.items()}, launched={})
            for name, group in groups.items()
        }
        plans_there = {name: self._plan(name, group) for name, group in on_host.items()}
        tables = _measured(plans_there, on_host)
        for name, plan in plans.items():
            plan.latest = plans_there[name].latest
        return {name: StatsTable(plans[name].layout, table.numbers) for name, table in tables.items()}

    def watch(self, name: str, group: TensorGroup) -> Callable[[], array[float]]:
        """Return a function that, called after the next `read` of the group, returns how far each tensor has moved.

        Distances are Euclidean norms, of a tensor above SAMPLE_SIZE values estimated from its sample.
        """
        plan = self._plan(name, group)
        if self._latest.get(name) is not plan:  # somebody has made other kinds of tensors of them
            self.read({name: group})
        before = plan.latest
        return lambda: plan.moves(before)

    def _plan(self, name: str, group: TensorGroup) -> ReadPlan:
        tensors = group.tensors
        key = (group.exact, group.sampled_range, *tensors, *map(kind_key, tensors.values()))
        plans = self._plans.setdefault(name, {})
        if key not in plans:
            if len(plans) > 64:  # batches of ever new shapes
                plans.clear()
            kinds = [TensorKind.of(each) for each in tensors.values()]
            plans[key] = ReadPlan(list(tensors), kinds, exact=group.exact, sampled_range=group.sampled_range)
        return plans[key]


def _measured(plans: Mapping[str, ReadPlan], groups: Mapping[str, TensorGroup]) -> dict[str, StatsTable]:
    """Return a table for each plan and the group of its name, with one copy to the host for the tensors of all."""
    tensors = [list(group.tensors.values()) for group in groups.values()]
    all_results = [
        plan.launch(each, group.launched)
        for plan, each, group in zip(plans.values(), tensors, groups.values(), strict=True)
    ]
    if not all(plan.on_host for plan in plans.values()):
        on_host = iter(to_host([tensor for results in all_results for tensor in results]))
        all_results = [[next(on_host) for _ in results] for results in all_results]
    tables = {}
    for (name, plan), results, group in zip(plans.items(), all_results, tensors, strict=True):
        tables[name] = plan.corrected(plan.table(results), group)
    return tables


class ReadPlan:
    """How to measure one group.

    Small tensors are copied whole and measured on the host. Of a large one what `launch_large` returns is copied, of a
    sparse one what `launch_sparse` returns.
    """

    def __init__(
        self, names: Sequence[str], kinds: Sequence[TensorKind], *, exact: bool = True, sampled_range: bool = False
    ) -> None:
        measured = tuple(kind.measurable for kind in kinds)
        shapes, dtypes = tuple(kind.shape for kind in kinds), tuple(kind.dtype for kind in kinds)
        self.sparse = [row for row, kind in enumerate(kinds) if kind.measurable and kind.sparse]
        self.layout = StatsLayout(tuple(names), shapes, dtypes, measured, exact, frozenset(self.sparse), sampled_range)
        rows = [row for row, kind in enumerate(kinds) if kind.measurable and not kind.sparse]
        rows.sort(key=lambda row: dtypes[row])  # neighbours of one dtype are joined in one call
        self.on_host = all(kind.device.type == "cpu" for kind in kinds)
        self.small = [row for row in rows if kinds[row].size <= SAMPLE_SIZE]
        self.large = [row for row in rows if kinds[row].size > SAMPLE_SIZE]
        self.segments = _Segments([kinds[row].reals for row in self.small])
        self._large_sizes = [(kinds[row].reals, kinds[row].device) for row in self.large]
        self._sample_indices: list[Tensor] = []  # of each large tensor, drawn at the first `launch`
        self._joined: list[JoinedSample] = []  # of all of them on an accelerator
        self._needs_range_of_all = exact and not sampled_range
        self._first_parts: list[int] = []  # of each large tensor, among the parts that have a norm
        self._scale = np.array([kinds[row].reals / SAMPLE_SIZE for row in self.large])
        compared = {*self.small, *self.large}
        self._unmeasured = [row for row, kind in enumerate(kinds) if row not in compared and kind.size]
        self._have_norms = [*self.small, *(self.large if exact else ())]
        # Of small ones that are not in double precision no square of a value is 0 in it.
        self._may_be_zero = frozenset(row for row in self.small if dtypes[row] != "float64")
        self.forget()

    def forget(self) -> None:
        """Let go of the values that were read last."""
        self.latest: tuple[Doubles, Doubles] = NO_VALUES, NO_SAMPLES  # small tensors' values, large ones' samples

    def launch(self, tensors: Sequence[Tensor], launched: Mapping[str, Sequence[Tensor]]) -> list[Tensor]:
        """Start all the measuring on the tensors' own devices, without waiting; return what is to be copied.

        launched: as a TensorGroup has it.
        """
        results = [tensors[row] for row in self.small]
        large = [tensors[row] for row in self.large]
        self._sample_indices = self._sample_indices or [draw_sample_indices(*each) for each in self._large_sizes]
        if large and all(each.device.type != "cpu" for each in large) and not self._needs_range_of_all:
            self._joined = self._joined or join_sample_indices(large, self._sample_indices)
            results += launch_large_together(large, self._joined, exact=self.layout.exact)
            return results + [launch_sparse(tensors[row]) for row in self.sparse]
        for row, sample_indices in zip(self.large, self._sample_indices, strict=True):
            if known := launched.get(self.layout.names[row]):
                results += known[0], known[-1]
                continue
            exact, sampled_range = self.layout.exact, self.layout.sampled_range
            results += launch_large(tensors[row], sample_indices, exact=exact, sampled_range=sampled_range)
        return results + [launch_sparse(tensors[row]) for row in self.sparse]

    def in_launch_order(self, results: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Return the results of each tensor, launched one by one, in the order of `launch`."""
        return [result for row in (*self.small, *self.large, *self.sparse) for result in results[row]]

    def table(self, results: Sequence[Tensor]) -> StatsTable:
        """Return the table of what `launch` has returned, on the host; what can wait is computed from the same values.

        It is computed at once where the values take much more memory than the numbers.
        """
        source = self._take(results)
        keys = array("d")
        keys.frombytes(source.keys().tobytes())
        table = LazyStatsTable(self.layout, keys, source.numbers, source.bytes)
        return table if source.bytes <= MAX_WAITING_BYTES else StatsTable(self.layout, table.numbers)

    def corrected(self, table: StatsTable, tensors: Sequence[Tensor]) -> StatsTable:
        """Return the table, measured anew where norms are not finite, or where the dtype's range may not hold them."""
        norms = table.column(NORM_COLUMN)
        if all(
            MIN_EXACT_NORM < norms[row] < math.inf or (norms[row] == 0 and row in self._may_be_zero)
            for row in self._have_norms
        ):
            return table
        table = StatsTable(self.layout, table.numbers)
        _remeasure_unusual(table, tensors)
        return table

    def numbers(self, results: Sequence[Tensor]) -> array[float]:
        """Return the rows of that table."""
        return self._take(results).numbers()

    def _take(self, results: Sequence[Tensor]) -> _Source:
        """Bring the results of `launch` into arrays; `latest` is what they hold."""
        end = len(results) - len(self.sparse)
        sparse = _doubles(results[end:]).reshape(-1, 5) if self.sparse else NO_ROWS
        small = _doubles(results[: len(self.small)]) if self.small else NO_VALUES
        large, first, norms, bounds = NO_SAMPLES, NO_VALUES, None, None
        if self.large:
            measured = results[len(self.small) : end]
            each = len(measured) // len(self.large)  # results of one tensor; the sample is the last
            sampled = _doubles(measured[each - 1 :: each]).reshape(-1, 1 + SAMPLE_SIZE)
            first, large = sampled[:, 0], sampled[:, 1:]
            if self.layout.exact:
                norms = self._join_norms(measured[0::each])
                if not self.layout.sampled_range:
                    bounds = _doubles(measured[1::each]), _doubles(measured[2::each])
        self.latest = small, large
        return _Source(self, small, large, first, norms, bounds, sparse)

    def moves(self, before: tuple[Doubles, Doubles]) -> array[float]:
        """Return each tensor's distance from an earlier `latest`; NaN for what was not measured or is sparse."""
        distances = np.zeros(len(self.layout.names))
        with np.errstate(all="ignore"):
            small, large = (now - then for now, then in zip(self.latest, before, strict=True))
            if self.small:
                distances[self.small] = np.sqrt(self.segments.sums(small * small))
            distances[self.large] = np.sqrt(np.einsum("ij,ij->i", large, large) * self._scale)
        distances[self._unmeasured] = np.nan
        return array("d", distances.tolist())

    def _join_norms(self, parts: Sequence[Tensor]) -> Doubles:
        """Return the norm of each large tensor from those of its parts, in double precision."""
        if not self._first_parts:  # a size is always divided into the same parts
            self._first_parts = [0, *accumulate(map(len, parts[:-1]))]
        return np.sqrt(np.add.reduceat(_doubles(parts) ** 2, self._first_parts))


@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """The values that the rows of a table are computed from, on the host, as ReadPlan has divided the tensors."""

    plan: ReadPlan
    small: Doubles  # (all values,)
    large: Doubles  # samples, (tensors, SAMPLE_SIZE)
    first: Doubles  # of each large tensor its first value
    norms: Doubles | None  # of the large tensors; None where the group is not exact
    bounds: tuple[Doubles, Doubles] | None  # their least and greatest values; None where the sample's stand for them
    sparse: Doubles  # (tensors, 5), as `launch_sparse` has them

    @property
    def bytes(self) -> int:
        return self.small.nbytes + self.large.nbytes

    def keys(self) -> Doubles:
        """Return the key columns, (KEY_COLUMNS, tensors)."""
        plan = self.plan
        keys = np.zeros((len(KEY_COLUMNS), len(plan.layout.names)))
        with np.errstate(all="ignore"):
            if plan.small:
                keys[:, plan.small] = plan.segments.keys(self.small)
            if plan.large:
                keys[0, plan.large] = 0 if self.norms is None else self.norms
                keys[1, plan.large] = self.large.mean(1)
                keys[2, plan.large] = self.first
        if plan.sparse:
            keys[:2, plan.sparse] = self.sparse[:, (NORM_COLUMN, MEAN_COLUMN)].T
        return keys

    def numbers(self) -> array[float]:
        """Return all rows; any thread may ask."""
        plan = self.plan
        rows = np.zeros((len(plan.layout.names), ROW_WIDTH))
        if plan.sparse:
            rows[plan.sparse, :5] = self.sparse
        if plan.small:
            rows[plan.small] = plan.segments.describe(self.small)
        if plan.large:
            rows[plan.large] = self._describe_large()
        numbers = array("d")
        numbers.frombytes(rows.tobytes())
        return numbers

    def _describe_large(self) -> Doubles:
        samples = self.large
        rows = np.zeros((len(samples), ROW_WIDTH))
        if self.norms is not None:
            rows[:, 0] = self.norms
            rows[:, 1], rows[:, 2] = self.bounds or (samples.min(1), samples.max(1))
        with np.errstate(all="ignore"):
            rows[:, 4] = samples.mean(1)
            deviation = samples - rows[:, 4, None]
            rows[:, 5] = np.sqrt(np.einsum("ij,ij->i", deviation, deviation) / SAMPLE_SIZE)
        if self.norms is not None:
            rows[:, 6:-1] = _histograms(samples, rows[:, 1], rows[:, 2], np.arange(len(rows))[:, None])
        rows[:, -1] = self.first
        return rows


class _Segments:
    """Measures many small tensors on the host, whose values are joined in one array."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = np.array(sizes, dtype=np.int64)
        self._starts = self._sizes.cumsum() - self._sizes
        self._row_of = np.repeat(np.arange(len(sizes)), self._sizes)
        listed = self._sizes <= MAX_LISTED_VALUES
        self._listed_rows = np.flatnonzero(listed)  # that list all their values
        self._listed_indices = np.flatnonzero(listed[self._row_of])  # their indices, and the cells that they go to
        self._cells = (
            self._row_of[self._listed_indices],
            6 + (self._listed_indices - self._starts[self._row_of[self._listed_indices]]),
        )

    def sums(self, values: Doubles) -> Doubles:
        """Return the sum of each tensor's values, (tensors,); values: (all values,)."""
        return np.add.reduceat(values, self._starts)

    def keys(self, values: Doubles) -> Doubles:
        """Return the key columns, (KEY_COLUMNS, tensors); values: (all values,)."""
        return np.stack([np.sqrt(self.sums(values * values)), self.sums(values) / self._sizes, values[self._starts]])

    def describe(self, values: Doubles) -> Doubles:
        """Return a row for each tensor, (tensors, ROW_WIDTH); values: (all values,)."""
        rows = np.zeros((len(self._sizes), ROW_WIDTH))
        with np.errstate(all="ignore"):
            rows[:, 0] = np.sqrt(self.sums(values * values))
            rows[:, 1] = low = np.minimum.reduceat(values, self._starts)
            rows[:, 2] = high = np.maximum.reduceat(values, self._starts)
            rows[:, 4] = mean = self.sums(values) / self._sizes
            deviation = values - mean[self._row_of]
            rows[:, 5] = np.sqrt(self.sums(np.square(deviation, out=deviation)) / self._sizes)
        if len(self._listed_rows) < len(rows):
            rows[:, 6:-1] = _histograms(values, low, high, self._row_of)
        rows[self._listed_rows, 6:-1] = 0
        rows[self._cells] = values[self._listed_indices]
        rows[:, -1] = values[self._starts]
        return rows


def _histograms(values: Doubles, low: Doubles, high: Doubles, row_of: Indices) -> Doubles:
    """Return the counts of each row's finite values in equal bins between the row's bounds, (rows, HISTOGRAM_BINS).

    low, high: the bounds, (rows,). row_of: the row of each value, of the shape of `values` or broadcast to it.
    """
    rows = len(low)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        values, low, high, row_of = _only_finite(values, low, high, row_of)
    with np.errstate(all="ignore"):
        # Halved, so that no difference overflows; where all values are equal they fill the first bin.
        half_low = low / 2
        scale = HISTOGRAM_BINS / np.maximum(high / 2 - half_low, 1e-290)
        positions = values / 2
        positions -= half_low[row_of]
        positions *= scale[row_of]
        bins = np.minimum(positions, HISTOGRAM_BINS - 1, out=positions).astype(np.int64)
    bins += row_of * HISTOGRAM_BINS
    return np.bincount(bins.reshape(-1), minlength=rows * HISTOGRAM_BINS).reshape(-1, HISTOGRAM_BINS).astype(np.float64)


def _only_finite(
    values: Doubles, low: Doubles, high: Doubles, row_of: Indices
) -> tuple[Doubles, Doubles, Doubles, Indices]:
    """Return the finite values, the bounds of those in each row whose bounds are not finite, and the values' rows."""
    finite = np.isfinite(values)
    values, row_of = values[finite], np.broadcast_to(row_of, values.shape)[finite]
    minimum, maximum = np.full(len(low), np.inf), np.full(len(low), -np.inf)
    unbounded = ~(np.isfinite(low) & np.isfinite(high))
    wanted = unbounded[row_of]
    np.minimum.at(minimum, row_of[wanted], values[wanted])
    np.maximum.at(maximum, row_of[wanted], values[wanted])
    return values, np.where(unbounded, minimum, low), np.where(unbounded, maximum, high), row_of


def norms_of_parts(tensor: Tensor) -> Tensor:
    """Return the norms of parts, (parts,): a CPU computes them in parallel, and one norm over all it does not.

    On an accelerator there is one part: its one norm is as exact, and a launch each is what costs there.
    """
    if tensor.device.type != "cpu":
        norm: Tensor = torch.linalg.vector_norm(tensor)
        return norm.reshape(1)
    size = tensor.numel()
    parts = max(MIN_PARTS, 1 << (size // MAX_PART_SIZE).bit_length())
    rest = size % parts
    norms: Tensor = torch.linalg.vector_norm((tensor[: size - rest] if rest else tensor).view(parts, -1), dim=1)
    return torch.cat([norms, torch.linalg.vector_norm(tensor[size - rest :]).reshape(1)]) if rest else norms


def flat_in_memory(tensor: Tensor) -> Tensor:
    """Return all values, (size,), contiguous, in the order in which they lie in memory."""
    by_stride = sorted(range(tensor.dim()), key=lambda dim: -tensor.stride()[dim])
    return tensor.permute(by_stride).reshape(-1).contiguous()


def launch_large(
    tensor: Tensor,
    sample_indices: Tensor,
    *,
    exact: bool = True,
    sampled_range: bool = False,
    memory_order: bool = False,
) -> list[Tensor]:
    """Start measuring a tensor above SAMPLE_SIZE values; return its norms, minimum, maximum and sample.

    Only the sample unless `exact`; with `sampled_range` no minimum and maximum.
    `sample_indices`: as `draw_sample_indices` returns them, the first value's before the sample's. With `memory_order`
    the bounds of a permuted tensor are found in the order of its memory, which is sooner; 0 may have the other sign.
    """
    tensor = as_real_floats(tensor)
    flat = tensor.view(-1) if tensor.is_contiguous() else None
    ordered = flat_in_memory(tensor) if flat is None and exact else flat
    of_all = [norms_of_parts(ordered)] if ordered is not None and exact else []
    bounded = ordered if memory_order and ordered is not None else tensor
    of_all += torch.aminmax(bounded) if exact and not sampled_range else ()
    return [*of_all, torch.take(tensor, sample_indices) if flat is None else flat.index_select(0, sample_indices)]


@dataclass(frozen=True, slots=True)
class JoinedSample:
    """Where the samples of some large tensors are in the row of all their values."""

    count: int  # of the tensors, neighbours of one dtype on one device
    indices: Tensor  # (count * (1 + SAMPLE_SIZE),)


def join_sample_indices(tensors: Sequence[Tensor], sample_indices: Sequence[Tensor]) -> list[JoinedSample]:
    """Return how to sample large tensors together: as few at a time as MAX_JOINED_VALUES allows, but one at least."""
    joined: list[list[Tensor]] = []
    kind, size = None, 0
    for tensor, indices in zip(tensors, sample_indices, strict=True):
        values = tensor.numel() * (2 if tensor.is_complex() else 1)
        if not joined or kind != (tensor.dtype, tensor.device) or size + values > MAX_JOINED_VALUES:
            joined.append([])
            kind, size = (tensor.dtype, tensor.device), 0
        joined[-1].append(indices + size)
        size += values
    return [JoinedSample(len(each), torch.cat(each)) for each in joined]


def launch_large_together(tensors: Sequence[Tensor], joined: Sequence[JoinedSample], *, exact: bool) -> list[Tensor]:
    """Start measuring tensors above SAMPLE_SIZE values, in a few launches for all; return norm and sample of each.

    Only the samples unless `exact`. It is for accelerators, whose one norm over all values is exact enough.
    """
    results: list[Tensor] = []
    start = 0
    for sample in joined:
        flat = [as_real_floats(each).reshape(-1) for each in tensors[start : start + sample.count]]
        start += sample.count
        row = flat[0] if len(flat) == 1 else torch.cat(flat)
        samples = torch.split(row.index_select(0, sample.indices), 1 + SAMPLE_SIZE)
        if not exact:
            results += samples
            continue
        for norm, values in zip(torch._foreach_norm(flat), samples, strict=True):
            results += norm.reshape(1), values
    return results


def launch_sparse(tensor: Tensor) -> Tensor:
    """Start measuring a sparse tensor; return norm, minimum, maximum, non-finite count and count of values, (5,)."""
    values = stored_values(tensor).detach()
    plain = as_real_floats(values).reshape(-1)
    plain = plain if plain.device.type == "mps" else plain.double()
    bounds = torch.aminmax(plain) if values.numel() else (plain.new_zeros(()),) * 2  # nothing stored: zeros alone
    counts = (~values.isfinite()).sum(), plain.new_tensor(values.numel())
    return torch.stack([each.to(plain.dtype) for each in (torch.linalg.vector_norm(plain), *bounds, *counts)])


def draw_sample_indices(size: int, device: torch.device) -> Tensor:
    """Return the indices of the first value and of the sample, (1 + SAMPLE_SIZE,), the same for all tensors of a size.

    They are in order: memory is read faster so. They are shared on the host, where nobody may change them.
    """
    return _draw_on_host(size).to(device)


@lru_cache(maxsize=256)
def _draw_on_host(size: int) -> Tensor:
    generator = torch.Generator().manual_seed(SAMPLE_SEED)
    sample = torch.randint(size, (SAMPLE_SIZE,), generator=generator, device="cpu").sort().values
    return torch.cat([sample.new_zeros(1), sample])


def _doubles(tensors: Sequence[Tensor]) -> Doubles:
    """Return the values of host tensors of any dtypes as one array, (values,), joined dtype by dtype."""
    joined = []
    for _, group in groupby(tensors, key=attrgetter("dtype")):
        row = torch.cat([tensor if tensor.dim() == 1 else tensor.reshape(-1) for tensor in group])
        joined.append((torch.view_as_real(row).reshape(-1) if row.is_complex() else row).double())
    return (torch.cat(joined) if len(joined) > 1 else joined[0]).numpy()


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors of any dtypes on the host, with one copy for each device; those already there are not copied."""
    host: dict[int, Tensor] = {}
    by_device: dict[torch.device, dict[torch.dtype, list[int]]] = {}
    for index, tensor in enumerate(tensors):
        if tensor.device.type != "cpu":
            by_device.setdefault(tensor.device, {}).setdefault(tensor.dtype, []).append(index)
    for by_dtype in by_device.values():
        # The widest dtypes first, so that each piece starts where its dtype may be viewed.
        ordered = sorted(by_dtype.items(), key=lambda group: -group[0].itemsize)
        rows_of = [[_row(tensors[each]) for each in indices] for _, indices in ordered]
        joined = [rows[0].contiguous() if len(rows) == 1 else torch.cat(rows) for rows in rows_of]
        packed = (joined[0] if len(joined) == 1 else torch.cat([row.view(torch.uint8) for row in joined])).cpu()
        rows = torch.split(packed.view(torch.uint8), [row.numel() * row.element_size() for row in joined])
        for (dtype, indices), row in zip(ordered, rows, strict=True):
            pieces = torch.split(row.view(dtype), [tensors[each].numel() for each in indices])
            for each, piece in zip(indices, pieces, strict=True):
                host[each] = piece if tensors[each].dim() == 1 else piece.reshape(tensors[each].shape)
    return [host.get(index, tensor) for index, tensor in enumerate(tensors)]


def _row(tensor: Tensor) -> Tensor:
    """Return all values in one row that can be joined with others of the dtype; of one byte each, as bytes."""
    row = tensor if tensor.dim() == 1 else tensor.reshape(-1)
    return row if row.element_size() > 1 else row.contiguous().view(torch.uint8)


def _remeasure_unusual(table: StatsTable, tensors: Sequence[Tensor]) -> None:
    layout = table.layout
    columns = (table.column(column) for column in range(3))
    unusual: list[int] = []
    seem_zero: list[int] = []  # as gradients that are set to zero: their samples do not tell
    for row, (norm, low, high) in enumerate(zip(*columns, strict=True)):
        if MIN_EXACT_NORM < norm < math.inf or row in layout.sparse or not layout.measurable[row]:
            continue
        if not norm == low == high == 0:
            unusual.append(row)
        elif _has_sampled_range(layout, row):
            seem_zero.append(row)
    if seem_zero:
        ends = to_host([end for row in seem_zero for end in torch.aminmax(as_real_floats(tensors[row]))])
        pairs = zip(seem_zero, ends[0::2], ends[1::2], strict=True)
        unusual += [row for row, low, high in pairs if low != 0 or high != 0]
    for row in unusual:
        remeasure(table, row, tensors[row])


def _has_sampled_range(layout: StatsLayout, row: int) -> bool:
    return layout.exact and layout.sampled_range and math.prod(layout.shapes[row]) > SAMPLE_SIZE


def remeasure(table: StatsTable, row: int, tensor: Tensor) -> None:
    """Correct the row of a tensor with NaN or infinity, or one whose squares leave the dtype's range.

    Its minimum and maximum, too, are of all values afterwards where it has NaN or infinity.
    """
    plain = as_real_floats(tensor)
    low, high = (float(bound) for bound in torch.aminmax(plain))
    start = row * ROW_WIDTH
    if math.isfinite(low) and math.isfinite(high):
        largest = max(-low, high)
        if largest:
            table.numbers[start] = largest * float(torch.linalg.vector_norm(plain.cpu().double() / largest))
        return
    is_nonfinite = ~plain.isfinite()
    nonfinite = int((is_nonfinite.any(-1) if tensor.is_complex() else is_nonfinite).sum())
    table.numbers[start + NONFINITE_COLUMN] = nonfinite
    if _has_sampled_range(table.layout, row):  # else they are there already, bit for bit
        table.numbers[start + 1], table.numbers[start + 2] = low, high
