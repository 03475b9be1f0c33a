"""What nodes of the graph keep for their backward."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from autograd_tui.engine.inside.graph import GraphNode
from autograd_tui.engine.inside.seen import Seen, Sight, version_of

_PREFIX = "_saved_"


class SavedTensors:
    """Reads, just after an operation, what its nodes have saved; not where hooks would run at it.

    Under torch.utils.checkpoint, and whatever else packs saved tensors away, reading one runs the forward again.
    """

    def __init__(self, sight: Sight, attributes: dict[type, list[str]]) -> None:
        self.by_node: dict[GraphNode, list[tuple[str, Seen]]] = {}
        self._sight = sight
        self._attributes = attributes  # by the node's type, as far as they have been looked up

    def read(self, nodes: Iterable[GraphNode], around: Sequence[tuple[Tensor, Seen]]) -> None:
        """Read those of some nodes; `around`: the operation's own tensors, mostly the ones that are saved."""
        if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
            return
        with torch.no_grad():
            for node in nodes:
                if isinstance(node, torch._C._FunctionBase):
                    continue  # a custom Function's
                self.by_node[node] = [
                    (name.removeprefix(_PREFIX), self._meet(tensor, around))
                    for name in self._names(node)
                    for tensor in _tensors(node, name)
                ]

    def _names(self, node: GraphNode) -> list[str]:
        kind = type(node)
        if kind not in self._attributes:
            self._attributes[kind] = [name for name in dir(kind) if name.startswith(_PREFIX)]
        return self._attributes[kind]

    def _meet(self, tensor: Tensor, around: Sequence[tuple[Tensor, Seen]]) -> Seen:
        version = version_of(tensor)
        alike = (seen for own, seen in around if seen.version == version and _is_same(own, tensor))
        return next(alike, None) or self._sight.meet(tensor)


def _is_same(own: Tensor, saved: Tensor) -> bool:
    """Tell whether a saved tensor is one of the operation's own, of which torch may give another view."""
    if own is saved or own.layout is not torch.strided or saved.layout is not torch.strided:
        return own is saved
    return own.shape == saved.shape and own.stride() == saved.stride() and own.data_ptr() == saved.data_ptr()


def _tensors(node: GraphNode, name: str) -> list[Tensor]:
    """Read one attribute; what has been changed in place since cannot be read, as its backward will say."""
    try:
        value: Any = getattr(node, name)
    except RuntimeError:
        return []
    values = value if isinstance(value, (tuple, list)) else [value]
    return [each for each in values if isinstance(each, Tensor)]
