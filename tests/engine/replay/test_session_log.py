"""The log of a session holds the commands of the present branch, with what they raised."""

from __future__ import annotations

from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from expected_journal import spelled


def after(words: str) -> Session:
    session = open_session("linear")
    list(session.run_all(words))
    return session


def test_it_holds_commands_in_order_with_what_they_raised() -> None:
    assert spelled(after("fbBsz lr=0.5 f").log()) == ["f", "b", "B RuntimeError", "s", "z", "lr=0.5", "f"]


def test_iterations_that_repeat_are_one_block() -> None:
    log = after("fbsz*100").log()
    assert (len(list(log.blocks())), len(log)) == (2, 400)  # the last one is still open


def test_an_error_in_one_of_many_iterations_belongs_to_that_one() -> None:
    log = after("fbB*3").log()
    assert spelled(log) == ["f", "b", "B RuntimeError"] * 3
    assert [times for _, times in log.blocks()] == [1, 1, 1]
    assert str(log) == "fbB*3"


def test_what_was_rewound_over_is_not_in_it() -> None:
    session = after("fbBszfb")
    session.rewind(2)
    assert spelled(session.log()) == ["f", "b"]
    session.run("s")
    assert spelled(session.log()) == ["f", "b", "s"]


def test_the_session_knows_what_opened_it() -> None:
    config = open_session("linear", seed=3, lr=0.5, batch_size=4).about.config
    assert (config.scenario, dict(config.arguments), dict(config.own)) == (
        "linear",
        {"seed": 3, "lr": 0.5},
        {"batch_size": 4},
    )
    assert config.versions.keys() == {"autograd-tui", "python", "torch", "torchvision"}
