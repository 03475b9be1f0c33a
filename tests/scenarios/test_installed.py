from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autograd_tui.core.errors import Refused
from autograd_tui.core.run_config import installed
from autograd_tui.engine.open_session import open_session
from autograd_tui.scenarios.find import find
from autograd_tui.text.prompt.parser import ScreenCommand, parse_prompt

MODULE = """
from torch import nn, ones
from autograd_tui import Parts, scenario

@scenario("from a package", width=3)
def brought(options):
    model = nn.Linear(options.width, 1)
    return Parts(model=model, batch=lambda i: (ones(2, options.width), ones(2, 1)), loss=nn.functional.mse_loss)

text = "no scenario"
"""
Install = Callable[[str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution into a folder that Python imports from, as pip would; give it entry points."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "brought_models.py").write_text(MODULE)
    (tmp_path / "broken_models.py").write_text("1 / 0")
    about = tmp_path / "brought_models-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: brought-models\nVersion: 1.0\n")

    def points(lines: str) -> None:
        (about / "entry_points.txt").write_text(f"[autograd_tui.scenarios]\n{lines}\n")

    return points


def refusal(name: str) -> str:
    with pytest.raises(Refused) as caught:
        find(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_packages_scenario_opens_by_its_name(install: Install) -> None:
    install("brought = brought_models:brought")
    session = open_session("brought", width="4")
    assert (session.about.title, session.frame.params[0].shape) == ("from a package", (1, 4))


def test_the_line_that_repeats_it_has_its_name(install: Install) -> None:
    install("brought = brought_models:brought")
    assert open_session("brought").command_line() == "autograd-tui brought"


def test_a_built_in_name_stays_built_in(install: Install) -> None:
    install("linear = brought_models:brought")
    assert find("linear").title == "the line"
    assert "linear" not in installed()


def test_a_packages_scenario_is_understood_at_the_prompt(install: Install) -> None:
    install("brought = brought_models:brought")
    assert parse_prompt("model brought") == ScreenCommand("model", "brought")


def test_a_misspelt_name_is_answered_with_an_installed_one(install: Install) -> None:
    install("brought = brought_models:brought")
    assert refusal("bruoght") == 'there is no scenario "bruoght": the nearest is brought.'


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("broken_models:it", "(broken_models:it) could not be imported: ZeroDivisionError: division by zero"),
        ("brought_models:other", "could not be imported: AttributeError: module 'brought_models' has no"),
        ("nothing_of_this_name:it", "could not be imported: ModuleNotFoundError: No module named 'nothing_of"),
        ("brought_models:text", "(brought_models:text) is a str, not what @scenario makes."),
    ],
)
def test_a_broken_one_is_refused_in_a_sentence(value: str, sentence: str, install: Install) -> None:
    install(f"broken = {value}")
    assert refusal("broken").startswith("the installed scenario broken")
    assert sentence in refusal("broken")
