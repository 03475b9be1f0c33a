"""An accelerator that is none: a backend of PyTorch in Python, which computes on the CPU and counts what is read back.

Its tensors have PyTorch's own class and dispatch key, `pretended:0` for a device, host memory that no CPU kernel takes,
and random numbers of its own. Registering it changes a process for good: `torch.accelerator` tells of it from then on.

It proves what is asked of a device and how often something waits for it. It does not prove what kernels compute, how
long anything takes, what runs beside what, or what a second card does.
"""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretended"
CPU = torch.device("cpu")
_aten = torch.ops.aten
_cpu_kernels = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
_memory: dict[int, Tensor] = {}  # the host tensors whose memory is the device's, by address
_bytes_held = 0  # by them
_rng_state = torch.get_rng_state()
capacity = 1 << 50  # bytes; a tensor that would not fit into what is left of them is not made
readbacks: Counter[str] = Counter()  # what was read back, by file and line
launches: Counter[str] = Counter()  # by operation


class _Module(_DummyBackendModule):
    """What `torch.pretended` is: random numbers of its own, and nothing beside them."""

    def get_rng_state(self, device: Any = NAME) -> Tensor:
        return _rng_state.clone()

    def set_rng_state(self, state: Tensor, device: Any = NAME) -> None:
        global _rng_state
        _rng_state = state.clone()

    def manual_seed_all(self, seed: int) -> None:
        self.set_rng_state(torch.Generator().manual_seed(seed).get_state())

    def mem_get_info(self, device: Any = NAME) -> tuple[int, int]:
        return capacity - memory_held(), capacity

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def register() -> None:
    """Make it the accelerator of this process."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    torch.accelerator.current_device_index = lambda: 0
    torch.accelerator.synchronize = lambda device=None: None
    torch.accelerator.memory_allocated = torch.accelerator.memory_reserved = memory_held
    torch.accelerator.max_memory_allocated = memory_held
    torch.accelerator.empty_cache = lambda: None
    fallback = torch.library.Library("_", "IMPL")
    fallback.fallback(_run, "PrivateUse1")
    own = torch.library.Library("aten", "IMPL")
    for name, function in {
        "empty.memory_format": _empty,
        "empty_strided": _empty_strided,
        "resize_": _resize_,
        "_copy_from": _copy_from,
        "_local_scalar_dense": _local_scalar_dense,
        "_foreach_copy_": lambda *args, **kwargs: _run(_aten._foreach_copy_.default, *args, **kwargs),
        "_foreach_norm.Scalar": lambda *args, **kwargs: _run(_aten._foreach_norm.Scalar, *args, **kwargs),
        "convolution_overrideable": lambda *args: _run(_aten.convolution.default, *args),
        "convolution_backward_overrideable": _convolution_backward,
        "set_.source_Storage_storage_offset": _view_kernel("set_.source_Storage_storage_offset"),
        **{each: _view_kernel(each) for each in ("as_strided", "view", "_reshape_alias", "unfold", "view.dtype")},
    }.items():
        own.impl(name, function, "PrivateUse1")
    _libraries.extend((fallback, own))


def limit_memory(room: int) -> None:
    """Let no more than `room` bytes be taken beside what tensors hold now."""
    global capacity
    capacity = memory_held() + room


def memory_held(device: Any = NAME) -> int:
    """Return the bytes that all its tensors hold."""
    return _bytes_held


_libraries: list[torch.library.Library] = []  # which take their kernels with them when they are dropped


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count what is read back inside `with`, by file and line of whoever asked for it."""
    before = readbacks.copy()
    found: Counter[str] = Counter()
    yield found
    found.update(readbacks - before)


@contextmanager
def counted_launches() -> Iterator[Counter[str]]:
    """Count what is launched inside `with`, by operation."""
    before = launches.copy()
    found: Counter[str] = Counter()
    yield found
    found.update(launches - before)


def _device_tensor(host: Tensor) -> Tensor:
    """Return a tensor of the device in the memory of a host tensor, which nobody else uses."""
    global _bytes_held
    storage = host.untyped_storage()
    if _bytes_held + storage.nbytes() > capacity:
        raise torch.OutOfMemoryError(f"{NAME} out of memory. Tried to allocate {storage.nbytes()} bytes.")
    address = storage.data_ptr()
    there = torch._C._construct_storage_from_data_pointer(address, torch.device(NAME, 0), storage.nbytes())
    if address:
        _memory[address] = host
        _bytes_held += storage.nbytes()
        weakref.finalize(there, _free, address)
    tensor: Tensor = torch._C._acc.create_empty_tensor((0,), host.dtype)
    set_ = _aten.set_.source_Storage_storage_offset
    set_.redispatch(_cpu_kernels, tensor, there, host.storage_offset(), host.shape, host.stride())
    return tensor


def _free(address: int) -> None:
    global _bytes_held
    _bytes_held -= _memory.pop(address).untyped_storage().nbytes()


def _host_view(value: Any) -> Any:
    """Return a host tensor in the memory of a tensor of the device; the CPU for the device; anything else as it is."""
    if isinstance(value, torch.device):
        return CPU if value.type == NAME else value
    if not isinstance(value, Tensor) or value.device.type != NAME:
        return value
    storage = value.untyped_storage()
    if not storage.nbytes():  # memory that an operation may make larger, unlike what is made from an address
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)
    here = torch._C._construct_storage_from_data_pointer(storage.data_ptr(), CPU, storage.nbytes())
    return torch.empty(0, dtype=value.dtype).set_(here, value.storage_offset(), value.shape, value.stride())


def _run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Run any operation on the CPU, with the device's random numbers, and give its results to the device."""
    global _rng_state
    launches[op.name()] += 1
    written: list[tuple[Tensor, Tensor]] = []

    def to_host(value: Any) -> Any:
        host = _host_view(value)
        if host is not value and isinstance(host, Tensor):
            written.append((host, value))
        return host

    def to_device(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.device.type != "cpu":
            return value
        same = next((there for host, there in written if host is value), None)
        if same is not None:
            return same
        shares = value.untyped_storage().data_ptr() in _memory and value.numel()
        return _device_tensor(value.clone() if shares else value)

    host_args, host_kwargs = tree_map(to_host, args), tree_map(to_host, kwargs)
    if op.name() in ("aten::equal", "aten::is_nonzero", "aten::nonzero", "aten::masked_select"):
        _note_readback()
    outside = torch.get_rng_state()
    torch.set_rng_state(_rng_state)
    try:
        result = op(*host_args, **host_kwargs)
    finally:
        _rng_state = torch.get_rng_state()
        torch.set_rng_state(outside)
    for host, there in written:
        _follow(there, host)
    return tree_map(to_device, result)


def _follow(there: Tensor, host: Tensor) -> None:
    """Give a tensor of the device the shape, and where it needs it the memory, that an operation gave its host view."""
    if (there.shape, there.stride()) == (host.shape, host.stride()):
        return
    storage = there.untyped_storage()
    if host.untyped_storage().data_ptr() != storage.data_ptr():
        storage = _device_tensor(host).untyped_storage()
    set_ = _aten.set_.source_Storage_storage_offset
    set_.redispatch(_cpu_kernels, there, storage, host.storage_offset(), host.shape, host.stride())


def _resize_(tensor: Tensor, size: Any, *, memory_format: Any = None) -> Tensor:
    host = _host_view(tensor)
    needed = torch.Size(size).numel() * tensor.element_size()
    fits = tensor.untyped_storage().nbytes() >= needed + tensor.storage_offset() * tensor.element_size()
    _follow(tensor, host.resize_(size) if fits else torch.empty(size, dtype=tensor.dtype))
    return tensor


def _empty(size: Any, *, dtype: Any = None, memory_format: Any = None, **_: Any) -> Tensor:
    return _device_tensor(torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format))


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    return _device_tensor(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    launches["aten::_copy_from"] += 1
    if target.device.type == "cpu":
        _note_readback()
    _host_view(target).copy_(_host_view(source))
    return target


def _local_scalar_dense(tensor: Tensor) -> Any:
    _note_readback()
    return _host_view(tensor).item()


def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, *options: Any) -> Any:
    return _run(_aten.convolution_backward.default, grad, x, weight, None, *options)


def _view_kernel(name: str) -> Any:
    """Return the CPU's kernel of a view, which looks at no memory and keeps the device."""
    packet, _, overload = name.partition(".")
    op = getattr(getattr(_aten, packet), overload or "default")
    return lambda *args, **kwargs: op.redispatch(_cpu_kernels, *args, **kwargs)


def _note_readback() -> None:
    """Count a readback for the innermost line of the package, else of whoever else asked."""
    frame: FrameType | None = sys._getframe(2)
    place = ""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if "autograd_tui" in path.parts:
            place = f"{path.name}:{frame.f_lineno}"
            break
        frame = frame.f_back
    readbacks[place or "elsewhere"] += 1
