"""Small models that are hard to repeat: they raise, draw random numbers, replace their buffers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from plain_loop import Batch


class Gated(nn.Module):
    """Batch norm and dropout; the forward raises at its very end while the gate is above 3."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.4), nn.Linear(6, 2))
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x) + self.gate
        if self.gate.item() > 3:
            raise ValueError("the gate is shut")
        return y


class _Trip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, tripped: bool) -> Tensor:
        ctx.tripped = tripped
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        noise = 1 + torch.rand(1)
        if ctx.tripped:
            raise ValueError("tripped")
        return grads[0] * noise, None


class Tripwire(nn.Module):
    """The backward draws random numbers, and raises while w is above 3, when b has its gradient already."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([2.0]))
        self.b = nn.Parameter(torch.tensor([6.0]))

    def forward(self, x: Tensor) -> Tensor:
        tripped = _Trip.apply(self.w * self.w * x, self.w.item() > 3)
        return tripped + self.b


class Words(nn.Module):
    """A sparse gradient, at which Adam raises when it has made the state of the others already."""

    def __init__(self) -> None:
        super().__init__()
        # So it is by default too, but then PyTorch warns of it.
        torch.sparse.check_sparse_tensor_invariants.disable()
        self.out = nn.Linear(3, 1)
        self.words = nn.Embedding(5, 3, sparse=True)

    def forward(self, places: Tensor) -> Tensor:
        out: Tensor = self.out(self.words(places))
        return out


class Mixed(nn.Module):
    """Two dtypes: a learning rate of 1e39 moves w, then raises at b, for which it is too large."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor([6.0]))

    def forward(self, x: Tensor) -> Tensor:
        return (self.w * x).float() * self.b


class Wilful(nn.Module):
    """Replaces its buffers in the forward, one by the batch itself; one is None until the first forward."""

    count: Tensor
    last: Tensor
    first: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([2.0]))
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("last", torch.zeros(3))
        self.register_buffer("first", None)
        self.register_buffer("wide", torch.ones(3).expand(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + 1
        self.last = x
        if self.first is None:
            self.first = x.mean()
        if self.w.item() > 3:
            raise ValueError("too large")
        return self.w * x + self.first


def gated(seed: int) -> tuple[nn.Module, Batch]:
    def batch(i: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + i)
        return torch.rand(4, 3, generator=generator), torch.rand(4, 2, generator=generator)

    return Gated(), batch


def tripwire(seed: int) -> tuple[nn.Module, Batch]:
    x = torch.rand(3)
    return Tripwire(), lambda i: (x, 4 * x + 1)


def words(seed: int) -> tuple[nn.Module, Batch]:
    model, y = Words(), torch.rand(4, 1)
    return model, lambda i: (torch.tensor([0, 2, 2, i % 5]), y)


def mixed(seed: int) -> tuple[nn.Module, Batch]:
    x = torch.rand(3)
    return Mixed(), lambda i: (x, 4 * x + 1)


def wilful(seed: int) -> tuple[nn.Module, Batch]:
    x = torch.rand(3)
    return Wilful(), lambda i: (x, 4 * x + 1)
