"""torchvision's resnet18, on dummy images or on an image of the user's."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from torch import Tensor

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import open_to_read
from autograd_tui.engine.training.scenario import File, Options, Parts, scenario
from autograd_tui.scenarios.weights import choose_weights

if TYPE_CHECKING:
    from PIL.Image import Image


MAX_ASPECT_RATIO = 100  # times as long as wide, above which resizing would fill the memory


def read_picture(path: str) -> Image:
    """Read a JPEG, PNG or any file that Pillow knows, in three colours. Raises Refused."""
    from PIL import Image

    try:
        with open_to_read(path) as file, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = _decoded(path, file)
    except OSError as error:
        raise Refused(f'--image "{path}" could not be read: {error.strerror or error}.') from error
    width, height = picture.size
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise Refused(f'--image "{path}" is {width} x {height} pixels: too long and narrow.')
    return picture


def _decoded(path: str, file: BinaryIO) -> Image:
    from PIL import Image

    try:
        with Image.open(file) as picture:
            return picture.convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Refused(f'--image "{path}" has too many pixels.') from error
    except Exception as error:
        raise Refused(f'--image "{path}" is no picture that can be read: JPEG and PNG are, where whole.') from error


def prepare_image(image: Tensor | Image, trained: Any, size: int | None, *, whole: bool) -> Tensor:
    """Make it what `trained` weights were trained on: resized, its middle `size` x `size` pixels, normalised.

    whole: keep all of it, for one that has that size already.
    """
    transform = trained.transforms()
    if size is None:
        return transform(image)  # type: ignore[no-any-return]
    resized = size if whole else size * transform.resize_size[0] // transform.crop_size[0]
    return trained.transforms(crop_size=size, resize_size=resized)(image)  # type: ignore[no-any-return]


DUMMY_IMAGE_SIZE = 64  # pixels, of a dummy image
WEIGHTS = File("auto", words=("auto", "random"), fetched=("pretrained",))
OPTIONS = {"batch_size": 1, "image_size": None, "data": "fixed", "weights": WEIGHTS, "hub_dir": File(), "image": File()}
Draw = Callable[[torch.Generator | None], Tensor]


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error; scalar."""
    return ((target - prediction) ** 2).mean()


@scenario("resnet18", **OPTIONS)
def resnet18(options: Options) -> Parts:
    """Fit a random number for each of 1000 classes, from the weights asked for."""
    from torchvision import models

    trained = models.ResNet18_Weights.DEFAULT
    weights = choose_weights(options.weights, options.hub_dir, name="resnet18", trained=trained)
    images, source = _images(options, trained, dummy_prepared=weights.trained is not None)
    model = weights.put_into(models.resnet18(weights=None)).to(options.device)

    def draw(generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        data = images(generator)
        labels = torch.rand(options.batch_size, 1000, generator=generator)
        return data.to(options.device), labels.to(options.device)

    fixed = draw() if options.data == "fixed" else None
    return Parts(
        model=model,
        batch=(lambda i: fixed) if fixed else lambda i: draw(options.generator(i)),
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
    """Return a function that draws a batch of images, and how a script would write it."""
    count, size = options.batch_size, options.image_size or DUMMY_IMAGE_SIZE
    if options.image is not None:
        picture = prepare_image(read_picture(options.image), trained, options.image_size, whole=False)
        many = f".repeat({count},1,1,1)" if count > 1 else ""
        source = f"transforms(Image.open({Path(options.image).name!r})){many}"
        return lambda _: picture.repeat(count, 1, 1, 1), source
    shape = f"rand({count},3,{size},{size})"

    def dummy(generator: torch.Generator | None) -> Tensor:
        return torch.rand(count, 3, size, size, generator=generator)

    if not dummy_prepared:
        return dummy, shape
    return lambda generator: prepare_image(dummy(generator), trained, size, whole=True), f"transforms({shape})"
