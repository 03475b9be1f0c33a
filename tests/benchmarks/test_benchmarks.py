"""Every benchmark still runs: each measures as little as it can, and nothing is said of the figures."""

from __future__ import annotations

from typing import Any

import all as table
import free_run
import keys
import pytest
import stepping
import traced_phase
from figures import Figure

from pseudo_terminal import Terminal
from suite_options import some


def forked(*words: str, anew: bool, **options: Any) -> Terminal:
    """Open a program that is forked from one that has all modules at hand."""
    return Terminal(*words, **options)


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let benchmarks measure small things, once: what they would say of them is not looked at."""
    for module in (stepping, traced_phase):
        monkeypatch.setattr(module, "WARM_UP", 0)
    monkeypatch.setattr(stepping, "LARGE_BATCH", 2)
    monkeypatch.setattr(stepping, "LARGE_SIZE", 32)
    monkeypatch.setattr(traced_phase, "CONVOLUTION", "layer1.0.conv1.weight")
    monkeypatch.setattr(keys, "WARM_UP", 1)
    monkeypatch.setattr(keys, "PARAMETERS", 20)
    monkeypatch.setattr(keys, "MANY", keys.MANY.replace("2000", "20"))


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("name", some(list(table.QUICK), 3))
def test_a_benchmark_returns_its_figures(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "Terminal", forked)
    monkeypatch.setattr(free_run, "Terminal", forked)
    measured = table.QUICK[name]()
    assert any(figure.verdict for figure in measured)
    assert all(figure.values and figure.row() for figure in measured)


def test_the_full_table_has_what_the_quick_one_has() -> None:
    assert list(table.FULL) == list(table.QUICK)


def test_a_row_says_by_how_much_a_goal_is_missed() -> None:
    assert Figure("a", [1.0, 1.5, 2.0], at_most=1.5).row().split()[-1] == "met"
    assert Figure("a", [1.0, 1.8, 2.0], at_most=1.5).verdict == "missed by 20.0%"
    assert " ".join(Figure("a", [0.9], "s", at_least=1.0).row().split()) == "a >= 1.000 s 0.900 s missed by 10.0%"
    assert Figure("a", [1.0]).verdict == ""


def test_a_quantile_lies_between_measurements() -> None:
    values = [float(each) for each in range(1, 102)]
    assert Figure("a", values).value == 51
    assert Figure("a", values, quantile=0.95).value == pytest.approx(96)
