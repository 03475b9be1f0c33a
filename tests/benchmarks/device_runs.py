"""What the checks of `device.py` are made of: the device, runs on it, plain ones beside them, and what was found."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from autograd_tui import Frame, Parts, Phase, Session, open_session
from autograd_tui.engine.training.scenario import Scenario
from plain_loop import Batch, Build, Tensors, differing, line, mse
from session_internals import state_of

MakeOptimizer = Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, MakeOptimizer] = {  # by what a session is asked for
    "sgd,lr=0.1": lambda params: torch.optim.SGD(params, lr=0.1),
    "sgd,lr=0.01,momentum=0.9": lambda params: torch.optim.SGD(params, lr=0.01, momentum=0.9),
    "sgd,lr=0.01,momentum=0.9,foreach=True": lambda params: torch.optim.SGD(
        params, lr=0.01, momentum=0.9, foreach=True
    ),
    "adam,lr=0.001": lambda params: torch.optim.Adam(params, lr=0.001),
    "adam,lr=0.001,fused=True": lambda params: torch.optim.Adam(params, lr=0.001, fused=True),
}
PLAIN_SGD, MOMENTUM, FOREACH, ADAM, FUSED = OPTIMIZERS


class Skipped(Exception):
    """A check has nothing to look at on this machine."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that was measured, and what it should be."""

    name: str
    value: float
    goal: float | None = None
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        if self.goal is None:
            return True
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    @property
    def goal_in_words(self) -> str:
        if self.goal is None:
            return ""
        return f"{'at least' if self.at_least else 'at most'} {self.goal:g}"


@dataclass
class Findings:
    """What one check has found; it goes on after a promise that does not hold, to find the others."""

    sentences: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)  # promises, in sentences
    figures: list[Figure] = field(default_factory=list)

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def require(self, holds: bool, sentence: str) -> bool:
        """Note a promise that does not hold; return whether it does."""
        if not holds:
            self.broken.append(sentence)
        return holds

    def require_equal(self, names: list[str], what: str) -> bool:
        """Note tensors that differ, by their names."""
        return self.require(not names, f"{what}: {len(names)} tensors differ, the first {names[:2]}")

    def figure(self, name: str, value: float, *, at_most: float | None = None, at_least: float | None = None) -> None:
        goal = at_least if at_most is None else at_most
        self.figures.append(Figure(name, value, goal, at_least is not None))


@dataclass(frozen=True, slots=True)
class Setting:
    """Where the checks run, and how long they may take."""

    device: torch.device
    is_quick: bool = False  # small sizes and few turns
    with_compiler: bool = False
    with_ranks: bool = False
    with_profile: bool = False

    @property
    def on_cpu(self) -> bool:
        return self.device.type == "cpu"

    def synchronize(self) -> None:
        if not self.on_cpu:
            torch.accelerator.synchronize(self.device)

    def seconds(self, function: Callable[[], object]) -> float:
        """Return how long a call takes until the device has done it."""
        self.synchronize()
        started = perf_counter()
        function()
        self.synchronize()
        return perf_counter() - started

    def median_seconds(self, function: Callable[[], object], times: int) -> float:
        """Return the median of several calls, after one that warms up."""
        function()
        return median(self.seconds(function) for _ in range(times))

    def allocated(self) -> int:
        """Return the bytes that all tensors on the device hold; 0 on a CPU."""
        return 0 if self.on_cpu else torch.accelerator.memory_allocated(self.device)

    def placed(self, build: Build) -> Build:
        """Return the same model with its batches on the device once and for all: no copy of them is measured."""

        def build_there(seed: int) -> tuple[nn.Module, Batch]:
            model, batch = build(seed)
            held: dict[int, Any] = {}

            def batch_there(index: int) -> tuple[Tensor, Tensor]:
                inputs, targets = batch(index)
                if id(inputs) not in held:
                    held[id(inputs)] = inputs, inputs.to(self.device), targets.to(self.device)
                return held[id(inputs)][1:]

            return model, batch_there

        build_there.__name__ = build.__name__
        return build_there

    def open(self, build: Build | Scenario | str, optimizer: str, **options: Any) -> Session:
        """Open a session on the device."""
        if not isinstance(build, (str, Scenario)):
            build = scenario_of(build)
        return open_session(build, device=str(self.device), optimizer=optimizer, **options)


def scenario_of(build: Build, *, loss: Callable[[Tensor, Tensor], Tensor] = mse) -> Scenario:
    """Make a scenario of what the plain loop builds."""

    def parts(options: Any) -> Parts:
        model, batch = build(options.seed)
        return Parts(model=model, batch=batch, loss=loss)

    return Scenario(build.__name__, parts)


class DropoutNetwork(nn.Module):
    """Buffers that each forward changes, random numbers of the device's own, and parameters that are sampled."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(64, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 8)
        )

    def forward(self, x: Tensor) -> Any:
        return self.body(x)


def network(seed: int) -> tuple[nn.Module, Batch]:
    x, y = torch.rand(32, 64), torch.rand(32, 8)
    return DropoutNetwork(), lambda i: (x, y)


def resnet(images: int = 1, size: int = 64) -> Build:
    """Return the build of a resnet18 that learns random numbers for random images."""

    def resnet18(seed: int) -> tuple[nn.Module, Batch]:
        from torchvision import models

        model = models.resnet18(weights=None)
        data, labels = torch.rand(images, 3, size, size), torch.rand(images, 1000)
        return model, lambda i: (data, labels)

    return resnet18


class PlainRun:
    """The loop that anyone would write; none of the engine's code is in it."""

    def __init__(self, setting: Setting, build: Build, optimizer: str, *, seed: int = 0) -> None:
        torch.manual_seed(seed)
        model, self._batch = build(seed)
        self._device = setting.device
        self.model = model.to(setting.device).train()
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.iteration = 0
        self.losses: list[Tensor] = []

    def forward(self) -> None:
        inputs, targets = self._batch(self.iteration)
        self.loss = mse(self.model(inputs.to(self._device)), targets.to(self._device))
        self.iteration += 1

    def backward(self) -> None:
        self.loss.backward()

    def step(self) -> None:
        self.optimizer.step()

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    @property
    def phases(self) -> dict[str, Callable[[], None]]:
        return {"f": self.forward, "b": self.backward, "s": self.step, "z": self.zero_grad}

    def iterate(self, times: int) -> None:
        for _ in range(times):
            inputs, targets = self._batch(self.iteration)
            loss = mse(self.model(inputs.to(self._device)), targets.to(self._device))
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.losses.append(loss.detach())
            self.iteration += 1

    def tensors(self) -> Tensors:
        return trained_tensors(self.model, self.optimizer)


def trained_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """Copy all that training has changed to the host."""
    named: dict[str, Tensor] = {f"parameter {name}": param for name, param in model.named_parameters()}
    named |= {f"buffer {name}": buffer for name, buffer in model.named_buffers()}
    for name, param in model.named_parameters():
        state = optimizer.state.get(param, {})
        named |= {f"state {name}.{key}": each for key, each in state.items() if isinstance(each, Tensor)}
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in named.items()}


def tensors_in(session: Session) -> Tensors:
    """Copy all that a session has trained to the host."""
    state = state_of(session)
    return trained_tensors(state.model, state.optimizer)


def run_all(session: Session, text: str) -> list[Frame]:
    """Run commands; raises RuntimeError where one of them does."""
    frames = []
    for frame in session.run_all(text):
        if frame.error:
            raise RuntimeError(f"{frame.command} raised {frame.error}")
        frames.append(frame)
    return frames


def run_freely(session: Session, iterations: int) -> None:
    """Run at the loop's own speed."""
    for _ in session.run_free(session.end_of(iterations), lambda: False):
        pass


def run_to(session: Session, index: int) -> None:
    """Run phase by phase to a frame."""
    while session.frame.index < index:
        session.run(session.next_command())


def losses_of(frames: Iterable[Frame]) -> list[float | None]:
    return [frame.loss for frame in frames if frame.phase is Phase.FORWARD]


@contextmanager
def deterministic_algorithms(wanted: bool = True) -> Iterator[None]:
    """Have PyTorch use deterministic algorithms inside `with`, as `--deterministic` asks for them, or its defaults."""
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark
    torch.use_deterministic_algorithms(wanted)
    cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.benchmark = before[1]


__all__ = ["Batch", "Build", "Tensors", "differing", "line", "mse", "state_of"]
