"""Statistics of tensors as plain numbers: one row a tensor, stored together in one array."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

HISTOGRAM_BINS = 16
MAX_LISTED_VALUES = 16  # a tensor of at most this many has them all in its row
SAMPLE_SIZE = 1024  # what is estimated of a larger tensor comes from a fixed sample of this many
ROW_WIDTH = (
    6 + MAX_LISTED_VALUES + 1
)  # norm min max nonfinite mean std, then the values, or else the histogram, then the first
NORM_COLUMN, NONFINITE_COLUMN, MEAN_COLUMN = 0, 3, 4  # their positions among them
FIRST_VALUE_COLUMN = ROW_WIDTH - 1
NUMBER_BYTES = 8
KEY_COLUMNS = (NORM_COLUMN, MEAN_COLUMN, FIRST_VALUE_COLUMN)  # that are measured at once, and the rest when asked for


@dataclass(frozen=True, slots=True)
class TensorStats:
    """One tensor in numbers; what its dtype or size cannot give is None."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    norm: float | None = None  # Euclidean
    min: float | None = None
    max: float | None = None
    nonfinite: int | None = None  # how many are NaN or infinite
    mean: float | None = None
    std: float | None = None  # of the population (correction 0)
    values: tuple[float, ...] | None = None  # all of them, in memory order, where at most 16
    histogram: tuple[int, ...] | None = None  # 16 equal bins from min to max, of finite values alone
    sampled: bool = False  # mean, std and histogram are of a sample: shown with ~
    stored: int | None = None  # the values that a sparse tensor holds: norm, min, max and nonfinite are of those
    range_sampled: bool = False  # min and max are of the sample too

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class GradStats(TensorStats):
    """A gradient in numbers, and what has become of it."""

    backwards: int = 1  # how many are summed in it
    used: bool = False  # whether a step has used it


def without_history(row: TensorStats, name: str) -> TensorStats:
    """Return a row's statistics alone, under another name."""
    return TensorStats(**{field.name: getattr(row, field.name) for field in fields(TensorStats)} | {"name": name})


@dataclass(frozen=True)
class StatsLayout:
    """What never changes about a group of tensors: shared by all of its tables.

    `exact` is False where tensors above 1,024 values have mean and std alone. With `sampled_range` the min and max of
    those are of the sample, unless some value is not finite.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    measurable: tuple[bool, ...]  # bool, quantized, nested and empty tensors are not
    exact: bool = True
    sparse: frozenset[int] = frozenset()  # indices of measurable tensors that have norm, min and max alone
    sampled_range: bool = False

    def ordinary(self, index: int) -> bool:
        """Return whether a tensor is dense and real, so that it has values, mean and histogram."""
        real = self.measurable[index] and not self.dtypes[index].startswith("complex")
        return real and index not in self.sparse

    @cached_property
    def unmeasurable(self) -> frozenset[int]:
        """The indices of tensors that have no numbers."""
        return frozenset(index for index, measurable in enumerate(self.measurable) if not measurable)

    @cached_property
    def single(self) -> tuple[int, ...]:
        """The indices of ordinary tensors of one value."""
        return tuple(index for index, shape in enumerate(self.shapes) if math.prod(shape) == 1 and self.ordinary(index))

    def left_out(self) -> frozenset[int]:
        """Return the indices of tensors that have values and no norm: sums are without them."""
        return frozenset(index for index in self.unmeasurable if math.prod(self.shapes[index]))


@dataclass(frozen=True, slots=True, eq=False)
class StatsTable(Sequence[TensorStats]):
    """The rows of one group of tensors, made when asked for; 184 bytes a tensor."""

    layout: StatsLayout
    numbers: array[float]  # ROW_WIDTH a row

    def __len__(self) -> int:
        return len(self.layout.names)

    def __iter__(self) -> Iterator[TensorStats]:
        return (self._row(index) for index in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._row(each) for each in range(len(self))[index]]
        return self._row(range(len(self))[index])

    def __eq__(self, other: object) -> bool:
        """Return whether two tables hold the same bits, so NaN equals NaN."""
        if not isinstance(other, StatsTable):
            return NotImplemented
        if self is other:
            return True
        if self.layout != other.layout:
            return False
        if any(self.column(each).tobytes() != other.column(each).tobytes() for each in KEY_COLUMNS):
            return False
        return self.numbers.tobytes() == other.numbers.tobytes()

    __hash__ = None  # type: ignore[assignment]

    def column(self, index: int) -> array[float]:
        """Return one column of the numbers, (tensors,); KEY_COLUMNS are there before the others."""
        return self.numbers[index::ROW_WIDTH]

    @property
    def bytes(self) -> int:
        """The bytes that its numbers take, or what they will be computed from where that is more."""
        return NUMBER_BYTES * ROW_WIDTH * len(self.layout.names)

    @property
    def whole(self) -> bool:
        """Whether every value of every tensor is in its row."""
        sizes = map(math.prod, self.layout.shapes)
        return all(size <= MAX_LISTED_VALUES for size in sizes) and all(map(self.layout.ordinary, range(len(self))))

    def named(self, name: str) -> TensorStats | None:
        """Return the row of one tensor by its name; None where there is none."""
        return self[self.layout.names.index(name)] if name in self.layout.names else None

    def first(self, index: int) -> float | None:
        """Return the first value of a tensor that is too large to have all in its row; None for others."""
        if not self.layout.ordinary(index) or math.prod(self.layout.shapes[index]) <= MAX_LISTED_VALUES:
            return None
        return self.column(FIRST_VALUE_COLUMN)[index]

    def norms(self) -> tuple[float | None, ...]:
        """Return the Euclidean norm of each tensor, None where it has none."""
        pairs = zip(self.column(NORM_COLUMN), self.layout.measurable, strict=True)
        return tuple(norm if measurable else None for norm, measurable in pairs)

    def norm(self) -> float | None:
        """Return the Euclidean norm over all tensors together, None where one has none."""
        return None if self.layout.left_out() else self.least_norm()

    def least_norm(self) -> float | None:
        """Return the norm over those that have one: the norm over all is no less. None where no tensor has one."""
        if len(self.layout.left_out()) == len(self) > 0:
            return None
        return math.hypot(*self.column(NORM_COLUMN)) if self.layout.names else 0.0

    def _row(self, index: int) -> TensorStats:
        layout = self.layout
        row = TensorStats(layout.names[index], layout.shapes[index], layout.dtypes[index])
        if not layout.measurable[index]:
            return row
        size = row.size
        norm, low, high, nonfinite, mean, std, *rest, _ = self.numbers[index * ROW_WIDTH : (index + 1) * ROW_WIDTH]
        if not layout.ordinary(index):
            return self._in_short(index, row)
        exact = layout.exact or size <= SAMPLE_SIZE
        return TensorStats(
            row.name,
            row.shape,
            row.dtype,
            norm if exact else None,
            low if exact else None,
            high if exact else None,
            int(nonfinite) if exact else None,
            mean,
            std,
            tuple(rest[:size]) if size <= MAX_LISTED_VALUES else None,
            tuple(map(int, rest)) if size > MAX_LISTED_VALUES and exact else None,
            size > SAMPLE_SIZE,
            range_sampled=layout.sampled_range and exact and size > SAMPLE_SIZE and not nonfinite,
        )

    def _in_short(self, index: int, row: TensorStats) -> TensorStats:
        """Fill the row of a complex tensor, which has no least value, or of a sparse one."""
        norm, low, high, nonfinite, stored = self.numbers[index * ROW_WIDTH : index * ROW_WIDTH + 5]
        sparse, real = index in self.layout.sparse, not row.dtype.startswith("complex")
        if not (sparse or self.layout.exact or row.size <= SAMPLE_SIZE):
            return row
        return replace(
            row,
            norm=norm,
            min=low if real else None,
            max=high if real else None,
            nonfinite=int(nonfinite),
            stored=int(stored) if sparse and math.isfinite(stored) else None,
        )


class LazyStatsTable(StatsTable):
    """A table of which KEY_COLUMNS are measured; the rest is computed when somebody asks for it, on any thread."""

    __slots__ = ("_compute", "_keys", "_source_bytes")
    _compute: Callable[[], array[float]]
    _keys: array[float]
    _source_bytes: int

    def __init__(
        self, layout: StatsLayout, keys: array[float], compute: Callable[[], array[float]], source_bytes: int
    ) -> None:
        """Take in the key columns one after the other, and how to compute all numbers from `source_bytes` of values."""
        object.__setattr__(self, "layout", layout)
        object.__setattr__(self, "_keys", keys)
        object.__setattr__(self, "_compute", compute)
        object.__setattr__(self, "_source_bytes", source_bytes)

    def __getattr__(self, name: str) -> array[float]:
        if name != "numbers":  # which is the one that is not there at first
            raise AttributeError(name)
        numbers = self._compute()
        object.__setattr__(self, "numbers", numbers)
        object.__setattr__(self, "_compute", lambda: numbers)  # what they were computed from is let go
        object.__setattr__(self, "_source_bytes", 0)
        return numbers

    def column(self, index: int) -> array[float]:
        if index not in KEY_COLUMNS:
            return StatsTable.column(self, index)
        start = KEY_COLUMNS.index(index) * len(self.layout.names)
        return self._keys[start : start + len(self.layout.names)]

    @property
    def bytes(self) -> int:
        return max(self._source_bytes, NUMBER_BYTES * ROW_WIDTH * len(self.layout.names))


@dataclass(frozen=True, slots=True)
class Grads(Sequence[GradStats | None]):
    """The gradients, one a parameter in the parameters' order; None where `.grad` is None."""

    table: StatsTable  # of those that there are
    backwards: tuple[int, ...]  # 0 where `.grad` is None
    used: tuple[bool, ...]
    outside: frozenset[int] = frozenset()  # indices that the optimizer does not hold: it neither uses nor clears them

    def __len__(self) -> int:
        return len(self.backwards)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        if not self.backwards[index]:
            return None
        return self._grad(sum(map(bool, self.backwards[:index])), index)

    def __iter__(self) -> Iterator[GradStats | None]:
        positions = accumulate(map(bool, self.backwards), initial=0)  # of each gradient in the table
        return (
            self._grad(position, index) if backwards else None
            for index, (position, backwards) in enumerate(zip(positions, self.backwards, strict=False))
        )

    def _grad(self, position: int, index: int) -> GradStats:
        row = self.table[position]
        numbers: dict[str, Any] = {field.name: getattr(row, field.name) for field in fields(TensorStats)}
        return GradStats(**numbers, backwards=self.backwards[index], used=self.used[index])

    def first(self, index: int) -> float | None:
        """Return the first value of a gradient that is too large to have all in its row; None for others."""
        return self.table.first(sum(map(bool, self.backwards[:index]))) if self.backwards[index] else None

    @property
    def state(self) -> str:
        """What those of the optimizer are together: "none", "fresh" (some unused) or "used"."""
        pairs = enumerate(zip(self.used, self.backwards, strict=True))
        held = [used for index, (used, backwards) in pairs if backwards and index not in self.outside]
        return "none" if not held else "used" if all(held) else "fresh"

    def norms(self) -> tuple[float | None, ...]:
        """Return the Euclidean norm of each gradient, None where `.grad` is None, or has none."""
        held = iter(self.table.norms())
        return tuple(next(held) if backwards else None for backwards in self.backwards)

    def left_out(self, indices: Iterable[int]) -> bool:
        """Return whether some of these gradients have values and no norm."""
        out = self.table.layout.left_out()
        if not out:
            return False
        held = [index for index, backwards in enumerate(self.backwards) if backwards]
        return not {held[row] for row in out}.isdisjoint(indices)

    def norm(self) -> float | None:
        """Return the Euclidean norm over all gradients together, None where there are none, or one has no norm."""
        return self.table.norm() if any(self.backwards) else None


@dataclass(frozen=True, slots=True)
class Inspection:
    """One parameter at one frame; its rows are of all values, in double precision, and never `sampled`."""

    name: str
    index: int  # of the frame that it is true of
    value: TensorStats
    grad: TensorStats | None  # None where `.grad` is None
    state: tuple[TensorStats, ...] = ()  # the optimizer's, named by its keys: momentum_buffer, exp_avg, step
    cosine: float | None = None  # between velocity and gradient, from -1 to 1; None where one is missing or zero
