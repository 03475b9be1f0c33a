"""torchvision's resnet18 on dummy images."""

from __future__ import annotations

import torch
from torch import Tensor

from autograd_tui.engine.options import Options
from autograd_tui.engine.scenario import Parts, scenario


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Give the mean squared error; scalar."""
    return ((target - prediction) ** 2).mean()


@scenario("resnet18", batch_size=1, image_size=64, data="fixed")
def resnet18(options: Options) -> Parts:
    """Fit a random number for each of 1000 classes, from random weights."""
    from torchvision import models

    model = models.resnet18(weights=None).to(options.device)

    def draw(generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        images = torch.rand(options.batch_size, 3, options.image_size, options.image_size, generator=generator)
        labels = torch.rand(options.batch_size, 1000, generator=generator)
        return images.to(options.device), labels.to(options.device)

    fixed = draw() if options.data == "fixed" else None
    shape = f"({options.batch_size},3,{options.image_size},{options.image_size})"
    return Parts(
        model=model,
        batch=lambda i: fixed or draw(options.generator(i)),
        loss=mse,
        names=("data", "labels", "prediction"),
        optimizer="sgd,lr=0.01,momentum=0.9",
        listing={
            "setup": f"model = resnet18()\ndata = rand{shape};  labels = rand({options.batch_size},1000)",
            "forward": "prediction = model(data)\nloss = mse(prediction, labels)",
        },
    )
