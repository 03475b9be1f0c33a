"""A small LSTM that reads a sine, value by value, and predicts the next one."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from autograd_tui.engine.training.scenario import Options, Parts, check_ranges, scenario

SHOWN = 24  # values of the sine in the picture that it sees, and as many that it adds


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


@torch.no_grad()
def continued(model: NextValue, x: Tensor, count: int) -> Tensor:
    """Predict after each of a series (1, steps, 1), then go on from the predictions: (steps + count,)."""
    hidden, memory = model.lstm(x)
    values = [*model.head(hidden)[0, :, 0]]
    for _ in range(count):
        hidden, memory = model.lstm(values[-1].reshape(1, 1, 1), memory)
        values.append(model.head(hidden).reshape(()))
    return torch.stack(values)


@scenario("LSTM on sines", device="cpu", batch_size=16, data="fresh", width=16, steps=24)
def lstm(options: Options) -> Parts:
    """Predict the next value of sines of `steps` values, with a memory of `width` numbers."""
    check_ranges(options, width=(1, 2048), steps=(1, 10_000))
    model = NextValue(options.width)

    def draw(generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        return waves(options.batch_size, options.steps, generator)

    fixed = draw() if options.data == "fixed" else None

    def sine_and_continuation(model: nn.Module) -> dict[str, list[tuple[int, float]]]:
        assert isinstance(model, NextValue)
        steps = min(options.steps, SHOWN)
        truth = torch.sin(0.4 * torch.arange(2 * steps))
        given = truth[None, :steps, None].to(next(model.parameters()).device)
        values = list(enumerate(continued(model, given, steps - 1).tolist(), start=1))
        return {
            "truth": list(enumerate(truth.tolist())),
            "predicted": values[:steps],
            "continued": values[steps:],
        }

    return Parts(
        model=model,
        batch=(lambda i: fixed) if fixed else lambda i: draw(options.generator(i)),
        loss=mse_loss,
        optimizer="adam,lr=0.01",
        picture=sine_and_continuation,
        names=("x", "y", "prediction"),
        listing={
            "setup": f"lstm, head = LSTM(1, {options.width}), Linear({options.width}, 1)\n"
            f"x, y = waves({options.batch_size}, {options.steps})  # y: x, one step later",
            "forward": "hidden, _ = lstm(x);  prediction = head(hidden)\nloss = mse_loss(prediction, y)",
        },
    )
