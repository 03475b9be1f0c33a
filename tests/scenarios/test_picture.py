from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.models import ResNet18_Weights

from autograd_tui.engine.errors import Refused
from autograd_tui.engine.scenario import Parts
from autograd_tui.open import open_session
from autograd_tui.scenarios.find import find

IMAGE = Image.frombytes("RGB", (60, 40), bytes(i * i % 251 for i in range(60 * 40 * 3)))  # width, height
UPRIGHT = 0x0112  # the tag that says how the camera was held


@pytest.fixture
def picture(tmp_path: Path) -> str:
    IMAGE.save(tmp_path / "cat.png")
    return str(tmp_path / "cat.png")


def built(**given: Any) -> Parts:
    scenario = find("resnet18")
    return scenario.build(scenario.options(0, {"weights": "random"} | given))


def test_a_picture_is_prepared_as_the_weights_expect(picture: str) -> None:
    expected = ResNet18_Weights.DEFAULT.transforms()(IMAGE).unsqueeze(0)
    assert torch.equal(built(image=picture).batch(0)[0], expected)


def test_a_jpeg_is_a_picture_too(tmp_path: Path) -> None:
    IMAGE.save(tmp_path / "cat.jpg")
    with Image.open(tmp_path / "cat.jpg") as image:
        expected = ResNet18_Weights.DEFAULT.transforms()(image).unsqueeze(0)
    assert torch.equal(built(image=str(tmp_path / "cat.jpg")).batch(0)[0], expected)


def test_a_grey_picture_gets_three_channels(tmp_path: Path) -> None:
    IMAGE.convert("L").save(tmp_path / "grey.png")
    assert built(image=str(tmp_path / "grey.png")).batch(0)[0].shape == (1, 3, 224, 224)


def test_a_picture_of_a_camera_held_sideways_stands_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[UPRIGHT] = 6  # to be turned clockwise
    IMAGE.save(tmp_path / "held.png", exif=exif)
    expected = ResNet18_Weights.DEFAULT.transforms()(IMAGE.rotate(-90, expand=True)).unsqueeze(0)
    assert torch.equal(built(image=str(tmp_path / "held.png")).batch(0)[0], expected)


@pytest.mark.parametrize("data", ["fixed", "fresh"])
def test_a_picture_fills_the_batch_at_the_size_asked_for(data: str, picture: str) -> None:
    images, labels = built(image=picture, image_size=96, batch_size=3, data=data).batch(0)
    assert (images.shape, labels.shape) == ((3, 3, 96, 96), (3, 1000))


def test_the_screen_says_where_the_data_are_from(picture: str) -> None:
    about = open_session("resnet18", device="cpu", weights="random", image=picture).about
    assert about.listing["setup"][1] == 'data = preprocess(Image.open("cat.png"));  labels = rand(1,1000)'
    assert about.command_line == f"autograd-tui resnet18 --device cpu --weights random --image {picture}"


@pytest.mark.parametrize("content", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0" + b"\0" * 99])
def test_what_is_no_picture_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(content)
    with pytest.raises(Refused) as caught:
        built(image=str(path))
    assert str(caught.value) == f"--image {path} cannot be read as a picture: use a JPEG or a PNG."


@pytest.mark.parametrize("name", ["missing.jpg", "."])
def test_a_picture_that_is_not_there_is_one_sentence(name: str) -> None:
    with pytest.raises(Refused, match="there is no such file"):
        built(image=name)
