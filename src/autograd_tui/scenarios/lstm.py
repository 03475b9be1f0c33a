"""A small LSTM that reads a sine, value by value, and predicts the next one."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from autograd_tui.engine.training.scenario import Options, Parts, check_ranges, scenario


class NextValue(nn.Module):
    """Predict, after each value of a series, the one that follows: (batch, steps, 1) to the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, width, batch_first=True)
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden, _ = self.lstm(x)  # (batch, steps, width): what it remembers after each step
        value: Tensor = self.head(hidden)
        return value


def waves(count: int, steps: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Draw sines, each with a start and a pace of its own, and the same ones a step later: (count, steps, 1) each."""
    start = 2 * math.pi * torch.rand(count, 1, generator=generator)
    pace = 0.2 + 0.4 * torch.rand(count, 1, generator=generator)  # radians a step
    wave = torch.sin(start + pace * torch.arange(steps + 1))[:, :, None]
    return wave[:, :-1], wave[:, 1:]


@scenario("LSTM on sines", device="cpu", batch_size=16, data="fresh", width=16, steps=24)
def lstm(options: Options) -> Parts:
    """Predict the next value of sines of `steps` values, with a memory of `width` numbers."""
    check_ranges(options, width=(1, 2048), steps=(1, 10_000))
    model = NextValue(options.width)

    def draw(generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        return waves(options.batch_size, options.steps, generator)

    fixed = draw() if options.data == "fixed" else None
    return Parts(
        model=model,
        batch=lambda i: fixed or draw(options.generator(i)),
        loss=mse_loss,
        optimizer="adam,lr=0.01",
        names=("x", "y", "prediction"),
        listing={
            "setup": f"lstm, head = LSTM(1, {options.width}), Linear({options.width}, 1)\n"
            f"x, y = waves({options.batch_size}, {options.steps})  # y: x, one step later",
            "forward": "hidden, _ = lstm(x);  prediction = head(hidden)\nloss = mse_loss(prediction, y)",
        },
    )
