"""Properties of any tensor that can be read without its values, and copies of many tensors at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)
MAX_MEASURED_VALUES = 1 << 36  # no memory holds as many, but a view that repeats one value may have them
_WITHOUT_NUMBERS = {torch.bool, torch.float4_e2m1fn_x2, torch.bits8, torch.bits16, torch.bits1x8, torch.bits2x4}
_MAX_INTEGER = 1 << 63  # that a tensor can hold
_TORCH_CLASSES = frozenset({Tensor, nn.Parameter, nn.Buffer})
CPU = torch.device("cpu")
_PLAIN_CLASSES = (Tensor, nn.Parameter, nn.Buffer)  # others may know no call for many tensors


@dataclass(frozen=True, slots=True)
class TensorKind:
    """What tensors have in common that are measured in the same way."""

    shape: tuple[int, ...]
    dtype: str  # "float32"
    device: torch.device
    measurable: bool
    sparse: bool

    @classmethod
    def of(cls, tensor: Tensor) -> TensorKind:
        dtype = str(tensor.dtype).removeprefix("torch.")
        return cls(shape_of(tensor), dtype, tensor.device, is_measurable(tensor), tensor.layout in SPARSE)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def reals(self) -> int:
        """The real numbers that are measured: two for each complex one."""
        return self.size * (2 if self.dtype.startswith("complex") else 1)


def kind_key(tensor: Tensor) -> object:
    """Return a dictionary key that tensors of one `TensorKind` share; far quicker than the kind itself."""
    shape = shape_of(tensor) if tensor.is_nested else tensor.shape
    return shape, tensor.dtype, tensor.device, tensor.layout


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """Return the shape; a nested tensor has none, and counts as one row of all its values."""
    return (tensor.numel(),) if tensor.is_nested else tuple(tensor.shape)


def has_shape(value: Any) -> TypeGuard[Tensor]:
    """Return whether a value is a tensor with a shape, which a lazy module's has not yet."""
    return type(value) in _TORCH_CLASSES or (isinstance(value, Tensor) and not nn.parameter.is_lazy(value))


def is_measurable(tensor: Tensor) -> bool:
    """Return whether the tensor has numbers to measure: bool, quantized, nested, packed and empty ones have not."""
    if tensor.is_meta or tensor.is_nested or not (tensor.layout is torch.strided or tensor.layout in SPARSE):
        return False
    return 0 < tensor.numel() < MAX_MEASURED_VALUES and not (tensor.dtype in _WITHOUT_NUMBERS or tensor.is_quantized)


def is_number_or_tensor(value: Any) -> TypeGuard[Tensor | float]:
    """Return whether a value of an optimizer's state can be measured: it is no text or the like."""
    return has_shape(value) or (isinstance(value, (int, float)) and abs(value) < _MAX_INTEGER)


def in_memory(value: Any) -> bool:
    """Return whether a tensor's values exist: `untyped_storage().resize_` may have given their memory back.

    True for everything but plain tensors. PyTorch ends the program where it reads values that do not exist.
    """
    if type(value) not in _TORCH_CLASSES or value.layout is not torch.strided or value.is_nested:
        return True
    storage_size: int = value.untyped_storage().nbytes()
    offset, nbytes = value.storage_offset(), value.nbytes
    if storage_size >= nbytes and not offset:
        return True
    item = value.element_size()
    if storage_size >= offset * item + nbytes or not nbytes or value.is_meta:
        return True
    # An expanded view has fewer values in memory than in its shape.
    last = sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
    return bool(storage_size >= (value.storage_offset() + last + 1) * item)


def is_writable(tensor: Tensor) -> bool:
    """Return whether PyTorch can write into the tensor: not where several of its values share memory."""
    if tensor.is_nested or tensor.layout is not torch.strided:
        return True
    return all(stride or size < 2 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))


def version_of(tensor: Tensor) -> int:
    """Return how often the tensor was changed in place; 0 for inference tensors, which do not count it."""
    try:
        return tensor._version
    except RuntimeError:
        return 0


def storage_address(tensor: Tensor) -> int:
    """Return the address of the memory that a tensor shares with its views."""
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else -id(tensor)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a value of any shape, such as a batch or the arguments of a call."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (dict, tuple, list)):
        for each in value.values() if isinstance(value, dict) else value:
            if isinstance(each, Tensor):
                yield each
            elif isinstance(each, (dict, tuple, list)):  # a generator for each number would cost more than the rest
                yield from tensors_in(each)


def stored_values(tensor: Tensor) -> Tensor:
    """Return the values that a sparse tensor stores, those at one index added up; a dense tensor as it is."""
    if tensor.layout not in SPARSE:
        return tensor
    return (tensor.coalesce() if tensor.layout is torch.sparse_coo else tensor).values()


def as_real_floats(tensor: Tensor) -> Tensor:
    """Return the tensor, detached, in float32 or float64; a complex one as real numbers, (..., 2)."""
    tensor = tensor.detach()
    if tensor.dtype in (torch.float32, torch.float64):
        return tensor
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
        if tensor.dtype in (torch.float32, torch.float64):
            return tensor
    return tensor.float() if tensor.is_floating_point() or tensor.device.type == "mps" else tensor.double()


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
