"""Patience and quiet: a busy machine is no failure, and small tensors gain nothing from threads."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

settings.register_profile("patient", deadline=None, max_examples=60)
settings.load_profile("patient")
torch.set_num_threads(1)


@pytest.fixture
def all_threads() -> Iterator[None]:
    """Let PyTorch use every core, as it does by itself."""
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(1)
