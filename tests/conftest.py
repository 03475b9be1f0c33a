"""Patience and quiet: a busy machine is no failure, and small tensors gain nothing from threads."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from case_selection import LONG
from program import run as run  # a fixture for all tests

settings.register_profile("patient", deadline=None, max_examples=100 if LONG else 25)
settings.load_profile("patient")
torch.set_num_threads(1)
# A shell's background jobs ignore SIGINT, and so would the programs that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Runs are kept in the user's state folder: here, as for the programs that tests start, in one that goes with them.
_state = tempfile.TemporaryDirectory()
os.environ["XDG_STATE_HOME"] = _state.name
# So are pretrained weights, and the user's own must not change what is tested.
os.environ["TORCH_HOME"] = os.path.join(_state.name, "torch")
# In those programs, threads that wait for work leave the cores to other tests.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


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
