"""Models with any number of parameters under any names, trained by a loss that uses all or some of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.scenario import Parts, Scenario

NAMES = ("gate", "stem.weight", *(f"body.{block}.{kind}" for block in range(9) for kind in ("weight", "bias")))


def model(names: Sequence[str], *, size: int) -> nn.Module:
    """Put a parameter of (size,) normal values under each name."""
    whole = nn.Module()
    for name in names:
        *path, last = name.split(".")
        inner = whole
        for part in path:
            if not hasattr(inner, part):
                inner.add_module(part, nn.Module())
            inner = getattr(inner, part)
        inner.register_parameter(last, nn.Parameter(torch.randn(size)))
    return whole


def open_nested(names: Sequence[str] = NAMES, *, size: int = 3, unused: Sequence[str] = (), **options: Any) -> Session:
    """Open a session that trains the model; parameters that are `unused` get no gradient."""

    def build(_: object) -> Parts:
        def forward(made: nn.Module, _: object) -> Tensor:
            used = [param for name, param in made.named_parameters() if name not in unused]
            return torch.stack([(param**3).sum() for param in used]).sum()

        return Parts(model=model(names, size=size), batch=lambda i: (), forward=forward, optimizer="sgd,lr=0.01")

    return open_session(Scenario("nested", build), **options)
