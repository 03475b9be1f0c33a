"""Models that are hard to record, each for a reason of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from autograd_tui.engine.training.scenario import Options, Parts, Scenario


def _net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Linear(6, 2))


class GradientPenalty(nn.Module):
    """The loss holds a gradient of its own: create_graph."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        y = self.net(x)
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return torch.cat([y, (slope**2).sum(1, keepdim=True)], 1)


class Shared(nn.Module):
    """Two modules hold one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


class UsedTwice(nn.Module):
    """One module is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.sigmoid(self.layer(x)))


class Unused(nn.Module):
    """The loss does not reach one of the parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.idle = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.idle(x)
        return self.layer(x)


class Wrong(torch.autograd.Function):
    """Doubles, and says that it had tripled."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] * 3


class Custom(nn.Module):
    """A custom Function, which torch tells no mode of."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return Wrong.apply(self.layer(x)) + 1


class Partly(nn.Module):
    """A part of the forward runs under no_grad."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.layer = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = torch.relu(self.frozen(x))
        return self.layer(x)


class Checkpointed(nn.Module):
    """Part of the forward runs again inside the backward."""

    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.net, self.out = _net(), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.reentrant:
            x = x.detach().requires_grad_()
        hidden = checkpoint(self.net, x, use_reentrant=self.reentrant)
        return self.out(hidden)


class Attention(nn.Module):
    """A transformer's layer: one call to torch for many nodes; `quick`: in eval mode, which has a fast path."""

    def __init__(self, *, quick: bool = False) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
        self.quick = quick

    def forward(self, x: Tensor) -> Tensor:
        self.layer.train(not self.quick)
        return self.layer(x[:, None])[:, 0]


class Recurrent(nn.Module):
    """An LSTM: one call, one output of several."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(2, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(x.view(-1, 2, 2))
        return self.out(states[:, -1])


class MixedDtypes(nn.Module):
    """Half, single and double in one graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4).double(), nn.Linear(4, 2).bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x.double()).bfloat16()).float()


class Views(nn.Module):
    """Operations in place, on a base and on its views."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(4, 4), nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        base = self.layer(x)
        view = base[:, :2]
        base.mul_(2)
        view.mul_(self.scale)
        base[:, 3] = 0.5
        return base + view.sum()


class Hooked(nn.Module):
    """The model's own hooks change gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.Linear(4, 4), nn.Linear(4, 2)
        self.layer.weight.register_hook(lambda grad: grad.clamp(-0.01, 0.01))
        self.layer.bias.register_hook(lambda grad: grad.mul_(2))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.layer(x))
        hidden.register_hook(lambda grad: grad * 0.5)
        return self.out(hidden)


class Transformed(nn.Module):
    """torch.func's transforms, whose tensors are not to be looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.rand(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.func.vmap(lambda row: torch.tanh(row @ self.w))(x)


class Packed(nn.Module):
    """Saved tensors are packed away, and say when they are looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.looked = _net(), 0

    def forward(self, x: Tensor) -> Tensor:
        def unpack(packed: Tensor) -> Tensor:
            self.looked += 1
            return packed

        with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved.clone(), unpack):
            return self.net(x)


class Flags(nn.Module):
    """What is no number: masks, places, empty and complex tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.turn = nn.Parameter(torch.tensor([1 + 1j]))
        self.nothing = nn.Parameter(torch.empty(0))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.where(x[:, :1] > 0.5, self.layer(x), -self.layer(x))
        _, places = y.max(1)
        turned = torch.view_as_real(self.turn * y.sum().to(torch.complex64))
        return y + turned.sum() + self.nothing.sum() + places[:, None]


MODELS: dict[str, Callable[[], nn.Module]] = {
    "create_graph": GradientPenalty,
    "shared": Shared,
    "used twice": UsedTwice,
    "unused": Unused,
    "custom": Custom,
    "no_grad": Partly,
    "checkpoint": lambda: Checkpointed(reentrant=False),
    "reentrant checkpoint": lambda: Checkpointed(reentrant=True),
    "transformer": Attention,
    "lstm": Recurrent,
    "mixed dtypes": MixedDtypes,
    "views": Views,
    "hooked": Hooked,
    "torch.func": Transformed,
    "packed": Packed,
    "flags": Flags,
}


def strange(build: Callable[[], nn.Module], *, losses: int = 1) -> Scenario:
    """Make a scenario of a model with an input of (8, 4); several losses are added."""

    def parts(options: Options) -> Parts:
        model = build()
        x = torch.rand(8, 4)

        def loss(prediction: Tensor, target: Tensor) -> Tensor:
            several = [((prediction - target) ** 2).mean() * (each + 1) for each in range(losses)]
            return sum(several[1:], several[0])

        return Parts(
            model=model, batch=lambda i: (x, torch.tensor(0.3)), loss=loss, optimizer="sgd,lr=0.01,momentum=0.9"
        )

    return Scenario("strange", parts)
