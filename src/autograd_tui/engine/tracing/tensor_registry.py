"""The tensors of a traced phase: each version of one is measured once."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from autograd_tui.core.tensor_stats import StatsTable, TensorStats
from autograd_tui.core.trace import Value
from autograd_tui.engine.tracing.measurement_batch import MeasurementBatch
from autograd_tui.engine.training.tensor_properties import version_of


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
        key, version = id(tensor), version_of(tensor)
        earlier = self._records.get(key)
        if earlier is not None and earlier[0]() is tensor:
            if earlier[1] == version and maker is None:
                return earlier[2]
            maker = earlier[2].maker if maker is None else maker
        name = self._name_of(tensor) if key in self._named else ""
        record = TensorRecord(self.measurements.measure(tensor), name, maker, version)
        self._records[key] = weakref.ref(tensor), version, record
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
