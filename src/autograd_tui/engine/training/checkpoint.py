"""A checkpoint: all that the next forward depends on, as it was just before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from autograd_tui.core.frame import Frame
from autograd_tui.core.optimizer_spec import OptimizerSpec
from autograd_tui.engine.training.global_state import GlobalSnapshot
from autograd_tui.engine.training.loop import Loop
from autograd_tui.engine.training.model_buffers import ModelBuffers
from autograd_tui.engine.training.python_state import PythonState, writable
from autograd_tui.engine.training.stats_reader import MOST_MEASURED, in_memory, shape_of

BARE_CHECKPOINT = 16 << 10  # bytes of one without tensors, about: random states, options, its frame


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Copies on the host; `put_back` reads them as often as wanted."""

    frame: Frame
    forwards: int
    params: dict[str, Tensor]
    holders: ModelBuffers  # the model's own tensors, since its forward may put others in their places
    buffers: dict[str, Tensor]
    attributes: PythonState  # what the forwards have left in Python
    remembers: bool  # whether any of it was not so in the beginning
    grads: dict[str, Tensor]  # those that are not None
    backwards: tuple[int, ...]
    used: tuple[bool, ...]
    requires_grad: tuple[bool, ...]
    optimizer: OptimizerSpec
    groups: list[dict[str, Any]]  # the optimizer's options, its parameters left out
    state: dict[str, dict[str, Any]]  # the optimizer's state by the parameter's name
    devices: dict[tuple[str, str], torch.device]  # where each tensor of the state belongs
    scheduler: dict[str, Any] | None
    mark: GlobalSnapshot

    def tensors(self) -> Iterator[Tensor]:
        """Give every tensor held."""
        for group in (self.params, self.buffers, self.grads, *self.state.values()):
            yield from (value for value in group.values() if isinstance(value, Tensor))

    @property
    def bytes(self) -> int:
        return BARE_CHECKPOINT + self.attributes.bytes + _bytes(self.tensors())


class Copier:
    """Copies tensors to the host, into memory that a dropped checkpoint no longer needs: fresh pages are slow."""

    def __init__(self, recycled: Checkpoint | None = None) -> None:
        self._free: dict[object, list[Tensor]] = {}
        for tensor in filter(_is_plain, recycled.tensors() if recycled else ()):
            self._free.setdefault(_kind(tensor), []).append(tensor)

    @torch.no_grad()
    def all(self, values: dict[str, Any]) -> dict[str, Any]:
        """Copy a dict of tensors, and of whatever else an optimizer keeps beside them."""
        with torch._C.DisableTorchFunctionSubclass():  # of classes of tensors that may do anything
            return {
                key: self._copy(value) if isinstance(value, Tensor) else deepcopy(value)
                for key, value in values.items()
            }

    def _copy(self, tensor: Tensor) -> Tensor:
        if tensor.is_meta or tensor.numel() > MOST_MEASURED:
            return tensor.detach()
        if not _is_plain(tensor):
            return tensor.detach().cpu().clone()
        free = self._free.get(_kind(tensor))
        room = free.pop() if free else torch.empty_like(tensor, device="cpu", requires_grad=False)
        return room.copy_(tensor.detach())


def size(loop: Loop) -> int:
    """Count the bytes that a checkpoint would take now."""
    states = (loop.optimizer.state.get(param, {}).values() for param in loop.params.values())
    buffers = ModelBuffers.of(loop.model)
    held = [*loop.params.values(), *buffers.tensors().values(), *chain.from_iterable(states)]
    grads = [param.grad for param in loop.params.values() if param.grad is not None]
    left = loop.attributes(buffers).bytes
    return BARE_CHECKPOINT + left + _bytes(each for each in held + grads if isinstance(each, Tensor))


def can_be_taken(loop: Loop) -> bool:
    """Tell whether a forward from here depends on nothing but what can be copied, so on no graph that is used up."""
    if loop.carries is False:
        return True
    buffers = ModelBuffers.of(loop.model)
    return not loop.attached(buffers.tensors().values(), loop.attributes(buffers))


def take(loop: Loop, frame: Frame, recycled: Checkpoint | None = None) -> Checkpoint:
    """Copy what a forward from here depends on; call it inside the loop's surroundings."""
    copier = Copier(recycled)
    optimizer, params, holders = loop.optimizer, loop.params, ModelBuffers.of(loop.model)
    attributes = loop.attributes(holders)
    return Checkpoint(
        frame=frame,
        forwards=loop.forwards,
        params=copier.all(params),
        holders=holders,
        buffers=copier.all(holders.tensors()),
        attributes=attributes,
        remembers=any(True for _ in attributes.since(loop.begun)),
        grads=copier.all({name: param.grad for name, param in params.items() if param.grad is not None}),
        backwards=tuple(loop.backwards),
        used=tuple(loop.used),
        requires_grad=tuple(param.requires_grad for param in params.values()),
        optimizer=loop.spec,
        groups=[deepcopy({key: group[key] for key in group if key != "params"}) for group in optimizer.param_groups],
        state={name: copier.all(optimizer.state[param]) for name, param in params.items() if param in optimizer.state},
        devices={
            (name, key): value.device
            for name, param in params.items()
            for key, value in optimizer.state.get(param, {}).items()
            if isinstance(value, Tensor)
        },
        scheduler=deepcopy(loop.scheduler.state_dict()) if loop.scheduler else None,
        mark=loop.surroundings.mark_closely(),
    )


def put_back(loop: Loop, checkpoint: Checkpoint) -> None:
    """Bring the loop back to `checkpoint`, without a graph; call it inside the loop's surroundings."""
    # load_state_dict would alias the checkpoint and change dtypes, so the state is put in by hand, copied once more.
    loop.loss = loop.prediction = loop.batch = None
    loop.graph = "none"
    for (name, param), wanted in zip(loop.params.items(), checkpoint.requires_grad, strict=True):
        if param.requires_grad is not wanted:
            param.requires_grad_(wanted)
        _fill(param, checkpoint.params[name])
        grad = checkpoint.grads.get(name)
        param.grad = None if grad is None else grad.to(param.device, copy=True)
    checkpoint.holders.put_back(checkpoint.buffers)
    checkpoint.attributes.put_back()
    loop.start_optimizer(checkpoint.optimizer, [float(group["lr"]) for group in checkpoint.groups])
    for group, options in zip(loop.optimizer.param_groups, checkpoint.groups, strict=True):
        group.update(deepcopy(options))
    for name, state in checkpoint.state.items():
        loop.optimizer.state[loop.params[name]] = {
            key: value.to(checkpoint.devices[name, key], copy=True) if isinstance(value, Tensor) else deepcopy(value)
            for key, value in state.items()
        }
    if loop.scheduler is not None and checkpoint.scheduler is not None:
        loop.scheduler.load_state_dict(deepcopy(checkpoint.scheduler))
    loop.forwards = checkpoint.forwards
    loop.backwards, loop.used = list(checkpoint.backwards), list(checkpoint.used)
    loop.surroundings.return_to(checkpoint.mark)


def _fill(param: Tensor, copy: Tensor) -> None:
    """Put the values back, and where somebody has changed them, shape, dtype and memory too."""
    if shape_of(param) != shape_of(copy) or param.dtype != copy.dtype or not in_memory(param):
        param.data = copy.to(param.device, copy=True)
    elif writable(param):
        param.detach().copy_(copy)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _is_plain(tensor: Tensor) -> bool:
    """Tell whether the tensor has one block of memory, and strides into it."""
    return tensor.layout is torch.strided and not tensor.is_nested


def _kind(tensor: Tensor) -> object:
    return tensor.shape, tensor.dtype, tensor.stride()
