from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pseudo_terminal import terminal
from torchvision import models

sys.path.insert(0, str(Path(__file__).parent.parent / "scenarios"))
from loopback import saved, serving, url_of

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
CONTENT = saved(models.resnet18().state_dict())


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], str]:
    """Write a scenario that downloads its weights from this address."""

    def write(url: str) -> str:
        (tmp_path / "elsewhere.py").write_text(ELSEWHERE.format(url=url, hub_dir=str(tmp_path / "hub")))
        return str(tmp_path / "elsewhere.py")

    return write


def test_the_screen_says_how_far_a_download_is(written: Callable[[str], str]) -> None:
    with serving(CONTENT, "stalls") as server, terminal(written(url_of(server, CONTENT))) as shown:
        shown.wait_for("% so far")
        server.go_on.set()
        shown.wait_for("from elsewhere · SGD")
        shown.wait_for('resnet18(weights="DEFAULT")')
        shown.type("q")
        shown.end()
        assert shown.exit_code == 0


def test_the_program_can_be_left_while_it_downloads(written: Callable[[str], str], tmp_path: Path) -> None:
    with serving(CONTENT, "stalls") as server, terminal(written(url_of(server, CONTENT))) as shown:
        shown.wait_for("% so far")
        shown.type("q")
        shown.end()
        assert shown.exit_code == 0
    assert not list((tmp_path / "hub" / "checkpoints").glob("*.pth"))


def test_a_download_that_fails_leaves_the_session_that_was_there(written: Callable[[str], str]) -> None:
    with serving(CONTENT, "cut") as server, terminal("linear") as shown:
        shown.wait_for("space next")
        shown.type("fb")
        shown.wait_for("frame 2 of 2")
        shown.type(f":model {written(url_of(server, CONTENT))}\r")
        shown.wait_for("could not be downloaded")
        shown.type("s")
        shown.wait_for("frame 3 of 3")
        assert " the line · SGD" in shown.text
        shown.type("q")
        assert "autograd-tui linear --do fbs" in shown.end()


def test_a_download_that_fails_at_the_start_exits_with_2(written: Callable[[str], str]) -> None:
    with serving(CONTENT, "404") as server, terminal(written(url_of(server, CONTENT))) as shown:
        assert "could not be downloaded: the server answers 404 Not Found." in shown.end()
        assert shown.exit_code == 2
