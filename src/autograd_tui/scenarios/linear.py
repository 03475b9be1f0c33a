"""The line: two parameters, three points, one gradient that can be checked by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autograd_tui.engine.training.scenario import Options, Parts, scenario


class Line(nn.Module):
    """Predict Q = w * x + b."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([2.0]))
        self.b = nn.Parameter(torch.tensor([6.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.w * x + self.b


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error; scalar."""
    return ((target - prediction) ** 2).mean()


@scenario("the line", device="cpu", batch_size=3, data="fixed")
def linear(options: Options) -> Parts:
    """Fit y = 4x + 1 from w = 2, b = 6."""
    model = Line().to(options.device)

    def points(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.to(options.device), (4 * x + 1).to(options.device)

    fixed = points(torch.arange(1.0, options.batch_size + 1)) if options.data == "fixed" else None

    def fresh(i: int) -> tuple[Tensor, Tensor]:
        return points(1 + 2 * torch.rand(options.batch_size, generator=options.generator(i)))  # x in [1, 3)

    xs = ", ".join(f"{i}." for i in range(1, min(options.batch_size, 4) + 1))
    xs = f"tensor([{xs}{', ...' * (options.batch_size > 4)}])" if fixed else f"1 + 2 * rand({options.batch_size})"
    return Parts(
        model=model,
        batch=(lambda i: fixed) if fixed else fresh,
        loss=mse,
        optimizer="sgd,lr=0.1",
        names=("x", "y", "Q"),
        listing={
            "setup": f"w, b = tensor([2.]), tensor([6.])  # requires_grad\nx = {xs};  y = 4 * x + 1",
            "forward": "Q = w * x + b\nloss = mse(Q, y)  # ((y - Q)**2).mean()",
        },
    )
