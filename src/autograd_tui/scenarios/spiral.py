"""Two spirals, and a network with one hidden layer that learns to tell them apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from autograd_tui.core.picture import Plane
from autograd_tui.engine.training.scenario import Options, Parts, check_ranges, scenario


def spirals(points: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Draw points on two spirals, in turns: (points, 2), and 0. or 1. for the spiral of each: (points, 1)."""
    label = (torch.arange(points) % 2).float()
    radius = 0.1 + 0.9 * torch.rand(points, generator=generator)
    angle = 2 * math.pi * radius + math.pi * label  # one turn; the other spiral stands opposite
    x = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    return x + 0.02 * torch.randn(points, 2, generator=generator), label[:, None]


def accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the share of points on the right side; a logit above 0 says spiral 1."""
    return ((logits > 0) == (y > 0.5)).float().mean()


@scenario("two spirals", device="cpu", batch_size=128, data="fixed", width=32)
def spiral(options: Options) -> Parts:
    """Separate two spirals, with `width` neurons in between."""
    check_ranges(options, width=(1, 65_536))
    model = nn.Sequential(nn.Linear(2, options.width), nn.Tanh(), nn.Linear(options.width, 1))
    fixed = spirals(options.batch_size) if options.data == "fixed" else None

    def decision_boundary(model: nn.Module) -> Plane:
        ys, xs = torch.meshgrid(torch.linspace(-1.2, 1.2, 48), torch.linspace(-1.2, 1.2, 64), indexing="ij")
        device = next(model.parameters()).device
        share = model(torch.stack([xs, ys], dim=2).to(device)).sigmoid()[:, :, 0]
        x, y = fixed or spirals(options.batch_size, options.generator(0))
        named = {f"spiral {label}": x[y[:, 0] == label] for label in (0, 1)}
        return Plane(share, x=(-1.2, 1.2), y=(-1.2, 1.2), points=named, classes=True)

    return Parts(
        model=model,
        batch=(lambda i: fixed) if fixed else lambda i: spirals(options.batch_size, options.generator(i)),
        loss=binary_cross_entropy_with_logits,
        metrics={"accuracy": accuracy},
        picture=decision_boundary,
        optimizer="adam,lr=0.03",
        names=("x", "y", "logits"),
        listing={
            "setup": f"model = Sequential(Linear(2, {options.width}), Tanh(), Linear({options.width}, 1))\n"
            f"x, y = spirals({options.batch_size})",
            "forward": "logits = model(x)  # above 0: spiral 1\nloss = binary_cross_entropy_with_logits(logits, y)",
        },
    )
