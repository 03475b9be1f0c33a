"""Reads how much a run takes of its device: of a card by NVML, where nvidia-ml-py is installed, else of the host."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from autograd_tui.core.device_load import DeviceLoad
from autograd_tui.core.files import open_to_read

READ_SECONDS = 1.0  # between two readings, at least
_PROCESS_MEMORY = Path("/proc/self/statm")  # of Linux: pages, the second number those in memory


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
