"""The device that a run trains on: whose turn it is on this thread, its memory, random numbers and load."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import Tensor

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import open_to_read
from autograd_tui.core.session_protocol import DeviceLoad

READ_SECONDS = 1.0  # between two readings, at least
_PROCESS_MEMORY = Path("/proc/self/statm")  # of Linux: pages, the second number those in memory


def choose_device(requested: str | None) -> str:
    """Return the device that is asked for; for None and "auto" the accelerator where there is one, else "cpu".

    Raises Refused, in one sentence, where this machine has none of that name.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if requested is None or requested == "auto":
        return "cpu" if accelerator is None else accelerator.type
    try:
        device = torch.device(requested)
    except RuntimeError:
        raise Refused(f'"{requested}" is no device: use auto, cpu, or cuda, cuda:1, mps, xpu.') from None
    if device.type == "cpu":
        if device.index:
            raise Refused(f"there is no {requested}: all of the CPU is one device, cpu.")
        return str(device)
    if accelerator is None or accelerator.type != device.type:
        available = "cpu alone" if accelerator is None else f"cpu and {accelerator.type}"
        raise Refused(f"there is no {device.type} device here: this machine has {available}{_why_not(device.type)}.")
    count = torch.accelerator.device_count()
    if (device.index or 0) >= count:
        devices = f"one, {device.type}:0" if count == 1 else f"{count}, {device.type}:0 to {device.type}:{count - 1}"
        raise Refused(f"there is no {requested}: this machine has {devices}.")
    return str(device)


def _why_not(device_type: str) -> str:
    """Return what a sentence about a missing device ends with where this PyTorch could not use one anyway."""
    built = {"cuda": torch.backends.cuda.is_built, "mps": torch.backends.mps.is_built}.get(device_type)
    return "" if built is None or built() else f", and this PyTorch was built without {device_type}"


def use_deterministic_algorithms() -> None:
    """Ask PyTorch for algorithms that give the same bits each time, in this process from here on.

    An operation that has none raises then. cuBLAS reads its setting when it starts: call it before CUDA is used.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def device_versions(device: str) -> dict[str, str]:
    """Return by name what else the numbers depend on: an accelerator's card and libraries, and deterministic flags.

    On a CPU there is nothing but the flags, and those only where they are set.
    """
    versions: dict[str, str] = {}
    if torch.device(device).type == "cuda":
        versions["card"] = torch.cuda.get_device_name(device)
        versions["cuda"] = torch.version.cuda or torch.version.hip or ""
        versions["cudnn"] = str(torch.backends.cudnn.version() or "")  # type: ignore[no-untyped-call]
    if torch.are_deterministic_algorithms_enabled():
        versions["algorithms"] = "deterministic"
    elif torch.device(device).type != "cpu":
        versions["algorithms"] = "any"
    if torch.backends.cudnn.benchmark:
        versions["cudnn benchmark"] = "on"
    return {name: version for name, version in versions.items() if version}


class Accelerator:
    """One accelerator by its index. On a CPU there is none: `Accelerator.of` returns None."""

    def __init__(self, device: torch.device) -> None:
        """`device`: without an index it is the one that is current on this thread."""
        self._module: Any = torch.get_device_module(device.type)
        index = torch.accelerator.current_device_index() if device.index is None else device.index
        self.device = torch.device(device.type, index)

    @classmethod
    def of(cls, device: str | torch.device) -> Accelerator | None:
        """Return the accelerator that a device is; None for the CPU and for meta tensors, which no run computes on."""
        device = torch.device(device)
        return None if device.type in ("cpu", "meta") else cls(device)

    def make_current(self) -> int:
        """Make it the current one of this thread; return the index of the one that was.

        Threads begin with the first one. Tensors made on "cuda", the clock, the memory and the random numbers are
        those of the current one.
        """
        before = torch.accelerator.current_device_index()
        if before != self.device.index:
            torch.accelerator.set_device_index(self.device.index)
        return before

    def leave(self, before: int) -> None:
        """Make the one current again that was so before `make_current`."""
        if before != self.device.index:
            torch.accelerator.set_device_index(before)

    def synchronize(self) -> None:
        """Wait until it has done all that was asked of it."""
        torch.accelerator.synchronize(self.device)

    def memory_allocated(self) -> int | None:
        """Return the bytes that all its tensors hold; None where this PyTorch does not count them."""
        try:
            if self.device.type == "mps":  # which torch.accelerator cannot ask in all versions
                return int(self._module.current_allocated_memory())
            if self.device.type == "cuda":  # far quicker than a table of all that the allocator counts
                return int(self._module.memory_stats_as_nested_dict(self.device)["allocated_bytes"]["all"]["current"])
            return torch.accelerator.memory_allocated(self.device)
        except (AttributeError, KeyError, NotImplementedError, RuntimeError):
            return None

    @property
    def can_pin(self) -> bool:
        """Whether the host can have memory that it copies to and from without waiting."""
        return self.device.type in ("cuda", "xpu")

    def spare_memory(self) -> int:
        """Return the bytes that are left even when training needs most, as far as is known; 0 where it is not.

        That is what is free, for this process or in its own cache, less what it has needed beside its tensors so far.
        """
        try:
            free, _ = self._module.mem_get_info(self.device)
            reserved = torch.accelerator.memory_reserved(self.device)
            return max(int(free) + reserved - torch.accelerator.max_memory_allocated(self.device), 0)
        except (AttributeError, NotImplementedError, RuntimeError):
            return 0

    def empty_cache(self) -> None:
        """Give the memory back that is kept for tensors to come, so that it is free for tensors of any size."""
        for module in (torch.accelerator, self._module):
            try:
                module.empty_cache()
                return
            except (AttributeError, NotImplementedError, RuntimeError):
                continue

    def rng_state(self) -> Tensor:
        """Return the state of its random numbers, on the host."""
        state: Tensor = self._module.get_rng_state(*self._rng_arguments)
        return state

    def set_rng_state(self, state: Tensor) -> None:
        self._module.set_rng_state(state, *self._rng_arguments)

    @property
    def _rng_arguments(self) -> tuple[torch.device, ...]:
        return () if self.device.type == "mps" else (self.device,)  # there is one


class DeviceLoadReader:
    """The latest reading of a device. Nobody waits for one: a card is read on a thread of its own."""

    def __init__(self, device: torch.device) -> None:
        self._latest: DeviceLoad | None = None
        self._time = -READ_SECONDS  # of the latest reading that was begun, by `monotonic`
        self._is_reading = False  # a card
        self._card = _card_of(device)
        self._reads_host = device.type == "cpu"

    @property
    def latest(self) -> DeviceLoad | None:
        """The latest reading; another one is begun where it is older than READ_SECONDS. None where there is none."""
        if monotonic() - self._time >= READ_SECONDS:
            self._time = monotonic()
            if self._reads_host:
                self._latest = read_host()
            elif self._card is not None and not self._is_reading:
                self._is_reading = True
                threading.Thread(target=self._read, args=(self._card,), name="device load", daemon=True).start()
        return self._latest

    def _read(self, card: _Card) -> None:
        try:
            self._latest = card.read()
        except Exception:  # whatever NVML, or the lack of it, raises: it is not shown, and not tried again
            self._latest = self._card = None
        finally:
            self._is_reading = False


def read_host() -> DeviceLoad | None:
    """Return what this process uses of the host's memory; None on systems that cannot say it."""
    with suppress(OSError, ValueError, IndexError, AttributeError), open_to_read(_PROCESS_MEMORY) as file:
        return DeviceLoad(memory=int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    return None


class _Card:
    """One card of NVIDIA's, found by its UUID: NVML counts cards that CUDA_VISIBLE_DEVICES leaves out."""

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid
        self._nvml: Any = None
        self._handle: Any = None
        self._is_part = False  # of a card that is divided into several (MIG)

    def read(self) -> DeviceLoad:
        """Return what NVML tells; raises whatever keeps it from that."""
        if self._nvml is None:
            self._open()
        memory = self._tell(lambda: self._nvml.nvmlDeviceGetMemoryInfo(self._handle))
        rates = None if self._is_part else self._tell(lambda: self._nvml.nvmlDeviceGetUtilizationRates(self._handle))
        return DeviceLoad(
            memory=None if memory is None else int(memory.used),
            total=None if memory is None else int(memory.total),
            use=None if rates is None else rates.gpu / 100,
            temperature=self._tell(self._temperature),
        )

    def _open(self) -> None:
        import pynvml as nvml  # of the package nvidia-ml-py

        nvml.nvmlInit()
        try:
            self._handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{self._uuid}")
        except nvml.NVMLError:
            self._handle, self._is_part = nvml.nvmlDeviceGetHandleByUUID(f"MIG-{self._uuid}"), True
        self._nvml = nvml

    def _temperature(self) -> int:
        handle = self._handle
        if self._is_part:  # which is as warm as the whole
            handle = self._nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
        return int(self._nvml.nvmlDeviceGetTemperature(handle, self._nvml.NVML_TEMPERATURE_GPU))

    def _tell(self, ask: Callable[[], Any]) -> Any:
        """Return an answer; None where this card has none, as many a part of a card."""
        try:
            return ask()
        except self._nvml.NVMLError:
            return None


def _card_of(device: torch.device) -> _Card | None:
    """Return the card that a CUDA device is; None for any other device, and where PyTorch cannot tell its UUID."""
    if device.type != "cuda":
        return None
    try:
        return _Card(str(torch.cuda.get_device_properties(device).uuid).removeprefix("GPU-"))
    except (AttributeError, AssertionError, RuntimeError):
        return None
