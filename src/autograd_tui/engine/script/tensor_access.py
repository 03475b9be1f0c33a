"""Reads a script's tensors without leaving a trace in its run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from autograd_tui.engine.script.module_calls import without_modes
from autograd_tui.engine.training.stats_reader import TensorGroup
from autograd_tui.engine.training.tensor_properties import in_memory


@contextmanager
def untouched() -> Iterator[None]:
    """Read tensors without a graph, autocast, or the user's own modes around."""
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(without_modes())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def readable_group(tensors: Mapping[str, Tensor], *, exact: bool = True, sampled_range: bool = True) -> TensorGroup:
    """Return tensors to measure together; what cannot be read, or not without the other ranks, is not."""
    return TensorGroup({name: _readable(each) for name, each in tensors.items()}, exact, sampled_range)


def _readable(tensor: Tensor) -> Tensor:
    """Return this rank's part of a distributed tensor, and nothing to measure of one whose memory was given back."""
    if type(tensor).__name__ == "DTensor":
        tensor = tensor._local_tensor  # type: ignore[attr-defined]  # reading the whole would wait for the others
    return tensor if in_memory(tensor) else torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
