"""torchvision's resnet18, on dummy images or a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autograd_tui.engine.training.options import File, Options
from autograd_tui.engine.training.scenario import Parts, scenario
from autograd_tui.scenarios.picture import prepared, read_picture
from autograd_tui.scenarios.weights import choose

SIZE = 64  # pixels, of a dummy image
WEIGHTS = File("auto", words=("auto", "random"), fetched=("pretrained",))
OWN = {"batch_size": 1, "image_size": None, "data": "fixed", "weights": WEIGHTS, "hub_dir": File(), "image": File()}
Draw = Callable[[torch.Generator | None], Tensor]


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Give the mean squared error; scalar."""
    return ((target - prediction) ** 2).mean()


@scenario("resnet18", **OWN)
def resnet18(options: Options) -> Parts:
    """Fit a random number for each of 1000 classes, from the weights asked for."""
    from torchvision import models

    trained = models.ResNet18_Weights.DEFAULT
    weights = choose(options.weights, options.hub_dir, name="resnet18", trained=trained)
    images, source = _images(options, trained, dummy_prepared=weights.trained is not None)
    model = weights.put_into(models.resnet18(weights=None)).to(options.device)

    def draw(generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        data = images(generator)
        labels = torch.rand(options.batch_size, 1000, generator=generator)
        return data.to(options.device), labels.to(options.device)

    fixed = draw() if options.data == "fixed" else None
    return Parts(
        model=model,
        batch=lambda i: fixed or draw(options.generator(i)),
        loss=mse,
        names=("data", "labels", "prediction"),
        optimizer="sgd,lr=0.01,momentum=0.9",
        class_names=tuple(trained.meta["categories"]) if weights.trained else (),
        listing={
            "setup": f"{weights.line}\ndata = {source};  labels = rand({options.batch_size},1000)",
            "forward": "prediction = model(data)\nloss = mse(prediction, labels)",
        },
    ).settle(weights=weights.settled)


def _images(options: Options, trained: Any, *, dummy_prepared: bool) -> tuple[Draw, str]:
    """Give what makes a batch of images, and how a script would write it."""
    count, size = options.batch_size, options.image_size or SIZE
    if options.image is not None:
        picture = prepared(read_picture(options.image), trained, options.image_size, whole=False)
        many = f".repeat({count},1,1,1)" if count > 1 else ""
        source = f"transforms(Image.open({Path(options.image).name!r})){many}"
        return lambda _: picture.repeat(count, 1, 1, 1), source
    shape = f"rand({count},3,{size},{size})"

    def dummy(generator: torch.Generator | None) -> Tensor:
        return torch.rand(count, 3, size, size, generator=generator)

    if not dummy_prepared:
        return dummy, shape
    return lambda generator: prepared(dummy(generator), trained, size, whole=True), f"transforms({shape})"
