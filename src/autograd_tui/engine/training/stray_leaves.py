"""Stray leaves: tensors that a backward's gradient reaches and that are no parameters of the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.core.frame import StrayLeaf
from autograd_tui.engine.training.captured_variables import is_user_written, read_variable
from autograd_tui.engine.training.state import TrainingState, graph_nodes
from autograd_tui.engine.training.tensor_properties import tensors_in

MAX_DEPTH = 4  # levels of lists, dicts and objects that are searched


def find_strays(state: TrainingState) -> tuple[StrayLeaf, ...]:
    """Return the stray leaves in the graph of the last loss, with what holds each; () where there is no loss."""
    if state.loss is None:
        return ()
    params = {id(param) for param in state.params.values()}
    batch = {_memory(each) for each in tensors_in(state.batch)}
    leaves = {id(leaf): leaf for leaf in _leaves(state.loss)}
    strays = {key: leaf for key, leaf in leaves.items() if key not in params and _memory(leaf) not in batch}
    if not strays:
        return ()
    holders: dict[int, tuple[str, str]] = {}  # kind and path, by the leaf's id
    held = sorted(_held_tensors(state), key=lambda each: each[2].grad_fn is not None)  # the leaves themselves first
    for kind, path, tensor in held:
        if tensor.grad_fn is None:
            holders.setdefault(id(tensor), (kind, path))
        elif (own := {id(each) for each in _leaves(tensor)}) <= strays.keys():  # not an output, which has them all
            for each in own:
                holders.setdefault(each, ("changed", path))
    # What nothing holds and is no nn.Parameter was made by the forward itself, to be differentiated by.
    return tuple(
        StrayLeaf(tuple(leaf.shape), *holders.get(key, ("", "")))
        for key, leaf in strays.items()
        if key in holders or isinstance(leaf, nn.Parameter)
    )


def _leaves(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the leaves of a tensor's graph, those nearest to its root first."""
    return (node.variable for node in graph_nodes(tensor) if hasattr(node, "variable"))


def _held_tensors(state: TrainingState) -> Iterator[tuple[str, str, Tensor]]:
    """Yield tensors that are no parameters of the model: the kind of holder, the path as code writes it, the tensor."""
    for name, module in state.model.named_modules():
        for attribute, value in vars(module).items():
            if attribute not in ("_parameters", "_modules"):
                yield from _inside(value, ".".join(filter(None, ("model", name, str(attribute)))), "attribute")
    loss = state.parts.loss
    if isinstance(loss, nn.Module):
        yield from (("loss", name, param) for name, param in loss.named_parameters())
    for variable in state.reachable.captured.variables.values():
        for value in read_variable(variable):
            yield from _inside(value, variable.path, "outside")


def _inside(value: Any, path: str, kind: str, depth: int = 0) -> Iterator[tuple[str, str, Tensor]]:
    if isinstance(value, Tensor):
        yield kind, path, value
    elif isinstance(value, nn.Module):
        yield from ((kind, path, param) for param in value.parameters())
    elif isinstance(value, (list, tuple, dict)) and depth < MAX_DEPTH:
        container = ("dict of " if isinstance(value, dict) else "list of ") * (kind == "attribute")
        for each in value.values() if isinstance(value, dict) else value:
            content = "modules" if isinstance(each, nn.Module) else "tensors"
            yield from _inside(each, path, f"{container}{content}" if container else kind, depth + 1)
    elif is_user_written(type(value)) and depth < MAX_DEPTH:
        for each in getattr(value, "__dict__", {}).values():
            yield from _inside(each, path, kind, depth + 1)


def _memory(tensor: Tensor) -> int:
    """Return a key of the tensor's memory, which a `detach` shares."""
    return tensor.data_ptr() if tensor.layout is torch.strided and tensor.numel() else -id(tensor)
