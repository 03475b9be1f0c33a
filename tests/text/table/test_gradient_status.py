from __future__ import annotations

from dataclasses import replace

import pytest

from autograd_tui import open_session
from autograd_tui.text.table.gradient_status import (
    full_status,
    gradient_status,
    gradient_statuses,
    gradient_summary,
    status_counts,
)
from handmade_scripts import gan
from nested_models import open_nested


@pytest.mark.parametrize(
    ("commands", "word", "sentence"),
    [
        ("fb", "fresh", "fresh"),
        ("fbs", "used", "used by step, not cleared"),
        ("fbsf", "used", "used by step, not cleared"),
        ("fbfb", "sum of 2", "sum of 2 backwards"),
        ("fbfbs", "sum of 2, used", "sum of 2 backwards, used"),
        ("fb w=3", "before the move", "fresh, but from before w=3"),
        ("fbfb w=3", "sum of 2", "sum of 2 backwards, but from before w=3"),
        ("fbf", "unused", "unused, from before this forward"),
        ("fb w=3 f", "unused", "unused, from before this forward"),
    ],
)
def test_a_gradient_says_what_has_become_of_it(commands: str, word: str, sentence: str) -> None:
    frame = list(open_session("linear").run_all(commands))[-1]
    grad = frame.grads[0]
    assert gradient_status(frame, 0) == word
    assert full_status(frame, grad, 0) == sentence


def test_cleared_gradients_are_counted_as_none() -> None:
    frame = list(open_session("linear").run_all("fbsz"))[-1]
    assert status_counts(frame) == "None"


def test_gradients_of_several_ages_are_counted() -> None:
    frame = list(open_nested(unused=["gate", "stem.weight"]).run_all("fb"))[-1]
    assert status_counts(frame) == "2 unused by loss, 18 fresh"
    assert status_counts(frame, [0, 1]) == "unused by loss"
    assert gradient_summary(frame) == ["2 unused by loss, 18 fresh", "all finite"]


def test_gradients_that_are_not_finite_are_counted() -> None:
    frame = list(open_session("linear").run_all("w=nan f b"))[-1]
    assert gradient_summary(frame) == ["fresh", "2 hold NaN or infinity"]


def test_what_was_cleared_is_remembered_for_all() -> None:
    frame = list(open_nested().run_all("fbsz"))[-1]
    assert gradient_summary(frame) == ["None", f"|grad| was {frame.last_grads and frame.last_grads.norm():.4f}"]


def test_all_ages_are_those_of_each() -> None:
    *_, frame = open_session("linear").run_all("fb w.requires_grad=False fb")
    assert gradient_statuses(frame) == [gradient_status(frame, place) for place in range(2)] == ["unused", "sum of 2"]


def test_a_gradient_that_was_there_before_a_script_was_seen_is_not_called_fresh() -> None:
    behind_backward = gan()[3]
    first = replace(behind_backward, index=0, iteration=0, command=None)
    assert gradient_status(behind_backward, 0) == "fresh"
    assert gradient_status(first, 0) == "from before"
    assert gradient_statuses(first)[0] == "from before"
    assert first.grads[0] is not None
    assert full_status(first, first.grads[0], 0) == "there before the first backward that was seen"
