"""Weights of resnet18: from the hub folder, a server on loopback, a file; and pictures in place of the dummy image."""

from __future__ import annotations

import hashlib
import io
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import models

from autograd_tui.core.errors import Refused
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.scenarios import weights
from hub_server import HubServer, serving
from plain_loop import copied, differing, mse, named_tensors
from program import Run
from session_internals import state_of, tensors
from tensor_files import Malicious, cut, save

TRAINED = models.ResNet18_Weights.DEFAULT
CATEGORIES = TRAINED.meta["categories"]


def small(weights: Any = None) -> nn.Module:
    """Stand in for resnet18: as many classes, a few kilobytes in each of two layers."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1000))


def content_of(model: nn.Module) -> bytes:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.getvalue()


class Hub:
    """A hub folder, and the server that torchvision's weights come from."""

    def __init__(self, folder: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.server, self._monkeypatch = folder, server, monkeypatch

    def offer(self, content: bytes) -> Path:
        """Let torchvision know of these weights; give the path that they will have in the hub folder."""
        name = f"resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        self.server.content = content
        described = replace(TRAINED.value, url=f"http://{self.server.address}/{name}")
        self._monkeypatch.setattr(TRAINED, "_value_", described)
        return self.folder / "checkpoints" / name

    def keep(self, content: bytes) -> Path:
        """Offer them, and let the hub folder have them already."""
        path = self.offer(content)
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        return path

    def open(self, weights: str = "auto", **options: Any) -> Session:
        return open_session("resnet18", weights=weights, hub_dir=str(self.folder), device="cpu", **options)

    def refusal(self, weights: str = "pretrained", **options: Any) -> str:
        with pytest.raises(Refused) as caught:
            self.open(weights, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def left(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as server:
        yield Hub(tmp_path / "hub", server, monkeypatch)


@pytest.fixture
def small_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Put a small model in resnet18's place."""
    monkeypatch.setattr(models, "resnet18", small)
    hub.offer(content_of(small()))
    return hub


def setup_of(session: Session) -> str:
    return "\n".join(session.about.listing["setup"])


def weight_of(session: Session) -> Tensor:
    return state_of(session).params["3.weight"]


# Which weights.


@pytest.mark.parametrize("seed", [0, 3])
def test_pretrained_resnet18_equals_the_plain_script_to_the_bit(hub: Hub, seed: int) -> None:
    torch.manual_seed(100)
    hub.offer(content_of(models.resnet18(weights=None)))
    session = hub.open("pretrained", seed=seed)
    torch.manual_seed(seed)
    model = models.resnet18(weights=None)
    model.load_state_dict(TRAINED.get_state_dict(model_dir=str(hub.folder / "checkpoints"), check_hash=True))
    data = TRAINED.transforms(crop_size=64, resize_size=64)(torch.rand(1, 3, 64, 64))
    labels = torch.rand(1, 1000)
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.01, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        loss = mse(model(data), labels)
        loss.backward()
        optimizer.step()
    for _ in session.run_all("fbsz fbs"):
        pass
    expected = named_tensors(model, optimizer, loss, torch.get_rng_state())
    assert not differing(tensors(session), copied(expected))


def test_auto_takes_what_the_hub_folder_has_without_asking_the_net(small_hub: Hub) -> None:
    model = small()
    small_hub.keep(content_of(model))
    session = small_hub.open()
    assert torch.equal(weight_of(session), model.state_dict()["3.weight"])
    assert small_hub.server.requests == 0
    assert 'model = resnet18(weights="IMAGENET1K_V1")' in setup_of(session)


def test_auto_is_random_where_the_hub_folder_has_none_and_says_how_to_get_them(small_hub: Hub) -> None:
    session = small_hub.open()
    assert torch.equal(weight_of(session), weight_of(small_hub.open("random")))
    assert small_hub.server.requests == 0
    assert "trained ones: --weights pretrained" in setup_of(session)


def test_auto_looks_into_the_hub_folder_of_torch(small_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    small_hub.keep(content_of(small()))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(small_hub.folder))
    assert open_session("resnet18").about.class_names == tuple(CATEGORIES)


def test_pretrained_weights_are_fetched_once(small_hub: Hub) -> None:
    path = small_hub.offer(content_of(small()))
    for _ in range(2):
        small_hub.open("pretrained")
    assert (small_hub.server.requests, small_hub.left()) == (1, [path])


def test_a_slow_server_is_waited_for(small_hub: Hub) -> None:
    small_hub.server.manner = "slow"
    assert small_hub.open("pretrained").about.class_names[0] == "tench"


def test_pretrained_outputs_carry_their_class_names(small_hub: Hub) -> None:
    assert small_hub.open("pretrained").about.class_names == tuple(CATEGORIES)
    assert small_hub.open("random").about.class_names == ()


@pytest.mark.parametrize(("asked", "settled"), [("auto", "random"), ("pretrained", "pretrained")])
def test_the_command_line_repeats_the_choice(small_hub: Hub, asked: str, settled: str) -> None:
    line = small_hub.open(asked).about.command_line
    assert line == f"autograd-tui resnet18 --device cpu --weights {settled} --hub-dir {small_hub.folder}"


@pytest.mark.parametrize("ending", [".pth", ".pt", ".safetensors"])
def test_weights_come_from_a_file(small_hub: Hub, tmp_path: Path, ending: str) -> None:
    from safetensors.torch import save_file

    model, path = small(), tmp_path / f"mine{ending}"
    if ending == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save({"model": model.state_dict()}, path)
    session = small_hub.open(str(path))
    assert torch.equal(weight_of(session), model.state_dict()["3.weight"])
    assert f"load('mine{ending}')" in setup_of(session)


# What cannot be had.


@pytest.mark.parametrize(
    ("manner", "sentence"),
    [
        ("cut", "what {} sent is cut short or not what its name promises, and was thrown away."),
        ("lies", "what {} sent is cut short or not what its name promises, and was thrown away."),
        ("404", "{} answered 404 Not Found."),
        ("503", "{} answered 503 Service Unavailable."),
        ("hangs up", "{} cut the connection."),
        ("no HTTP", "{} cut the connection."),
        ("silent", "{} has sent nothing for 0.2 seconds."),
    ],
)
def test_a_download_that_fails_is_one_sentence_and_leaves_nothing(
    small_hub: Hub, monkeypatch: pytest.MonkeyPatch, manner: str, sentence: str
) -> None:
    monkeypatch.setattr(weights, "DOWNLOAD_TIMEOUT", 0.2)
    small_hub.server.manner = manner
    host = small_hub.server.address
    assert small_hub.refusal() == f"the pretrained weights could not be had: {sentence.format(host)}"
    assert small_hub.left() == []


def test_no_network_is_one_sentence(small_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TRAINED, "_value_", replace(TRAINED.value, url="http://no.such.host.invalid/resnet18-1.pth"))
    monkeypatch.setenv("no_proxy", "*")
    assert "no.such.host.invalid could not be reached (" in small_hub.refusal()


def test_a_server_that_is_down_is_one_sentence(small_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TRAINED, "_value_", replace(TRAINED.value, url="http://127.0.0.1:1/resnet18-1.pth"))
    assert small_hub.refusal().endswith(" 127.0.0.1:1 could not be reached (Connection refused).")


def test_a_disk_without_room_is_one_sentence_and_leaves_nothing(small_hub: Hub) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    small_hub.offer(bytes(4_000_000))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        said = small_hub.refusal()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert said.endswith(f"File too large in {small_hub.folder / 'checkpoints'}.")
    assert small_hub.left() == []


def test_a_hub_folder_that_is_a_file_is_one_sentence(small_hub: Hub) -> None:
    small_hub.folder.write_bytes(b"")
    assert "Not a directory in" in small_hub.refusal()


@pytest.mark.parametrize("asked", ["auto", "pretrained"])
def test_cached_weights_that_are_damaged_are_not_used(small_hub: Hub, asked: str) -> None:
    path = small_hub.keep(content_of(small()))
    cut(str(path))
    assert small_hub.refusal(asked) == (
        f'"{path}" is damaged: its hash is not that of its name; delete it, or use --weights random.'
    )


def test_what_is_offered_may_be_no_weights(small_hub: Hub) -> None:
    small_hub.offer(b"<html>")
    assert small_hub.refusal().endswith("sent holds no weights.")


def test_weights_that_are_offered_run_nothing(small_hub: Hub, tmp_path: Path) -> None:
    file = io.BytesIO()
    torch.save(Malicious(tmp_path / "ran"), file)
    small_hub.offer(file.getvalue())
    assert small_hub.refusal().endswith("sent holds no weights.")
    assert not (tmp_path / "ran").exists()


def test_a_silent_server_does_not_shorten_other_waits(small_hub: Hub) -> None:
    import socket

    small_hub.open("pretrained")
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("asked", ["imagenet", "", "weights.bin", "IMAGENET1K_V1"])
def test_weights_of_no_such_name_are_refused(small_hub: Hub, asked: str) -> None:
    assert small_hub.refusal(asked) == (
        f'--weights "{asked}" is neither auto, random nor pretrained, nor a file ending in .pth, .pt or .safetensors.'
    )


def test_weights_of_another_model_are_refused_by_name(hub: Hub, tmp_path: Path) -> None:
    path = save(tmp_path / "w.pth", small().state_dict())
    assert "does not fit the model: 102 missing (conv1.weight, bn1.weight, bn1.bias, …); 4 unexpected" in hub.refusal(
        path
    )


def test_a_malicious_file_of_weights_runs_nothing(small_hub: Hub, tmp_path: Path) -> None:
    path = save(tmp_path / "w.pth", {"conv": Malicious(tmp_path / "ran")})
    assert small_hub.refusal(path).endswith("nothing in it was run.")
    assert not (tmp_path / "ran").exists()


def test_the_program_ends_with_2_where_weights_cannot_be_had(small_hub: Hub, run: Run) -> None:
    small_hub.server.manner = "404"
    done = run(*("resnet18", "--weights", "pretrained", "--hub-dir", str(small_hub.folder)), "--headless", "--do", "f")
    assert done.code == 2
    assert done.err[-1].startswith("autograd-tui: the pretrained weights could not be had: ")


def test_the_line_has_no_weights(run: Run) -> None:
    done = run("linear", "--weights", "random", "--headless", "--do", "f")
    assert (done.code, done.err) == (
        2,
        ['autograd-tui: "the line" has no --weights: it takes --batch-size, --data.'],
    )


# Pictures.


@pytest.fixture
def picture(tmp_path: Path) -> str:
    Image.linear_gradient("L").resize((120, 90)).convert("RGB").save(tmp_path / "cat.jpg")
    return str(tmp_path / "cat.jpg")


@pytest.mark.parametrize("asked", ["random", "pretrained"])
def test_a_picture_is_prepared_as_the_weights_expect(small_hub: Hub, picture: str, asked: str) -> None:
    session = small_hub.open(asked, image=picture, batch_size=2)
    inputs, _ = state_of(session).parts.batch(0)
    assert torch.equal(inputs, TRAINED.transforms()(Image.open(picture)).repeat(2, 1, 1, 1))
    assert "data = transforms(Image.open('cat.jpg')).repeat(2,1,1,1);" in setup_of(session)


def test_a_picture_may_be_smaller(small_hub: Hub, picture: str) -> None:
    inputs, _ = state_of(small_hub.open(image=picture, image_size=96)).parts.batch(0)
    assert inputs.shape == (1, 3, 96, 96)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_grey_and_transparent_pictures_are_taken(small_hub: Hub, tmp_path: Path, mode: str) -> None:
    Image.new(mode, (30, 20)).save(tmp_path / "a.png")
    inputs, _ = state_of(small_hub.open(image=str(tmp_path / "a.png"), image_size=32)).parts.batch(0)
    assert inputs.shape == (1, 3, 32, 32)


def test_a_picture_that_cannot_be_read_is_one_sentence(small_hub: Hub, picture: str, tmp_path: Path) -> None:
    assert small_hub.refusal("random", image=str(tmp_path / "no.jpg")).endswith(
        'no.jpg" could not be read: No such file or directory.'
    )
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("a cat")
    for path in (tmp_path / "empty.png", tmp_path / "text.png", cut(picture, 0.1)):
        assert "is no picture that can be read" in small_hub.refusal("random", image=str(path))


def test_a_thread_of_pixels_is_refused(small_hub: Hub, tmp_path: Path) -> None:
    Image.new("RGB", (5000, 1)).save(tmp_path / "thread.png")
    said = small_hub.refusal("random", image=str(tmp_path / "thread.png"))
    assert said.endswith("is 5000 x 1 pixels: too long and narrow.")


def test_a_picture_of_too_many_pixels_is_refused(small_hub: Hub, picture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8000)
    assert small_hub.refusal("random", image=picture).endswith("has too many pixels.")
