from __future__ import annotations

import pytest

from autograd_tui.core.frame import Frame
from autograd_tui.text import numbers
from autograd_tui.text.table import gradient_status as grads
from random_screens import play


async def test_what_random_screens_of_the_line_say_is_true() -> None:
    report = await play("linear", 20, seed=3)
    total = report.total
    assert report.faults == []
    assert total.known_numbers > 0.97 * total.numbers > 300
    assert total.known_words > 0.95 * total.words > 30


@pytest.mark.parametrize(("scenario", "times", "seed"), [("lstm", 8, 4), ("transformer", 6, 2), ("resnet18", 3, 3)])
async def test_what_random_screens_of_networks_say_is_true(scenario: str, times: int, seed: int) -> None:
    report = await play(scenario, times, seed=seed)
    assert report.faults == []
    assert report.total.known_numbers > 0.85 * report.total.numbers > 60


async def test_a_wrong_sign_a_wrong_digit_and_a_wrong_age_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right, turned = grads.main_words, {"+": "-", "-": "+"}

    def wrong_sign(grad: grads.GradStats) -> str:  # type: ignore[name-defined]
        said = right(grad)
        return turned.get(said[0], said[0]) + said[1:]

    monkeypatch.setattr("autograd_tui.tui.panels.parameters.main_words", wrong_sign)
    monkeypatch.setattr("autograd_tui.tui.panels.loss.number", lambda value: numbers.number(value * 1.0001))
    monkeypatch.setattr(Frame, "loss_is_old", property(lambda frame: False))
    faults = "\n".join((await play("linear", 12, seed=1)).faults)
    assert 'ParametersPanel: "-1.3333" where it is 1.3333' in faults
    assert 'LossPanel: "3.6670" where it is 3.6666' in faults
    assert 'LossPanel: "fresh" where it is False' in faults
