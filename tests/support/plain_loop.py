"""The loop that anyone would write by hand: what the engine is measured against, and none of the engine's code."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

Batch = Callable[[int], tuple[Tensor, Tensor]]
Build = Callable[[int], tuple[nn.Module, Batch]]  # called with the seed, right after torch.manual_seed(seed)
Tensors = dict[str, Tensor | None]


class PlainLine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([2.0]))
        self.b = nn.Parameter(torch.tensor([6.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.w * x + self.b


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    return ((target - prediction) ** 2).mean()


def line(seed: int) -> tuple[nn.Module, Batch]:
    x = torch.tensor([1.0, 2.0, 3.0])
    y = 4 * x + 1
    return PlainLine(), lambda i: (x, y)


def line_fresh(seed: int) -> tuple[nn.Module, Batch]:
    def batch(i: int) -> tuple[Tensor, Tensor]:
        x = 1 + 2 * torch.rand(3, generator=torch.Generator().manual_seed(seed * 1_000_003 + i))
        return x, 4 * x + 1

    return PlainLine(), batch


def small_net(seed: int) -> tuple[nn.Module, Batch]:
    """Build a network with all that a re-run could get wrong: buffers that change, random numbers in the forward."""
    model = nn.Sequential(nn.Linear(4, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 2))
    x, y = torch.rand(16, 4), torch.rand(16, 2)
    return model, lambda i: (x, y)


def small_net_fresh(seed: int) -> tuple[nn.Module, Batch]:
    def batch(i: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + i)
        return torch.rand(16, 4, generator=generator), torch.rand(16, 2, generator=generator)

    return small_net(seed)[0], batch


def resnet18(seed: int, *, images: int = 1, size: int = 64) -> tuple[nn.Module, Batch]:
    from torchvision import models

    model = models.resnet18(weights=None)
    data, labels = torch.rand(images, 3, size, size), torch.rand(images, 1000)
    return model, lambda i: (data, labels)


def plain_loop(
    build: Build,
    make_optimizer: Callable[[Iterator[nn.Parameter]], Optimizer],
    *,
    seed: int = 0,
    plateau: tuple[float, int] | None = None,
    loss_function: Callable[[Tensor, Tensor], Tensor] = mse,
) -> Iterator[Tensors]:
    """Train, and show the tensors after each step, before its zero_grad: the live ones, not copies."""
    torch.manual_seed(seed)
    model, batch = build(seed)
    model.train()
    optimizer = make_optimizer(model.parameters())
    scheduler = ReduceLROnPlateau(optimizer, factor=plateau[0], patience=plateau[1], min_lr=1e-5) if plateau else None
    i = 0
    while True:
        inputs, targets = batch(i)
        loss = loss_function(model(inputs), targets)
        loss.backward()
        optimizer.step()
        if scheduler:
            scheduler.step(loss.detach())
        yield named_tensors(model, optimizer, loss, torch.get_rng_state())
        optimizer.zero_grad()
        i += 1


def named_tensors(model: nn.Module, optimizer: Optimizer, loss: Tensor | None, rng: Tensor) -> Tensors:
    """Name all that one moment of training consists of."""
    params = dict(model.named_parameters())
    named: Tensors = {f"parameter {name}": param for name, param in params.items()}
    named |= {f"gradient {name}": param.grad for name, param in params.items()}
    named |= {
        f"buffer {prefix}.{name}".replace(" .", " "): buffer
        for prefix, module in model.named_modules()
        for name, buffer in module._buffers.items()
    }
    for name, param in params.items():
        named |= {f"state {name}.{key}": _tensor(each) for key, each in optimizer.state.get(param, {}).items()}
    rates = [torch.tensor(float(group["lr"]), dtype=torch.float64) for group in optimizer.param_groups]
    named |= {f"learning rate {place}": rate for place, rate in enumerate(rates)}
    return named | {"loss": loss, "random numbers": rng, "learning rate": rates[0]}


def copied(tensors: Tensors) -> Tensors:
    """Copy them, so that training goes on without them."""
    return {name: None if each is None else each.detach().clone() for name, each in tensors.items()}


def differing(some: Tensors, others: Tensors) -> list[str]:
    """Give the names whose tensors are not the same to the bit."""
    return [name for name in {**some, **others} if not _same_bits(some.get(name), others.get(name))]


def _tensor(value: object) -> Tensor | None:
    return None if value is None else torch.as_tensor(value)


def _same_bits(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    if (one.dtype, one.shape, one.layout) != (other.dtype, other.shape, other.layout):
        return False
    if one.is_sparse:
        one, other = one.detach().to_dense(), other.detach().to_dense()
    if torch.equal(one, other):
        return True
    return torch.equal(*(each.detach().reshape(-1).view(torch.uint8) for each in (one, other)))
