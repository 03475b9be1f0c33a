"""A recording tells the present branch again, with what was raised."""

from __future__ import annotations

from autograd_tui.engine.open import open_session
from autograd_tui.engine.session import Session


def told(session: Session) -> list[str]:
    return [f"{step.command} {step.raised}" if step.raised else str(step.command) for step in session.recording()]


def test_it_tells_commands_in_order_with_what_they_raised() -> None:
    session = open_session("linear")
    list(session.run_all("fbBsz lr=0.5 f"))
    assert told(session) == ["f", "b", "B RuntimeError", "s", "z", "lr=0.5", "f"]


def test_iterations_that_repeat_stand_in_one_stretch() -> None:
    session = open_session("linear")
    list(session.run_all("fbsz*100"))
    recording = session.recording()
    assert (len(recording.stretches), len(recording)) == (2, 400)  # the last one is still open


def test_an_error_in_one_of_many_iterations_belongs_to_that_one() -> None:
    session = open_session("linear")
    list(session.run_all("fbB*3"))
    assert told(session) == ["f", "b", "B RuntimeError"] * 3


def test_what_was_rewound_over_is_not_told() -> None:
    session = open_session("linear")
    list(session.run_all("fbBszfb"))
    session.rewind(2)
    assert told(session) == ["f", "b"]
    session.run("s")
    assert told(session) == ["f", "b", "s"]


def test_it_says_what_opened_the_session() -> None:
    opening = open_session("linear", seed=3, lr=0.5, batch_size=4).recording().opening
    assert (opening.scenario, dict(opening.arguments), dict(opening.own)) == (
        "linear",
        {"seed": 3, "lr": 0.5},
        {"batch_size": 4},
    )
    assert opening.versions.keys() == {"autograd-tui", "python", "torch", "torchvision"}
