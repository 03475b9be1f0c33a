from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.core.errors import Refused
from autograd_tui.core.run_config import BUILT_IN
from autograd_tui.engine.open_session import open_session
from autograd_tui.scenarios.find import find

GOOD = """
import torch
from torch import nn
from autograd_tui import Options, Parts, scenario

@scenario("two layers")
def build(options: Options) -> Parts:
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    x = torch.rand(32, 2)
    y = x.sum(1, keepdim=True)
    return Parts(model=model, batch=lambda i: (x, y), loss=nn.functional.mse_loss)
"""
TITLES = {
    "linear": "the line",
    "resnet18": "resnet18",
    "spiral": "two spirals",
    "lstm": "LSTM on sines",
    "transformer": "transformer",
}
ANOTHER = GOOD + '\n@scenario("another")\ndef another(options):\n    return build.build(options)\n'


@pytest.fixture(autouse=True)
def modules_as_they_were(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let each test load a my_model.py of its own."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name in ("my_model", "neighbour"):
            del sys.modules[name]


def file(folder: Path, text: str, name: str = "my_model.py") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def sentence(name: str) -> str:
    with pytest.raises(Refused) as caught:
        find(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("name", "title"), TITLES.items())
def test_a_built_in_scenario_is_found_by_name(name: str, title: str) -> None:
    assert find(name).title == title


def test_all_built_in_scenarios_are_named() -> None:
    assert list(BUILT_IN) == list(TITLES)


def test_a_file_with_one_scenario_needs_no_name(tmp_path: Path) -> None:
    assert find(file(tmp_path, GOOD)).title == "two layers"


def test_a_file_is_found_from_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    assert find("my_model.py").title == "two layers"


def test_one_of_several_scenarios_is_found_by_its_functions_name(tmp_path: Path) -> None:
    assert find(file(tmp_path, ANOTHER) + ":another").title == "another"


def test_several_scenarios_without_a_name_are_refused(tmp_path: Path) -> None:
    assert "holds several scenarios: name one, as in" in sentence(file(tmp_path, ANOTHER))


def test_a_name_that_the_file_does_not_hold_is_refused_with_those_it_does(tmp_path: Path) -> None:
    assert 'holds no scenario "other": it has build, another.' in sentence(file(tmp_path, ANOTHER) + ":other")


def test_a_scenario_that_the_file_only_imports_is_not_its_own(tmp_path: Path) -> None:
    text = GOOD + "\nfrom autograd_tui.scenarios.linear import linear\n"
    assert find(file(tmp_path, text)).title == "two layers"


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "/my_model.py steps a training script as it is; or put @scenario(...) above its build function, or name "),
        ("def build(:", "could not be read: SyntaxError"),
        ("\n\n1 / 0", "could not be read: ZeroDivisionError: division by zero (my_model.py, line 3)"),
        ("import sys\nsys.exit(3)", "could not be read: SystemExit: 3 (my_model.py, line 2)"),
        ("import nothing_of_this_name", "could not be read: ModuleNotFoundError"),
        ("x = '\0'", "could not be read: "),
        (
            'from autograd_tui import scenario\nscenario("x", lr=1)',
            "names lr: that is an option of every scenario already",
        ),
    ],
)
def test_a_file_that_is_no_use_is_refused(tmp_path: Path, text: str, fragment: str) -> None:
    assert fragment in sentence(file(tmp_path, text))


@pytest.mark.parametrize("name", ["missing.py", "missing.py:name", ".py", "a" * 5000 + ".py", "\0.py"])
def test_a_file_that_is_not_there_is_refused(name: str) -> None:
    assert "there is no file" in sentence(name)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    assert 'folder.py" is a folder, and no file' in sentence(str(tmp_path / "folder.py"))


@given(st.text().filter(lambda text: text not in BUILT_IN))
def test_any_other_name_is_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(Refused, match=r"^there is no (scenario|file)|is a folder"):
        find(name)


@pytest.mark.parametrize(
    ("name", "sentences"),
    [
        ("resnet", 'there is no scenario "resnet": the nearest is resnet18.'),
        ("lstn", 'there is no scenario "lstn": the nearest is lstm.'),
        ("mine_modle", 'there is no scenario "mine_modle": the nearest is mine_model.py.'),
        ("mine_modle.py", 'there is no file "mine_modle.py": the nearest is mine_model.py.'),
        ("quux", 'there is no scenario "quux": use linear, resnet18, spiral, lstm, transformer, or a file such as '),
        ("models", '"models" is a folder: name a file in it, such as models/my_model.py.'),
        ("notes.ipynb", '"notes.ipynb" is a notebook: jupyter nbconvert --to script notes.ipynb makes notes.py of it'),
    ],
)
def test_a_name_that_is_none_is_answered_with_what_was_meant(
    name: str, sentences: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_model.py").touch()
    (tmp_path / "models").mkdir()
    assert sentence(name).startswith(sentences)


def test_a_long_name_is_quoted_in_part() -> None:
    assert len(sentence("x" * 5000)) < 250


def test_a_files_neighbours_can_be_imported(tmp_path: Path) -> None:
    file(tmp_path, "title = 'from next door'", "neighbour.py")
    text = GOOD.replace('@scenario("two layers")', "import neighbour\n@scenario(neighbour.title)")
    assert find(file(tmp_path, text)).title == "from next door"


def test_a_file_with_dataclasses_is_read(tmp_path: Path) -> None:
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n"
    assert find(file(tmp_path, text + GOOD)).title == "two layers"


def test_a_users_scenario_trains(tmp_path: Path) -> None:
    frames = list(open_session(file(tmp_path, GOOD)).run_all("fbsz*3"))
    assert [frame.error for frame in frames] == [None] * 12


def test_a_value_of_a_sequential_can_be_set(tmp_path: Path) -> None:
    frame = open_session(file(tmp_path, GOOD)).run("0.weight[0,1]=3")
    row = frame.params.named("0.weight")
    assert row is not None
    assert row.values is not None
    assert row.values[1] == 3
