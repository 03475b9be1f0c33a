"""The tensors that graph nodes save for their backward."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from autograd_tui.engine.tracing.autograd_graph import GraphNode
from autograd_tui.engine.tracing.tensor_registry import TensorRecord, TensorRegistry, version_of

_PREFIX = "_saved_"
_VERSION = re.compile(r"is at version (\d+)")


@dataclass(slots=True)
class SavedTensor:
    """A tensor that a node has saved."""

    node: GraphNode
    attribute: str
    record: TensorRecord
    memory: int
    changed_by: list[int] = field(default_factory=list)  # operations that have changed it in place since

    @property
    def role(self) -> str:
        return self.attribute.removeprefix(_PREFIX)

    @property
    def tensor(self) -> Tensor | None:
        """The tensor itself; None where it has been freed or changed in place, or is one of several."""
        try:
            value: Any = getattr(self.node, self.attribute)
        except RuntimeError:
            return None
        return value if isinstance(value, Tensor) else None

    @property
    def version(self) -> int | None:
        """What its changes in place are counted to, where that is more than when it was saved; None where it is not."""
        try:
            getattr(self.node, self.attribute)
        except RuntimeError as error:
            counted = _VERSION.search(str(error))
            return int(counted[1]) if counted else None
        return None


class SavedTensors:
    """Reads, just after an operation, what its nodes have saved; not where hooks would run at it.

    Under torch.utils.checkpoint, and whatever else packs saved tensors away, reading one runs the forward again.
    """

    def __init__(self, registry: TensorRegistry, attributes: dict[type, list[str]]) -> None:
        self.by_node: dict[GraphNode, list[SavedTensor]] = {}
        self._by_memory: dict[int, list[SavedTensor]] = {}
        self._registry = registry
        self._attributes = attributes  # by the node's type, as far as they have been looked up

    def read(self, nodes: Iterable[GraphNode], own_tensors: Sequence[tuple[Tensor, TensorRecord]]) -> None:
        """Read those of some nodes; `own_tensors`: the operation's own tensors, mostly the ones that are saved."""
        if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
            return
        with torch.no_grad():
            for node in nodes:
                if isinstance(node, torch._C._FunctionBase):
                    continue  # a custom Function's
                try:
                    saved = [
                        SavedTensor(node, name, self._record(tensor, own_tensors), storage_address(tensor))
                        for name in self._names(node)
                        for tensor in _tensors(node, name)
                    ]
                except RuntimeError:  # freed by a backward, or changed in place: of an older graph
                    continue
                self.by_node[node] = saved
                for each in saved:
                    self._by_memory.setdefault(each.memory, []).append(each)

    def changed(self, tensors: Iterable[Tensor], operation: int) -> None:
        """Take note of what an operation has changed in place, be it through a view."""
        for tensor in tensors:
            for saved in self._by_memory.get(storage_address(tensor), ()):
                if saved.version is not None and operation not in saved.changed_by:
                    saved.changed_by.append(operation)

    def _names(self, node: GraphNode) -> list[str]:
        kind = type(node)
        if kind not in self._attributes:
            self._attributes[kind] = [name for name in dir(kind) if name.startswith(_PREFIX)]
        return self._attributes[kind]

    def _record(self, tensor: Tensor, own_tensors: Sequence[tuple[Tensor, TensorRecord]]) -> TensorRecord:
        version = version_of(tensor)
        alike = (record for own, record in own_tensors if record.version == version and _is_same(own, tensor))
        return next(alike, None) or self._registry.record(tensor)


def storage_address(tensor: Tensor) -> int:
    """Give the place in memory that a tensor shares with its views."""
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else -id(tensor)


def _is_same(own: Tensor, saved: Tensor) -> bool:
    """Tell whether a saved tensor is one of the operation's own, of which torch may give another view."""
    if own is saved or own.layout is not torch.strided or saved.layout is not torch.strided:
        return own is saved
    return own.shape == saved.shape and own.stride() == saved.stride() and own.data_ptr() == saved.data_ptr()


def _tensors(node: GraphNode, name: str) -> list[Tensor]:
    """Read one attribute; raises RuntimeError for what has been freed or changed in place since."""
    value: Any = getattr(node, name)
    values = value if isinstance(value, (tuple, list)) else [value]
    return [each for each in values if isinstance(each, Tensor)]
