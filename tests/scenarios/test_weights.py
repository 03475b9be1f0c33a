from __future__ import annotations

import errno
import hashlib
import io
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loopback import saved, serving, url_of
from torch import nn
from torchvision import models
from torchvision.models import ResNet18_Weights

from autograd_tui.cli import main
from autograd_tui.engine.errors import Refused
from autograd_tui.engine.options import Options
from autograd_tui.engine.scenario import Parts
from autograd_tui.open import open_session
from autograd_tui.scenarios import weights as weights_module
from autograd_tui.scenarios.find import find

DEFAULT = ResNet18_Weights.DEFAULT
Serve = Callable[[str], None]


def trained() -> dict[str, torch.Tensor]:
    torch.manual_seed(99)
    return models.resnet18().state_dict()


STATE = trained()
CONTENT = saved(STATE)


@pytest.fixture
def named_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let torchvision's weights have another address."""
    return lambda url: monkeypatch.setattr(DEFAULT.value, "url", url)


@pytest.fixture
def cache(tmp_path: Path, named_after: Callable[[str], None]) -> Path:
    """Give a hub folder that holds the weights, and no network to get others from."""
    name = f"resnet18-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"
    named_after(f"http://127.0.0.1:9/{name}")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / name).write_bytes(CONTENT)
    return tmp_path


def built(**given: Any) -> Parts:
    torch.manual_seed(0)
    scenario = find("resnet18")
    return scenario.build(scenario.options(0, given))


def refusal(**given: Any) -> str:
    with pytest.raises(Refused) as caught:
        open_session("resnet18", device="cpu", **given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(state: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[key], other[key]) for key in state)


@pytest.mark.parametrize("weights", ["random", "auto"])
def test_without_a_cache_the_weights_are_random(weights: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = models.resnet18()
    assert same(built(weights=weights, hub_dir=str(tmp_path)).model.state_dict(), plain.state_dict())


def test_the_screen_says_how_to_get_pretrained_ones(tmp_path: Path) -> None:
    setup = open_session("resnet18", device="cpu", hub_dir=str(tmp_path)).about.listing["setup"]
    assert setup[0] == "model = resnet18()  # random weights: --weights pretrained downloads 45 MB"


def test_auto_asks_no_network(tmp_path: Path, named_after: Callable[[str], None]) -> None:
    with serving(CONTENT) as server:
        named_after(url_of(server, CONTENT))
        built(hub_dir=str(tmp_path))
        assert server.asked == 0


@pytest.mark.parametrize("weights", ["auto", "pretrained"])
def test_cached_weights_equal_the_plain_script(weights: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(cache))
    torch.manual_seed(0)
    plain = models.resnet18(weights=DEFAULT)
    images, labels = torch.rand(1, 3, 64, 64), torch.rand(1, 1000)
    parts = built(weights=weights)
    data = DEFAULT.transforms(crop_size=64, resize_size=64)(images)
    assert same(parts.model.state_dict(), plain.state_dict())
    assert torch.equal(parts.batch(0)[0], data)
    assert torch.equal(parts.batch(0)[1], labels)


def test_pretrained_weights_name_the_classes(cache: Path) -> None:
    about = open_session("resnet18", device="cpu", hub_dir=str(cache)).about
    assert about.class_names == tuple(DEFAULT.meta["categories"])
    assert about.listing["setup"] == (
        'model = resnet18(weights="DEFAULT")  # pretrained',
        "data = preprocess(rand(1,3,64,64));  labels = rand(1,1000)",
    )


def test_the_hub_folder_of_others_stays(cache: Path) -> None:
    before = torch.hub.get_dir()
    built(hub_dir=str(cache))
    assert torch.hub.get_dir() == before


def test_cached_weights_that_are_damaged_are_refused(cache: Path) -> None:
    (path,) = (cache / "checkpoints").iterdir()
    path.write_bytes(CONTENT[:-1])
    assert refusal(hub_dir=str(cache)) == f"{path} is damaged: remove it, or use --weights random."


def test_pretrained_downloads_and_keeps(
    tmp_path: Path, named_after: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(CONTENT) as server:
        named_after(url_of(server, CONTENT))
        parts = built(weights="pretrained", hub_dir=str(tmp_path))
    assert same(parts.model.state_dict(), STATE)
    (kept,) = (tmp_path / "checkpoints").iterdir()
    assert kept.read_bytes() == CONTENT
    assert "100" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("how", "fragment"),
    [
        ("cut", "cut short on the way or is another file, since its hash is wrong; it is not kept"),
        ("404", "the server answers 404 Not Found"),
        ("503", "the server answers 503 Service Unavailable"),
        ("drops", "the connection broke"),
        ("stalls", "the server sent nothing for 0.2 s"),
    ],
)
def test_a_download_that_fails_is_one_sentence_and_leaves_nothing(
    how: str,
    fragment: str,
    tmp_path: Path,
    named_after: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weights_module, "PATIENCE", 0.2)
    with serving(CONTENT, how) as server:
        named_after(url_of(server, CONTENT))
        assert fragment in refusal(weights="pretrained", hub_dir=str(tmp_path))
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_server_that_lies_is_found_out(tmp_path: Path, named_after: Callable[[str], None]) -> None:
    with serving(saved({"fc.weight": torch.zeros(1)})) as server:
        named_after(url_of(server, CONTENT))
        assert "its hash is wrong" in refusal(weights="pretrained", hub_dir=str(tmp_path))
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_without_a_network_there_is_one_sentence(tmp_path: Path, named_after: Callable[[str], None]) -> None:
    with serving(CONTENT) as server:
        url = url_of(server, CONTENT)
    named_after(url)  # nobody listens there any more
    said = refusal(weights="pretrained", hub_dir=str(tmp_path))
    assert "could not be downloaded: no answer (Connection refused); --weights random needs no network." in said


def test_a_full_disk_is_one_sentence(
    tmp_path: Path, named_after: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.FileIO):
        def write(self, _: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch.hub, "open", lambda name, mode: Full(name, "w+"), raising=False)
    with serving(CONTENT) as server:
        named_after(url_of(server, CONTENT))
        said = refusal(weights="pretrained", hub_dir=str(tmp_path))
    assert "does not take it (No space left on device)" in said
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_hub_folder_that_is_a_file_is_one_sentence(tmp_path: Path, named_after: Callable[[str], None]) -> None:
    (tmp_path / "file").write_text("no folder")
    named_after("http://127.0.0.1:9/resnet18-00000000.pth")
    assert "does not take it (Not a directory)" in refusal(weights="pretrained", hub_dir=str(tmp_path / "file"))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_of_weights_is_put_into_the_model(wrapped: bool, tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(saved({"state_dict": STATE} if wrapped else STATE))
    assert same(built(weights=str(path)).model.state_dict(), STATE)


def test_a_safetensors_file_is_put_into_the_model(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "mine.safetensors"
    save_file(STATE, path)
    session = open_session("resnet18", device="cpu", weights=str(path))
    assert session.about.listing["setup"][0] == 'model = resnet18();  model.load_state_dict(load("mine.safetensors"))'
    assert session.about.command_line == f"autograd-tui resnet18 --device cpu --weights {path}"


def test_the_pretrained_file_by_another_name_still_names_the_classes(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.pth").write_bytes(CONTENT)
    assert len(built(weights=str(tmp_path / "copy.pth")).class_names) == 1000


def test_a_file_of_ones_own_names_no_classes(tmp_path: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(CONTENT)
    assert built(weights=str(tmp_path / "mine.pth")).class_names == ()


def test_safetensors_without_its_library_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    path = tmp_path / "mine.safetensors"
    path.touch()
    assert refusal(weights=str(path)) == f"to read {path}, install its library: pip install safetensors."


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_nothing_in_a_malicious_file_runs(write: Any, tmp_path: Path) -> None:
    write({"fc.weight": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    assert "evil.pth" in refusal(weights=str(tmp_path / "evil.pth"))
    assert not (tmp_path / "ran").exists()


def test_a_malicious_file_is_called_so(tmp_path: Path) -> None:
    torch.save({"fc.weight": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    said = refusal(weights=str(tmp_path / "evil.pth"))
    assert said.endswith("evil.pth holds more than tensors, posix.mkdir: it is refused, and nothing in it has run.")


BAD = {
    "empty.pth": (b"", "is no file of tensors, or it is damaged or cut short."),
    "cut.pth": (CONTENT[:5000], "is no file of tensors, or it is damaged or cut short."),
    "text.pth": (b"hello" * 99, "is no file of tensors, or it is damaged or cut short."),
    "cut.safetensors": (b"\x08\0\0\0\0\0\0\0{}", "is no file of tensors, or it is damaged or cut short."),
    "list.pth": (saved([1, 2]), "holds no state of a model"),
    "none.pth": (saved({}), "holds no state of a model"),
    "numbers.pth": (saved({"a": 1}), "holds no state of a model"),
    "places.pth": (saved({1: torch.ones(1)}), "holds no state of a model"),
    "model.pth": (saved(nn.Linear(1, 1)), "holds more than tensors, torch.nn.modules.linear.Linear"),
    "other.pth": (
        saved(nn.Linear(2, 3).state_dict()),
        "does not fit this model: 122 missing (conv1.weight, bn1.weight, bn1.bias, ...); 2 unexpected (weight, bias).",
    ),
    "shape.pth": (
        saved(STATE | {"fc.bias": torch.ones(10)}),
        "does not fit this model: 1 of another shape (fc.bias 10 for 1000).",
    ),
    "escape.pth": (saved(STATE | {"\x1b[2J\n": torch.ones(1)}), "1 unexpected (?[2J?)."),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_holds_no_such_weights_is_one_sentence(name: str, tmp_path: Path) -> None:
    content, fragment = BAD[name]
    (tmp_path / name).write_bytes(content)
    assert fragment in refusal(weights=str(tmp_path / name))


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ("pretraned", "--weights pretraned is none: use auto, random, pretrained, or a file, .pth, .pt, .safetensors."),
        ("missing.pth", "missing.pth cannot be read: No such file or directory."),
        ("missing.safetensors", "missing.safetensors cannot be read: No such file or directory."),
    ],
)
def test_weights_that_are_not_there_exit_with_2(
    weights: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stdout = os.dup(1)
    try:
        assert main(["resnet18", "--weights", weights, "--headless", "--do", "f"]) == 2
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
    assert capsys.readouterr().err == f"autograd-tui: {sentence}\n"


def test_weights_belong_to_resnet18_alone() -> None:
    with pytest.raises(Refused, match=r'"the line" has no --weights: it takes --batch-size, --data\.'):
        open_session("linear", weights="random")


def test_options_are_those_of_the_scenario() -> None:
    assert find("resnet18").options(0, {}) == Options(0, "cpu", find("resnet18").defaults)
