"""Patience and quiet: a busy machine is no failure, and small tensors gain nothing from threads."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

import suite_options
from forked_scripts import fork_scripts
from forked_scripts import started_anew as started_anew  # for tests of the start itself
from led_scripts import lead as lead  # for those of scripts
from program import do as do  # fixtures for all tests
from program import run as run

torch.set_num_threads(1)
# What is expected was measured on the CPU: a card is not seen. tests/benchmarks/device.py is what runs on one.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# A shell's background jobs ignore SIGINT, and so would the programs that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Runs are kept in the user's state folder: here, as for the programs that tests start, in one that goes with them.
_state = tempfile.TemporaryDirectory()
os.environ["XDG_STATE_HOME"] = _state.name
# So are pretrained weights, and the user's own must not change what is tested.
os.environ["TORCH_HOME"] = os.path.join(_state.name, "torch")
# In those programs, threads that wait for work leave the cores to other tests.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

fork_scripts()


def _initialized_once(initialize: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let large weights that PyTorch would make of the same random state be copied from those made first."""
    made: dict[Any, tuple[Tensor, Tensor]] = {}  # and the random state behind each

    @wraps(initialize)
    def initialize_or_copy(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        is_plain = type(tensor) is nn.Parameter and tensor.device.type == "cpu" and "generator" not in kwargs
        if not is_plain or tensor.numel() < 30_000:
            return initialize(tensor, *args, **kwargs)
        key = torch.get_rng_state().numpy().tobytes(), tensor.shape, tensor.dtype, args, tuple(kwargs.items())
        if key not in made:
            if len(made) == MAX_KEPT_WEIGHTS:
                made.clear()
            initialize(tensor, *args, **kwargs)
            made[key] = tensor.detach().clone(), torch.get_rng_state()
            return tensor
        values, rng_state = made[key]
        torch.set_rng_state(rng_state)
        with torch.no_grad():
            return tensor.copy_(values)

    return initialize_or_copy


MAX_KEPT_WEIGHTS = 60  # those of three resnet18
nn.init.kaiming_normal_ = _initialized_once(nn.init.kaiming_normal_)
nn.init.kaiming_uniform_ = _initialized_once(nn.init.kaiming_uniform_)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that the README lists."""
    group = parser.getgroup("autograd-tui")
    group.addoption("--long", action="store_true", help="run every case where some stand for many")
    group.addoption("--examples", type=int, metavar="N", help="search each property with N random examples")
    group.addoption("--update", action="store_true", help="write golden files and pictures of screens anew")


def pytest_configure(config: pytest.Config) -> None:
    """Set the options before any test module is imported: they choose the cases of tests."""
    suite_options.LONG = config.getoption("long")
    suite_options.EXAMPLES = config.getoption("examples")
    suite_options.UPDATE = config.getoption("update")
    count = suite_options.EXAMPLES or (100 if suite_options.LONG else 15)
    settings.register_profile("patient", deadline=None, max_examples=count)
    settings.load_profile("patient")


def pytest_collection_finish() -> None:
    """Let the garbage collector skip what is there now, and run less often: it took a third of a test's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


@pytest.fixture
def all_threads() -> Iterator[None]:
    """Let PyTorch use every core, as it does by itself."""
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Let no file have more than a few bytes: the system writes that many, and refuses the next ones."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def compiler_counters() -> Iterator[None]:
    """Let torch.compile have compiled nothing once the test has ended: by its counters a process knows that it has."""
    yield
    torch._dynamo.utils.counters.clear()
