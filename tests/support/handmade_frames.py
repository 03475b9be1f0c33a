"""Frames and tables made by hand."""

from __future__ import annotations

from typing import Any

import torch

from autograd_tui.core.command import parse_one
from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import Grads, StatsTable
from autograd_tui.engine.training.stats_reader import StatsReader, TensorGroup


def table(**tensors: list[float]) -> StatsTable:
    """Give a table as the engine reads it."""
    return StatsReader().read({"group": TensorGroup({name: torch.tensor(each) for name, each in tensors.items()})})[
        "group"
    ]


def frame(index: int = 0, after: str | None = None, **changes: Any) -> Frame:
    """Give a frame of a model with the one parameter w = 2."""
    values: dict[str, Any] = {
        "params": table(w=[2.0]),
        "grads": Grads(table(), (0,), (False,)),
        "optimizer_state": table(),
        "buffers": table(),
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "command": None if after is None else parse_one(after),
    }
    return Frame(index=index, **(values | changes))
