"""Copies of many tensors at once: one launch for all of a dtype, on the device itself or to and from the host."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.engine.training.tensor_properties import MAX_MEASURED_VALUES

CPU = torch.device("cpu")
_PLAIN_CLASSES = (Tensor, nn.Parameter, nn.Buffer)  # others may know no call for many tensors


class CopyBatch:
    """Tensors that are to be filled from others: `run` copies all of them.

    Those of one dtype on one device are copied in one call, which is one launch on an accelerator. Between a device and
    pinned memory of the host nothing is waited for: whoever reads on the host must synchronize before.
    """

    def __init__(self) -> None:
        self._groups: dict[object, tuple[list[Tensor], list[Tensor]]] = {}  # targets and sources

    def add(self, target: Tensor, source: Tensor) -> None:
        """Have `target` filled from `source`, of the same shape; a class of its own must not need a gradient."""
        key: object = (target.dtype, target.device) if _can_join(target, source) else len(self._groups)
        targets, sources = self._groups.setdefault(key, ([], []))
        targets.append(target)
        sources.append(source)

    def clone(self, source: Tensor, device: torch.device) -> Tensor:
        """Return a tensor on a device that will be a copy of `source`."""
        if not has_one_block(source):
            return source.to(device, copy=True)
        target = torch.empty_like(source, device=device, requires_grad=False)
        self.add(target, source)
        return target

    def run(self) -> None:
        """Copy everything that was added."""
        self.repeat()
        self._groups = {}

    @torch.no_grad()
    def repeat(self) -> None:
        """Copy everything that was added, and hold it to be copied again."""
        for targets, sources in self._groups.values():
            if len(targets) > 1:
                torch._foreach_copy_(targets, sources)
            else:
                targets[0].copy_(sources[0], non_blocking=_is_pinned_way(targets[0], sources[0]))


class TensorCopier:
    """Makes copies to be kept, in memory of dropped ones where they fit: fresh memory is slow.

    on_device: each copy stays on the device of its tensor; otherwise it lies on the host, `pinned` where it comes from
    an accelerator. What it returns is a copy after `finish`.
    """

    def __init__(self, recycled: Iterable[Tensor] = (), *, on_device: bool = False, pinned: bool = False) -> None:
        self._on_device, self._pinned = on_device, pinned
        self._batch = CopyBatch()
        self._free: dict[object, list[Tensor]] = {}
        for tensor in filter(has_one_block, recycled):
            self._free.setdefault(_kind(tensor, tensor.device), []).append(tensor)

    @torch.no_grad()
    def all(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return copies of tensors, and of whatever else an optimizer keeps beside them."""
        with torch._C.DisableTorchFunctionSubclass():  # of classes of tensors that may do anything
            return {
                key: self._copy(value) if isinstance(value, Tensor) else deepcopy(value)
                for key, value in values.items()
            }

    def finish(self) -> None:
        """Copy; what goes from an accelerator into pinned memory is there only once that was synchronized."""
        self._batch.run()

    def _copy(self, tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        if tensor.is_meta or tensor.numel() > MAX_MEASURED_VALUES:
            return tensor
        if not has_one_block(tensor):
            return tensor.cpu().clone()
        device = tensor.device if self._on_device else CPU
        free = self._free.get(_kind(tensor, device))
        copy = free.pop() if free else self._empty_like(tensor, device)
        self._batch.add(copy, tensor)
        return copy

    def _empty_like(self, tensor: Tensor, device: torch.device) -> Tensor:
        if self._pinned and device == CPU and tensor.device != CPU:
            try:
                return torch.empty_like(tensor, device=device, pin_memory=True)
            except RuntimeError:  # no more memory can be pinned
                self._pinned = False
        return torch.empty_like(tensor, device=device)


def has_one_block(tensor: Tensor) -> bool:
    """Return whether the tensor has one block of memory, and strides into it."""
    return tensor.layout is torch.strided and not tensor.is_nested


def _can_join(target: Tensor, source: Tensor) -> bool:
    """Return whether a copy can be made in one call with others of its dtype."""
    return (
        target.device == source.device
        and target.dtype == source.dtype
        and type(target) in _PLAIN_CLASSES
        and type(source) in _PLAIN_CLASSES
        and has_one_block(target)
        and has_one_block(source)
        and not (target.is_quantized or target.is_conj() or target.is_neg() or source.is_conj() or source.is_neg())
    )


def _is_pinned_way(target: Tensor, source: Tensor) -> bool:
    """Return whether a copy is one between a device and pinned memory of the host, which need not be waited for."""
    if target.device.type == source.device.type:
        return False
    host = target if target.device.type == "cpu" else source
    return host.device.type == "cpu" and has_one_block(host) and host.is_pinned()


def _kind(tensor: Tensor, device: torch.device) -> object:
    return tensor.shape, tensor.dtype, tensor.stride(), device
