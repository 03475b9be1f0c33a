"""The autograd graph below a loss, in order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from autograd_tui.core.trace import Node

GraphNode = Any  # torch.autograd.graph.Node, whose subclasses have attributes that it does not name


class AutogradGraph:
    """The nodes from the loss down: none stands before one that leads to it. It holds them, so that each stays one."""

    def __init__(self, loss: Tensor | None) -> None:
        self.nodes = _ordered(loss)
        self.number = {node: number for number, node in enumerate(self.nodes)}

    def to_nodes(
        self,
        params: Mapping[int, str],
        *,
        ops: Mapping[GraphNode, int] | None = None,
    ) -> tuple[Node, ...]:
        """Return the nodes as plain values, without what they saved; `params`: names by the parameter's id."""
        return tuple(
            Node(
                number,
                node_name(node),
                tuple(self.number.get(each) for each, _ in node.next_functions),
                param=leaf_name(node, params),
                op=(ops or {}).get(node),
            )
            for number, node in enumerate(self.nodes)
        )

    def in_degrees(self) -> list[int]:
        """Count, for each node, the edges on which gradients come to it."""
        counts = [0] * len(self.nodes)
        for node in self.nodes:
            for each, _ in node.next_functions:
                if each is not None:
                    counts[self.number[each]] += 1
        return counts


def root_node(tensor: Tensor) -> GraphNode | None:
    """Give the node that a tensor's gradient enters the graph by; None where nothing is followed."""
    return torch.autograd.graph.get_gradient_edge(tensor).node if tensor.requires_grad else None


def node_name(node: GraphNode) -> str:
    """Name a node as `grad_fn` shows it, without the C++ namespace that some have."""
    return str(node.name()).rpartition("::")[2]


def leaf_name(node: GraphNode, params: Mapping[int, str]) -> str | None:
    """Give the parameter that an AccumulateGrad fills: "" for another leaf, None for another node."""
    if not is_leaf(node):
        return None
    return params.get(id(node.variable), "")


def is_leaf(node: GraphNode) -> bool:
    """Tell whether a node adds to a tensor's `.grad`."""
    return bool(node.name().endswith("AccumulateGrad"))


def _ordered(loss: Tensor | None) -> list[GraphNode]:
    root = None if loss is None else root_node(loss)
    finished: list[GraphNode] = []
    seen: set[GraphNode] = set()
    stack: list[tuple[GraphNode, bool]] = [(root, False)] if root is not None else []
    while stack:
        node, done = stack.pop()
        if done:
            finished.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(each, False) for each, _ in node.next_functions if each is not None and each not in seen]
    return finished[::-1]
