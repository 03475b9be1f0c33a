"""The device that a run is on, and how much of it is in use, on machines without one: what is asked, and said."""

from __future__ import annotations

import sys
import threading
from collections import Counter, UserDict, namedtuple
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from autograd_tui import Options, Parts, open_session
from autograd_tui.core.errors import Refused
from autograd_tui.core.session_protocol import DeviceLoad
from autograd_tui.engine.training import accelerator
from autograd_tui.engine.training.accelerator import Accelerator, DeviceLoadReader, choose_device
from autograd_tui.engine.training.global_state import GlobalState
from autograd_tui.engine.training.predict import to_device
from autograd_tui.engine.training.scenario import Scenario
from session_internals import state_of

META = torch.device("meta")  # which here stands for an accelerator


class Cards:
    """Four accelerators of one type, as `torch.accelerator` and the type's own module tell of them."""

    def __init__(self, device_type: str) -> None:
        self.type, self.current = device_type, 0
        self.rng = [torch.tensor([index]) for index in range(4)]
        self.asked: list[Any] = []

    def current_accelerator(self, check_available: bool = False) -> torch.device:
        return torch.device(self.type)

    def device_count(self) -> int:
        return 4

    def current_device_index(self) -> int:
        return self.current

    def set_device_index(self, index: int) -> None:
        self.current = index

    def synchronize(self, device: torch.device) -> None:
        self.asked.append(device)

    def memory_allocated(self, device: torch.device) -> int:
        if device.type == "mps":  # as up to the middle of 2026
            raise NotImplementedError("The allocator of mps does not count what is allocated.")
        return 100 + (device.index or 0)

    def memory_stats_as_nested_dict(self, device: torch.device) -> dict[str, Any]:
        return {"allocated_bytes": {"all": {"current": 100 + (device.index or 0), "peak": 200}}}

    def get_rng_state(self, device: torch.device | None = None) -> Tensor:
        return self.rng[0 if device is None else device.index]

    def set_rng_state(self, state: Tensor, device: torch.device | None = None) -> None:
        self.rng[0 if device is None else device.index] = state


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Cards:
    """Let PyTorch tell of four cards of a type."""
    cards = Cards(getattr(request, "param", "cuda"))
    for name in ("current_accelerator", "device_count", "current_device_index", "set_device_index", "synchronize"):
        monkeypatch.setattr(torch.accelerator, name, getattr(cards, name))
    monkeypatch.setattr(torch.accelerator, "memory_allocated", cards.memory_allocated)
    monkeypatch.setattr(torch, "get_device_module", lambda _: cards)
    return cards


def test_the_accelerator_is_chosen_where_there_is_one(cards: Cards) -> None:
    assert [choose_device(each) for each in (None, "auto", "cpu", "cuda", "cuda:3")] == [
        *("cuda", "cuda", "cpu", "cuda", "cuda:3")
    ]


@pytest.mark.parametrize(
    ("requested", "sentence"),
    [
        ("cuda:4", "there is no cuda:4: this machine has 4, cuda:0 to cuda:3."),
        ("cpu:1", "there is no cpu:1: all of the CPU is one device, cpu."),
        ("xpu", "there is no xpu device here: this machine has cpu and cuda."),
        ("toaster", '"toaster" is no device: use auto, cpu, or cuda, cuda:1, mps, xpu.'),
        ("", '"" is no device: use auto, cpu, or cuda, cuda:1, mps, xpu.'),
    ],
)
def test_a_device_that_is_not_there_is_refused_in_a_sentence(cards: Cards, requested: str, sentence: str) -> None:
    with pytest.raises(Refused) as refused:
        choose_device(requested)
    assert str(refused.value) == sentence


def test_without_an_accelerator_the_cpu_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: False)
    assert [choose_device(each) for each in (None, "auto", "cpu")] == ["cpu"] * 3
    with pytest.raises(Refused, match=r"^there is no mps device here: .* cpu alone, and .* was built without mps\.$"):
        choose_device("mps")


def test_memory_is_that_of_the_card_itself(cards: Cards) -> None:
    accelerator = Accelerator.of("cuda:2")
    assert accelerator is not None
    assert accelerator.memory_allocated() == 102


@pytest.mark.parametrize("cards", ["mps"], indirect=True)
def test_on_mps_its_own_module_is_asked_for_memory(cards: Cards, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = Accelerator.of("mps")
    assert accelerator is not None
    assert accelerator.memory_allocated() is None  # a PyTorch that cannot say it at all
    monkeypatch.setattr(cards, "current_allocated_memory", lambda: 7, raising=False)
    assert accelerator.memory_allocated() == 7
    assert torch.equal(accelerator.rng_state(), torch.tensor([0]))


def test_inside_the_global_state_its_card_is_the_current_one(cards: Cards) -> None:
    state = GlobalState()
    with state:
        state.add_device("cuda:2")
        assert cards.current == 2  # what a build makes on "cuda" is on the card that was asked for
    assert cards.current == 0
    cards.current = 1  # as on another thread
    with state:
        assert cards.current == 2
        with state.copy():
            assert cards.current == 2
        assert cards.current == 2
    assert cards.current == 1


def test_a_device_without_an_index_is_the_one_that_was_current_when_it_was_opened(cards: Cards) -> None:
    state = GlobalState()
    cards.current = 3
    with state:
        state.add_device("cuda")
    cards.current = 0
    with state:
        assert cards.current == 3


def test_the_random_numbers_that_come_back_are_those_of_the_card(cards: Cards) -> None:
    state = GlobalState()
    with state:
        state.add_device("cuda:2")
        snapshot = state.snapshot()
        cards.rng[2], cards.rng[0] = torch.tensor([20]), torch.tensor([30])
        state.restore(snapshot)
    assert [int(each) for each in cards.rng] == [30, 1, 2, 3]


# Batches.


class Encoding(UserDict[str, Tensor]):
    """As a tokenizer of transformers gives: a mapping that is no dict, and moves itself in place."""

    def to(self, device: torch.device) -> Encoding:
        self.data = {name: each.to(device) for name, each in self.data.items()}
        return self


class Graphs:
    """As a loader of torch_geometric gives: an object with tensors for attributes."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def to(self, device: torch.device) -> Graphs:
        return Graphs(self.x.to(device))


Sample = namedtuple("Sample", "x y")


def test_what_has_a_to_of_its_own_is_moved_by_it() -> None:
    encoding, graphs = Encoding(ids=torch.ones(2)), Graphs(torch.ones(2))
    moved = to_device([encoding, (graphs, 3), "text"], META)
    assert moved[0]["ids"].device == moved[1][0].x.device == META
    assert moved[1:] == [(moved[1][0], 3), "text"]


def test_what_moves_itself_is_left_alone_on_a_cpu() -> None:
    graphs = SimpleNamespace(x=torch.ones(2), to=pytest.fail)
    assert to_device(graphs, torch.device("cpu")) is graphs


def test_named_tuples_and_packed_sequences_are_moved() -> None:
    sample = to_device(Sample(torch.ones(2), {"label": torch.ones(2)}), META)
    assert sample.x.device == sample.y["label"].device == META
    packed = nn.utils.rnn.pack_sequence([torch.ones(3), torch.ones(2)])
    assert to_device(packed, META).data.device == META
    assert to_device(packed, torch.device("cpu")) is packed


def test_a_class_is_no_batch() -> None:
    assert to_device(Tensor, META) is Tensor


# Launches.


class Calls(TorchDispatchMode):
    """Counts the calls of each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


def test_the_buffers_of_a_forward_are_copied_in_one_call_a_dtype_and_come_back() -> None:
    def build(_: Options) -> Parts:
        model = nn.Sequential(*(nn.BatchNorm1d(3) for _ in range(10)))
        return Parts(model=model, batch=lambda i: (torch.rand(4, 3), torch.rand(4, 3)), loss=nn.functional.mse_loss)

    state = state_of(open_session(Scenario("norms", build)))
    before = {name: buffer.clone() for name, buffer in state.model.named_buffers()}
    with state.global_state, Calls() as calls:
        undo = state.begin_forward()
    assert (calls.counts["_foreach_copy_"], calls.counts["copy_"]) == (2, 0)
    with state.global_state:
        state.model(torch.rand(4, 3))
        assert not all(torch.equal(buffer, before[name]) for name, buffer in state.model.named_buffers())
        undo()
    assert all(torch.equal(buffer, before[name]) for name, buffer in state.model.named_buffers())


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
