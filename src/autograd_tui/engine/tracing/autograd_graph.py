"""The autograd graph below a loss: its nodes in order, and the tensors that they save for their backward."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from autograd_tui.core.trace import LazySequence, Node
from autograd_tui.engine.tracing.tensor_registry import TensorRecord, TensorRegistry
from autograd_tui.engine.training.tensor_properties import storage_address, version_of

GraphNode = Any  # torch.autograd.graph.Node, whose subclasses have attributes that it does not name
_SAVED_PREFIX = "_saved_"
_LEAF = "AccumulateGrad"  # the name of a node that adds to a `.grad`, behind its namespace
_VERSION_IN_ERROR = re.compile(r"is at version (\d+)")


class AutogradGraph:
    """The nodes from the loss down, each after all nodes that lead to it.

    It holds them: PyTorch makes a new Python object of a node that nobody holds, and identity would be lost.
    """

    def __init__(self, loss: Tensor | None) -> None:
        self.nodes, following = _ordered(loss)
        self.number = number = {node: index for index, node in enumerate(self.nodes)}
        # Of each node, where its gradients go: to which node, None where autograd follows nothing, as which input.
        self.edges = [[(number.get(target), entry) for target, entry in following[node]] for node in self.nodes]

    def to_nodes(self, params: Mapping[int, str], *, ops: Mapping[GraphNode, int] | None = None) -> Sequence[Node]:
        """Return the nodes as plain values, without what they saved.

        `params`: names by the parameter's id. `ops`: the number of the operation that created each node.
        """
        ops = ops or {}
        plain: list[tuple[str, str | None, int | None]] = []
        for node in self.nodes:
            name = node_name(node)
            plain.append((name, params.get(id(node.variable), "") if name.endswith(_LEAF) else None, ops.get(node)))
        edges = self.edges

        def nodes() -> Iterator[Node]:
            for number, ((name, param, op), following) in enumerate(zip(plain, edges, strict=True)):
                yield Node(number, name, tuple(target for target, _ in following), param=param, op=op)

        return LazySequence(len(plain), nodes)

    def in_degrees(self) -> list[int]:
        """Return, for each node, the number of edges on which gradients come to it."""
        counts = [0] * len(self.nodes)
        for following in self.edges:
            for target, _ in following:
                if target is not None:
                    counts[target] += 1
        return counts


def root_node(tensor: Tensor) -> GraphNode | None:
    """Return the node by which a tensor's gradient enters the graph; None for a tensor that requires none."""
    return torch.autograd.graph.get_gradient_edge(tensor).node if tensor.requires_grad else None


def node_name(node: GraphNode) -> str:
    """Return a node's name as `grad_fn` shows it, without the C++ namespace that some have."""
    return str(node.name()).rpartition("::")[2]


def is_leaf(node: GraphNode) -> bool:
    """Return whether a node adds to a tensor's `.grad`."""
    return bool(node.name().endswith(_LEAF))


def _ordered(loss: Tensor | None) -> tuple[list[GraphNode], dict[GraphNode, Sequence[tuple[GraphNode, int]]]]:
    """Return the nodes in order, and of each the nodes that follow it, asked for once."""
    root = None if loss is None else root_node(loss)
    finished: list[GraphNode] = []
    following: dict[GraphNode, Sequence[tuple[GraphNode, int]]] = {}
    stack: list[tuple[GraphNode, bool]] = [(root, False)] if root is not None else []
    while stack:
        node, done = stack.pop()
        if done:
            finished.append(node)
        elif node not in following:
            following[node] = node.next_functions
            stack.append((node, True))
            stack += [(each, False) for each, _ in following[node] if each is not None and each not in following]
    return finished[::-1], following


@dataclass(slots=True)
class SavedTensor:
    """A tensor that a node has saved for its backward."""

    node: GraphNode
    attribute: str  # of the node: "_saved_self"
    record: TensorRecord
    storage: int  # its address
    changed_by: list[int] = field(default_factory=list)  # operations that have changed it in place since

    @property
    def role(self) -> str:
        return self.attribute.removeprefix(_SAVED_PREFIX)

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
        """How often it has been changed in place by now; None where that is no more than when it was saved."""
        try:
            getattr(self.node, self.attribute)
        except RuntimeError as error:
            match = _VERSION_IN_ERROR.search(str(error))
            return int(match[1]) if match else None
        return None


class SavedTensors:
    """Reads, just after an operation, what its nodes have saved; nothing where saved-tensor hooks are set.

    Under torch.utils.checkpoint, and whatever else packs saved tensors away, reading one runs the forward again.
    """

    def __init__(self, registry: TensorRegistry, attributes: dict[type, list[str]]) -> None:
        self.by_node: dict[GraphNode, list[SavedTensor]] = {}
        self._by_storage: dict[int, list[SavedTensor]] = {}
        self._registry = registry
        self._attributes = attributes  # by the node's type, as far as they have been looked up

    def read_nodes(self, nodes: Iterable[GraphNode], own_tensors: Sequence[tuple[Tensor, TensorRecord]]) -> None:
        """Read what `nodes` have saved; `own_tensors`: those of the operation, mostly the ones that are saved."""
        if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
            return
        for node in nodes:
            if isinstance(node, torch._C._FunctionBase):
                continue  # a custom Function's
            try:
                saved = [
                    SavedTensor(node, name, self._record(tensor, own_tensors), storage_address(tensor))
                    for name, tensor in self._tensors(node)
                ]
            except RuntimeError:  # freed by a backward, or changed in place: of an older graph
                continue
            self.by_node[node] = saved
            for each in saved:
                self._by_storage.setdefault(each.storage, []).append(each)

    def note_changes(self, tensors: Iterable[Tensor], operation: int) -> None:
        """Note in `changed_by` what an operation has changed in place, be it through a view."""
        for tensor in tensors:
            for saved in self._by_storage.get(storage_address(tensor), ()):
                if saved.version is not None and operation not in saved.changed_by:
                    saved.changed_by.append(operation)

    def _tensors(self, node: GraphNode) -> list[tuple[str, Tensor]]:
        """Return a node's saved tensors, each with its attribute; an attribute that holds others is not asked again.

        Raises RuntimeError for what has been freed or changed in place since.
        """
        kind = type(node)
        names = self._attributes.get(kind)
        if names is None:
            names = self._attributes[kind] = [name for name in dir(kind) if name.startswith(_SAVED_PREFIX)]
        tensors: list[tuple[str, Tensor]] = []
        others: list[str] = []
        for name in names:
            value = getattr(node, name)
            if isinstance(value, Tensor):
                tensors.append((name, value))
            elif isinstance(value, (tuple, list)):
                tensors += [(name, each) for each in value if isinstance(each, Tensor)]
            elif value is not None:
                others.append(name)
        if others:
            self._attributes[kind] = [name for name in names if name not in others]
        return tensors

    def _record(self, tensor: Tensor, own_tensors: Sequence[tuple[Tensor, TensorRecord]]) -> TensorRecord:
        version = version_of(tensor)
        for own, record in own_tensors:
            if own is tensor and record.version == version:
                return record
        for own, record in own_tensors:
            if record.version == version and _is_same(own, tensor):
                return record
        return self._registry.record(tensor)


def has_packed(node: GraphNode) -> bool:
    """Return whether a node has packed away what it saved: unpacking it may run a part of the forward again."""
    names = [name for name in dir(type(node)) if name.startswith(f"_raw{_SAVED_PREFIX}")]
    raw = [getattr(node, name, None) for name in names]
    saved = [one for each in raw for one in (each if isinstance(each, (tuple, list)) else [each]) if one is not None]
    return any(getattr(each, "unpack_hook", each) is not None for each in saved)


def _is_same(own: Tensor, saved: Tensor) -> bool:
    """Return whether a saved tensor is one of the operation's own, of which torch may return a new view."""
    if own.layout is not torch.strided or saved.layout is not torch.strided:
        return False
    return own.data_ptr() == saved.data_ptr() and own.shape == saved.shape and own.stride() == saved.stride()
