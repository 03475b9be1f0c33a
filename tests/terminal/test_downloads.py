"""A download on the screen: how far it is, and the way out of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from torchvision import models

from hub_server import HubServer, serving
from pseudo_terminal import terminal

ELSEWHERE = """
from torchvision.models import ResNet18_Weights

from autograd_tui import scenario
from autograd_tui.scenarios.resnet18 import resnet18

ResNet18_Weights.DEFAULT.value.url = {url!r}
options = dict(resnet18.defaults) | dict(weights="pretrained", hub_dir={hub_dir!r})

@scenario("from elsewhere", **options)
def build(options):
    return resnet18.build(options)
"""


@pytest.fixture
def server() -> Iterator[HubServer]:
    """Serve weights of the right size, half of them at first."""
    content = io.BytesIO()
    torch.save(models.resnet18().state_dict(), content)
    with serving() as server:
        server.content, server.manner = content.getvalue(), "stalls"
        yield server


@pytest.fixture
def scenario(server: HubServer, tmp_path: Path) -> str:
    """Write a scenario that downloads its weights from there."""
    url = f"http://{server.address}/weights-{sha256(server.content).hexdigest()[:8]}.pth"
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE.format(url=url, hub_dir=str(tmp_path / "hub")))
    return str(tmp_path / "elsewhere.py")


def test_the_screen_says_how_far_a_download_is(server: HubServer, scenario: str) -> None:
    with terminal(scenario) as shown:
        shown.wait_for("% so far")
        server.goes_on.set()
        shown.wait_for("from elsewhere · SGD")
        shown.type("q")
        shown.end()
        assert shown.exit_code == 0


def test_the_program_can_be_left_while_it_downloads(scenario: str, tmp_path: Path) -> None:
    with terminal(scenario) as shown:
        shown.wait_for("% so far")
        shown.type("q")
        shown.end()
        assert shown.exit_code == 0
    assert not list((tmp_path / "hub" / "checkpoints").glob("*.pth"))
