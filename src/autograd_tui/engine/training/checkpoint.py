"""A checkpoint: copies of all that the next forward depends on, taken just before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from autograd_tui.core.frame import Frame
from autograd_tui.core.optimizer_spec import OptimizerSpec
from autograd_tui.engine.training.forward_snapshot import ModelBuffers
from autograd_tui.engine.training.global_state import GlobalSnapshot
from autograd_tui.engine.training.python_state import PythonState
from autograd_tui.engine.training.state import TrainingState
from autograd_tui.engine.training.tensor_properties import (
    CPU,
    CopyBatch,
    TensorCopier,
    in_memory,
    is_writable,
    shape_of,
)
from autograd_tui.engine.training.user_code import is_out_of_memory

BARE_CHECKPOINT = 16 << 10  # bytes of a checkpoint without tensors, about: random states, options, its frame


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Copies owned by the checkpoint, safe to restore from repeatedly, on the host or each on its tensor's own device.

    Files have its fields by name.
    """

    frame: Frame
    forwards: int
    params: dict[str, Tensor]
    model_buffers: ModelBuffers  # the model's own tensors, since its forward may put others in their places
    buffers: dict[str, Tensor]
    python: PythonState  # what the forwards have left in Python
    remembers: bool  # whether any of it differs from the beginning
    grads: dict[str, Tensor]  # that are not None
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
        """Yield every tensor that the checkpoint holds."""
        for group in (self.params, self.buffers, self.grads, *self.state.values()):
            yield from (value for value in group.values() if isinstance(value, Tensor))

    @property
    def bytes(self) -> int:
        return BARE_CHECKPOINT + self.python.bytes + _bytes(self.tensors())

    @property
    def is_on_device(self) -> bool:
        """Whether copies of it take memory of an accelerator."""
        return any(not (each.device == CPU or each.is_meta) for each in self.tensors())

    def on_host(self) -> Checkpoint:
        """Return it with all its copies on the host, where they can be read at once."""
        if not self.is_on_device:
            return self
        copier = TensorCopier()
        on_host = replace(
            self,
            params=copier.all(self.params),
            buffers=copier.all(self.buffers),
            grads=copier.all(self.grads),
            state={name: copier.all(entry) for name, entry in self.state.items()},
        )
        copier.finish()
        return on_host


def checkpoint_size(state: TrainingState) -> int:
    """Return the bytes that a checkpoint would take now."""
    entries = (state.optimizer.state.get(param, {}).values() for param in state.params.values())
    buffers = ModelBuffers.of(state.model)
    tensors = [*state.params.values(), *buffers.tensors().values(), *chain.from_iterable(entries)]
    tensors += [param.grad for param in state.params.values() if param.grad is not None]
    python_bytes = state.python_state(buffers).bytes
    return BARE_CHECKPOINT + python_bytes + _bytes(each for each in tensors if isinstance(each, Tensor))


def can_take_checkpoint(state: TrainingState) -> bool:
    """Return whether the next forward depends on nothing but what can be copied, so on no earlier graph."""
    if state.graph_carries_over is False:
        return True
    buffers = ModelBuffers.of(state.model)
    return not state.carried(buffers.tensors().values(), state.python_state(buffers))


def take_checkpoint(
    state: TrainingState, frame: Frame, recycled: Checkpoint | None = None, *, on_device: bool = False
) -> Checkpoint:
    """Return a checkpoint, in the memory of the `recycled` one, if any; call it inside the state's `global_state`.

    `on_device`: it stays on the accelerator, if there is one and it has the memory; otherwise it goes to the host.
    """
    accelerator, tensors = state.accelerator, recycled.tensors() if recycled else ()
    if accelerator is None:
        return _copied(state, frame, TensorCopier(tensors))
    if on_device:
        try:
            return _copied(state, frame, TensorCopier(tensors, on_device=True))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        accelerator.empty_cache()
    checkpoint = _copied(state, frame, TensorCopier(tensors, pinned=accelerator.can_pin))
    accelerator.synchronize()  # once for all copies: whoever reads them on the host need not know of it
    return checkpoint


def _copied(state: TrainingState, frame: Frame, copier: TensorCopier) -> Checkpoint:
    optimizer, params, model_buffers = state.optimizer, state.params, ModelBuffers.of(state.model)
    python = state.python_state(model_buffers)
    checkpoint = Checkpoint(
        frame=frame,
        forwards=state.forwards,
        params=copier.all(params),
        model_buffers=model_buffers,
        buffers=copier.all(model_buffers.tensors()),
        python=python,
        remembers=any(True for _ in python.changes_since(state.initial_python)),
        grads=copier.all({name: param.grad for name, param in params.items() if param.grad is not None}),
        backwards=tuple(state.backwards),
        used=tuple(state.used),
        requires_grad=tuple(param.requires_grad for param in params.values()),
        optimizer=state.spec,
        groups=[deepcopy({key: group[key] for key in group if key != "params"}) for group in optimizer.param_groups],
        state={name: copier.all(optimizer.state[param]) for name, param in params.items() if param in optimizer.state},
        devices={
            (name, key): value.device
            for name, param in params.items()
            for key, value in optimizer.state.get(param, {}).items()
            if isinstance(value, Tensor)
        },
        scheduler=deepcopy(state.scheduler.state_dict()) if state.scheduler else None,
        mark=state.global_state.exact_snapshot(),
    )
    copier.finish()
    return checkpoint


def restore_checkpoint(state: TrainingState, checkpoint: Checkpoint) -> None:
    """Return the state to `checkpoint`, without a graph; call it inside the state's `global_state`."""
    # load_state_dict would alias the checkpoint and change dtypes, so all is copied once more by hand.
    state.loss = state.prediction = state.batch = None
    state.graph = "none"
    for param in state.params.values():
        param.grad = None  # before memory is taken for what comes in its place
    copies = CopyBatch()
    for (name, param), wanted in zip(state.params.items(), checkpoint.requires_grad, strict=True):
        if param.requires_grad is not wanted:
            param.requires_grad_(wanted)
        _fill(copies, param, checkpoint.params[name])
        if name in checkpoint.grads:
            param.grad = copies.clone(checkpoint.grads[name], param.device)
    copies.run()  # before the optimizer is made, which may look at the parameters
    checkpoint.model_buffers.restore(checkpoint.buffers)
    checkpoint.python.restore()
    state.start_optimizer(checkpoint.optimizer, [float(group["lr"]) for group in checkpoint.groups])
    for group, options in zip(state.optimizer.param_groups, checkpoint.groups, strict=True):
        group.update(deepcopy(options))
    for name, entry in checkpoint.state.items():
        state.optimizer.state[state.params[name]] = {
            key: copies.clone(value, checkpoint.devices[name, key]) if isinstance(value, Tensor) else deepcopy(value)
            for key, value in entry.items()
        }
    copies.run()
    if state.scheduler is not None and checkpoint.scheduler is not None:
        state.scheduler.load_state_dict(deepcopy(checkpoint.scheduler))
    state.forwards = checkpoint.forwards
    state.backwards, state.used = list(checkpoint.backwards), list(checkpoint.used)
    state.global_state.restore(checkpoint.mark)


def _fill(copies: CopyBatch, param: Tensor, copy: Tensor) -> None:
    """Have the batch fill a parameter from its copy; where shape, dtype or memory were changed, give it new memory."""
    if shape_of(param) != shape_of(copy) or param.dtype != copy.dtype or not in_memory(param):
        param.data = copy.to(param.device, copy=True)
    elif is_writable(param):
        copies.add(param.detach(), copy)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
