"""How much is in use of the device: read seldom, never waited for, and not shown where it cannot be read."""

from __future__ import annotations

import sys
import threading
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autograd_tui import open_session
from autograd_tui.core.session_protocol import DeviceLoad
from autograd_tui.engine.training import accelerator
from autograd_tui.engine.training.accelerator import DeviceLoadReader

CUDA = torch.device("cuda", 1)


class Nvml:
    """Answers as NVML does of one whole card, or of a part of one, which has no rates and no temperature of its own."""

    NVMLError = type("NVMLError", (Exception,), {})
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, uuid: str) -> None:
        self.uuid, self.calls = uuid, 0
        self.threads: set[str] = set()
        self.may_answer = threading.Event()
        self.may_answer.set()

    def nvmlInit(self) -> None:
        self.threads.add(threading.current_thread().name)

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != self.uuid:
            raise self.NVMLError
        return uuid

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        self.calls += 1
        assert self.may_answer.wait(10)
        return SimpleNamespace(used=3_000, total=8_000)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        assert handle.startswith("GPU-")
        return SimpleNamespace(gpu=37, memory=2)

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: str) -> str:
        return "GPU-whole"

    def nvmlDeviceGetTemperature(self, handle: str, kind: int) -> int:
        if not handle.startswith("GPU-"):
            raise self.NVMLError
        return 54


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Nvml:
    """Stand for nvidia-ml-py, with the card that PyTorch calls cuda:1."""
    nvml = Nvml(getattr(request, "param", "GPU-1234"))
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    properties = SimpleNamespace(uuid="1234")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties if device == CUDA else None)
    return nvml


def _wait_for(reader: DeviceLoadReader) -> DeviceLoad | None:
    end = monotonic() + 60
    while (load := reader.latest) is None and monotonic() < end:
        sleep(0.01)
    return load


def test_a_card_is_found_by_its_uuid_and_read_on_another_thread(nvml: Nvml) -> None:
    reader = DeviceLoadReader(CUDA)
    assert _wait_for(reader) == DeviceLoad(3_000, 8_000, 0.37, 54)
    assert nvml.threads == {"device load"}


@pytest.mark.parametrize("nvml", ["MIG-1234"], indirect=True)
def test_a_part_of_a_card_has_memory_of_its_own_and_is_as_warm_as_the_whole(nvml: Nvml) -> None:
    assert _wait_for(DeviceLoadReader(CUDA)) == DeviceLoad(3_000, 8_000, None, 54)


def test_nobody_waits_for_a_reading_and_there_is_one_a_second_at_most(
    nvml: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml.may_answer.clear()
    reader = DeviceLoadReader(CUDA)
    assert [reader.latest for _ in range(100)] == [None] * 100
    nvml.may_answer.set()
    assert _wait_for(reader) is not None
    assert nvml.calls == 1
    monkeypatch.setattr(accelerator, "READ_SECONDS", 0.0)
    assert reader.latest is not None


def test_a_reading_that_never_ends_is_not_followed_by_others(nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "READ_SECONDS", 0.0)
    nvml.may_answer.clear()
    reader = DeviceLoadReader(CUDA)
    for _ in range(20):
        assert reader.latest is None
    while not nvml.calls:
        sleep(0.001)
    for _ in range(20):
        assert reader.latest is None
    assert nvml.calls == 1
    nvml.may_answer.set()


def test_without_nvml_or_its_card_nothing_is_told(nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "READ_SECONDS", 0.0)
    nvml.uuid = "GPU-another"
    readers = [DeviceLoadReader(CUDA)]
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as if it was not installed
    readers += [
        DeviceLoadReader(CUDA),
        DeviceLoadReader(torch.device("cuda", 2)),
        DeviceLoadReader(torch.device("mps")),
    ]
    for reader in readers:
        assert reader.latest is None
        sleep(0.05)
        assert reader.latest is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not say it")
def test_on_a_cpu_it_is_the_memory_of_this_process() -> None:
    load = open_session("linear", device="cpu").device_load
    assert load is not None
    assert load.memory is not None
    assert 50e6 < load.memory < 50e9
    assert (load.total, load.use, load.temperature) == (None, None, None)
