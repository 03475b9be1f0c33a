"""Tensors into numbers, with one device-to-host copy a command."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autograd_tui.core.tensor_stats import (
    HISTOGRAM_BINS,
    MAX_LISTED_VALUES,
    ROW_WIDTH,
    SAMPLE_SIZE,
    StatsLayout,
    StatsTable,
)
from autograd_tui.engine.training.tensor_properties import TensorKind, as_real_floats, kind_key, stored_values

Doubles = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
SAMPLE_SEED = 20_240_229  # of a generator of its own: the model's random numbers are not touched
MIN_PARTS = 4  # of a large tensor whose norms travel
MAX_PART_SIZE = 8192  # values: float32 adds up the squares of many more with errors in the fifth digit
MIN_EXACT_NORM = 1e-18  # below it the squares of float32 lose digits


@dataclass(frozen=True, slots=True)
class TensorGroup:
    """Tensors to measure together; not `exact` spares those above 1,024 values all but mean and std."""

    tensors: Mapping[str, Tensor]
    exact: bool = True


class StatsReader:
    """Reads groups of tensors; what depends on their shapes alone is worked out once."""

    def __init__(self) -> None:
        self._plans: dict[str, dict[object, ReadPlan]] = {}  # by the group's name
        self._latest: dict[str, ReadPlan] = {}  # the one that was read last

    @torch.no_grad()
    def read(self, groups: Mapping[str, TensorGroup]) -> dict[str, StatsTable]:
        """Measure all groups with one copy to the host; a tensor of a class of its own as PyTorch's own is."""
        with torch._C.DisableTorchFunctionSubclass():
            return self._read(groups)

    def _read(self, groups: Mapping[str, TensorGroup]) -> dict[str, StatsTable]:
        plans = {name: self._plan(name, group) for name, group in groups.items()}
        self._latest |= plans
        asked = [plan.ask(list(groups[name].tensors.values())) for name, plan in plans.items()]
        if not all(plan.on_host for plan in plans.values()):
            answers = iter(to_host([tensor for tensors in asked for tensor in tensors]))
            asked = [[next(answers) for _ in tensors] for tensors in asked]
        tables = {}
        for (name, plan), answered in zip(plans.items(), asked, strict=True):
            tables[name] = StatsTable(plan.layout, plan.numbers(answered))
            _look_again(tables[name], list(groups[name].tensors.values()))
        return tables

    def watch(self, name: str, group: TensorGroup) -> Callable[[], array[float]]:
        """Remember how the group was last read under this name.

        What is given back tells, after the next reading, how far each tensor has moved: Euclidean norms, estimated
        from the sample above 1,024 values.
        """
        plan = self._plan(name, group)
        if self._latest.get(name) is not plan:  # somebody has made other kinds of tensors of them
            self.read({name: group})
        before = plan.latest
        return lambda: plan.moves(before)

    def _plan(self, name: str, group: TensorGroup) -> ReadPlan:
        tensors = group.tensors
        key = (group.exact, *tensors, *map(kind_key, tensors.values()))
        plans = self._plans.setdefault(name, {})
        if key not in plans:
            if len(plans) > 64:  # batches of ever new shapes
                plans.clear()
            plans[key] = ReadPlan(list(tensors), [TensorKind.of(each) for each in tensors.values()], exact=group.exact)
        return plans[key]


class ReadPlan:
    """How to measure one group.

    Small tensors travel whole and are measured on the host. Of a large one travel its norm, least, greatest, first
    value and sample; of a sparse one what `ask_sparse` gives.
    """

    def __init__(self, names: Sequence[str], kinds: Sequence[TensorKind], *, exact: bool = True) -> None:
        measured = tuple(kind.measurable for kind in kinds)
        shapes, dtypes = tuple(kind.shape for kind in kinds), tuple(kind.dtype for kind in kinds)
        self._sparse = [row for row, kind in enumerate(kinds) if kind.measurable and kind.sparse]
        self.layout = StatsLayout(tuple(names), shapes, dtypes, measured, exact, frozenset(self._sparse))
        rows = [row for row, kind in enumerate(kinds) if kind.measurable and not kind.sparse]
        rows.sort(key=lambda row: dtypes[row])  # neighbours of one dtype are joined in one call
        self.on_host = all(kind.device.type == "cpu" for kind in kinds)
        self._small = [row for row in rows if kinds[row].size <= SAMPLE_SIZE]
        self._large = [row for row in rows if kinds[row].size > SAMPLE_SIZE]
        self._sizes = [kinds[row].reals for row in self._small]
        self._segments = _Segments(self._sizes)
        self._asks = [(kinds[row].reals, kinds[row].device) for row in self._large]
        self._places: list[Tensor] = []  # to sample, chosen when first asked
        self._scale = np.array([kinds[row].reals / SAMPLE_SIZE for row in self._large])
        compared = {*self._small, *self._large}
        self._unknown = [row for row, kind in enumerate(kinds) if row not in compared and kind.size]
        self.latest: tuple[Doubles, Doubles] = (
            np.zeros(0),
            np.zeros((0, SAMPLE_SIZE)),
        )  # the small ones, samples of others

    def ask(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Start all the measuring on the tensors' own devices; nothing is waited for."""
        asked = [tensors[row] for row in self._small]
        self._places = self._places or [sample_indices_of(*each) for each in self._asks]
        for row, places in zip(self._large, self._places, strict=True):
            asked += ask_large(tensors[row], places, exact=self.layout.exact)
        return asked + [ask_sparse(tensors[row]) for row in self._sparse]

    def sorted(self, answers: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Bring the answers about each tensor, asked one by one, into the order of `ask`."""
        return [answer for row in (*self._small, *self._large, *self._sparse) for answer in answers[row]]

    def numbers(self, answers: Sequence[Tensor]) -> array[float]:
        """Arrange what came back as the rows of a table."""
        rows = np.zeros((len(self.layout.names), ROW_WIDTH))
        small, large = self.latest
        if self._sparse:
            rows[self._sparse, :5] = _doubles(answers[-len(self._sparse) :]).reshape(-1, 5)
            answers = answers[: -len(self._sparse)]
        if self._small:
            small = _doubles(answers[: len(self._small)])
            rows[self._small] = self._segments.describe(small)
        if self._large:
            picked = _doubles(answers[len(self._small) :][3::4] if self.layout.exact else answers[len(self._small) :])
            first, large = np.split(picked.reshape(-1, 1 + SAMPLE_SIZE), [1], axis=1)
            rows[self._large] = self._describe_large(large, answers[len(self._small) :])
            rows[self._large, -1:] = first
        self.latest = small, large
        numbers = array("d")
        numbers.frombytes(rows.tobytes())
        return numbers

    def moves(self, before: tuple[Doubles, Doubles]) -> array[float]:
        """Compare what was read last with an earlier reading; NaN for what was not measured or is sparse."""
        ways = np.zeros(len(self.layout.names))
        with np.errstate(all="ignore"):
            small, large = (now - then for now, then in zip(self.latest, before, strict=True))
            if self._small:
                ways[self._small] = np.sqrt(self._segments.sums(small * small))
            ways[self._large] = np.sqrt(np.einsum("ij,ij->i", large, large) * self._scale)
        ways[self._unknown] = np.nan
        return array("d", ways.tolist())

    def _describe_large(self, samples: Doubles, answers: Sequence[Tensor]) -> Doubles:
        exact = self.layout.exact
        rows = np.zeros((len(self._large), ROW_WIDTH))
        if exact:
            rows[:, 0] = _joined_norms(answers[0::4])
            rows[:, 1], rows[:, 2] = _doubles(answers[1::4]), _doubles(answers[2::4])
        with np.errstate(all="ignore"):
            rows[:, 4] = samples.mean(1)
            deviation = samples - rows[:, 4, None]
            rows[:, 5] = np.sqrt(np.einsum("ij,ij->i", deviation, deviation) / SAMPLE_SIZE)
        if exact:
            rows[:, 6:-1] = _histograms(samples, rows[:, 1, None], rows[:, 2, None], np.arange(len(rows))[:, None])
        return rows


class _Segments:
    """Measures many small tensors that lie one behind the other on the host."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = np.array(sizes, dtype=np.int64)
        self._starts = self._sizes.cumsum() - self._sizes
        self._row_of = np.repeat(np.arange(len(sizes)), self._sizes)
        few = self._sizes <= MAX_LISTED_VALUES
        self._few = np.flatnonzero(few)  # rows with all their values in them
        self._listed = np.flatnonzero(few[self._row_of])  # those values, and the cells that they go to
        self._cells = self._row_of[self._listed], 6 + (self._listed - self._starts[self._row_of[self._listed]])

    def sums(self, values: Doubles) -> Doubles:
        """Add up the values of each tensor; values: (all of them,)."""
        return np.add.reduceat(values, self._starts)

    def describe(self, values: Doubles) -> Doubles:
        """Fill a row for each tensor; values: (all of them,)."""
        rows = np.zeros((len(self._sizes), ROW_WIDTH))
        with np.errstate(all="ignore"):
            rows[:, 0] = np.sqrt(self.sums(values * values))
            rows[:, 1] = low = np.minimum.reduceat(values, self._starts)
            rows[:, 2] = high = np.maximum.reduceat(values, self._starts)
            rows[:, 4] = mean = self.sums(values) / self._sizes
            deviation = values - mean[self._row_of]
            rows[:, 5] = np.sqrt(self.sums(deviation * deviation) / self._sizes)
        if len(self._few) < len(rows):
            rows[:, 6:-1] = _histograms(values, low[self._row_of], high[self._row_of], self._row_of, rows=len(rows))
        rows[self._few, 6:-1] = 0
        rows[self._cells] = values[self._listed]
        rows[:, -1] = values[self._starts]
        return rows


def _histograms(values: Doubles, low: Doubles, high: Doubles, row_of: Places, *, rows: int = 0) -> Doubles:
    """Count the finite values of each row into equal bins from the least to the greatest of them.

    All of one shape, or broadcast to it: values, the bounds of each value's row, and which row that is.
    """
    rows = rows or len(values)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        values, low, high, row_of = _finite_alone(*np.broadcast_arrays(values, low, high, row_of), rows=rows)
    with np.errstate(all="ignore"):
        # Halved, so that no difference overflows; where all values are equal they fill the first bin.
        scale = HISTOGRAM_BINS / np.maximum(high / 2 - low / 2, 1e-290)
        bins = np.minimum((values / 2 - low / 2) * scale, HISTOGRAM_BINS - 1).astype(np.int64)
    bins += row_of * HISTOGRAM_BINS
    return np.bincount(bins.reshape(-1), minlength=rows * HISTOGRAM_BINS).reshape(-1, HISTOGRAM_BINS).astype(np.float64)


def _finite_alone(
    values: Doubles, low: Doubles, high: Doubles, row_of: Places, *, rows: int
) -> tuple[Doubles, Doubles, Doubles, Places]:
    """Leave out what is not finite, and put the bounds of the rest in place of bounds that are not."""
    finite = np.isfinite(values)
    values, low, high, row_of = values[finite], low[finite], high[finite], row_of[finite]
    least, greatest = np.full(rows, np.inf), np.full(rows, -np.inf)
    np.minimum.at(least, row_of, values)
    np.maximum.at(greatest, row_of, values)
    wild = ~(np.isfinite(low) & np.isfinite(high))
    return values, np.where(wild, least[row_of], low), np.where(wild, greatest[row_of], high), row_of


def _norms(tensor: Tensor) -> Tensor:
    """Give the norms of parts, (parts,), which PyTorch works out in parallel, as it does not one norm over all."""
    size = tensor.numel()
    parts = max(MIN_PARTS, 1 << (size // MAX_PART_SIZE).bit_length())
    rest = size % parts
    norms: Tensor = torch.linalg.vector_norm((tensor[: size - rest] if rest else tensor).view(parts, -1), dim=1)
    return torch.cat([norms, torch.linalg.vector_norm(tensor[size - rest :]).reshape(1)]) if rest else norms


def _joined_norms(parts: Sequence[Tensor]) -> Doubles:
    """Give the norm of each tensor from those of its parts, in double precision."""
    starts = [0, *accumulate(map(len, parts[:-1]))]
    return np.sqrt(np.add.reduceat(_doubles(parts) ** 2, starts))


def _in_a_row(tensor: Tensor) -> Tensor:
    """Give all values in one row without gaps, in the order in which they lie in memory."""
    by_stride = sorted(range(tensor.dim()), key=lambda dim: -tensor.stride()[dim])
    return tensor.permute(by_stride).reshape(-1).contiguous()


def ask_large(tensor: Tensor, places: Tensor, *, exact: bool = True) -> list[Tensor]:
    """Start measuring a tensor above SAMPLE_SIZE values: norms, least, greatest if `exact`, first value and sample."""
    tensor = as_real_floats(tensor)
    flat = tensor.view(-1) if tensor.is_contiguous() else None
    ends = [_norms(_in_a_row(tensor) if flat is None else flat), *torch.aminmax(tensor)] if exact else []
    return [*ends, torch.take(tensor, places) if flat is None else flat.index_select(0, places)]


def ask_sparse(tensor: Tensor) -> Tensor:
    """Start measuring a sparse tensor: the norm, least, greatest, count of not finite and count of its values."""
    values = stored_values(tensor).detach()
    plain = as_real_floats(values).reshape(-1)
    plain = plain if plain.device.type == "mps" else plain.double()
    ends = torch.aminmax(plain) if values.numel() else (plain.new_zeros(()),) * 2  # nothing stored: zeros alone
    counts = (~values.isfinite()).sum(), plain.new_tensor(values.numel())
    return torch.stack([each.to(plain.dtype) for each in (torch.linalg.vector_norm(plain), *ends, *counts)])


def sample_indices_of(size: int, device: torch.device) -> Tensor:
    """Choose the first place and those to sample, the same for all tensors of a size.

    They are in order, since memory is read faster so.
    """
    generator = torch.Generator().manual_seed(SAMPLE_SEED)
    sample = torch.randint(size, (SAMPLE_SIZE,), generator=generator).sort().values
    return torch.cat([sample.new_zeros(1), sample]).to(device)


def _doubles(tensors: Sequence[Tensor]) -> Doubles:
    """Join host tensors of any dtypes in one row of doubles, neighbours of one dtype at a time."""
    joined = []
    for _, group in groupby(tensors, key=lambda tensor: tensor.dtype):
        row = torch.cat([tensor if tensor.dim() == 1 else tensor.reshape(-1) for tensor in group])
        joined.append((torch.view_as_real(row).reshape(-1) if row.is_complex() else row).double())
    return (torch.cat(joined) if len(joined) > 1 else joined[0]).numpy()


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Bring tensors of any dtypes to the host with one copy a device; those already there are not copied."""
    host: dict[int, Tensor] = {}
    away = [index for index, tensor in enumerate(tensors) if tensor.device.type != "cpu"]
    for _, places in groupby(sorted(away, key=lambda each: str(tensors[each].device)), key=lambda p: tensors[p].device):
        # The widest dtypes first, so that each piece starts where its dtype may be viewed.
        ordered = sorted(places, key=lambda each: -tensors[each].element_size())
        packed = torch.cat([tensors[each].contiguous().reshape(-1).view(torch.uint8) for each in ordered]).cpu()
        sizes = [tensors[each].numel() * tensors[each].element_size() for each in ordered]
        for each, piece in zip(ordered, torch.split(packed, sizes), strict=True):
            host[each] = piece.view(tensors[each].dtype).reshape(tensors[each].shape)
    return [host.get(index, tensor) for index, tensor in enumerate(tensors)]


def _look_again(table: StatsTable, tensors: Sequence[Tensor]) -> None:
    columns = (table.numbers[column::ROW_WIDTH] for column in range(3))
    for row, (norm, low, high) in enumerate(zip(*columns, strict=True)):
        if not (MIN_EXACT_NORM < norm < math.inf or low == high == 0 or row in table.layout.sparse):
            look_again(table, row, tensors[row])


def look_again(table: StatsTable, row: int, tensor: Tensor) -> None:
    """Measure again what is rare: a tensor with NaN or infinity, or one whose squares leave the dtype's range."""
    plain = as_real_floats(tensor)
    bad = ~plain.isfinite()
    nonfinite = int((bad.any(-1) if tensor.is_complex() else bad).sum())
    table.numbers[row * ROW_WIDTH + 3] = nonfinite
    if not nonfinite:
        largest = max(-table.numbers[row * ROW_WIDTH + 1], table.numbers[row * ROW_WIDTH + 2])
        table.numbers[row * ROW_WIDTH] = largest * float(torch.linalg.vector_norm(plain.cpu().double() / largest))
