"""Whose turn it is, and what a small letter out of turn is told."""

from __future__ import annotations

import pytest
from torch import Tensor, nn

from autograd_tui.core.command import Phase
from autograd_tui.core.errors import Refused
from autograd_tui.core.phase_order import Goal, next_phase
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.training.scenario import Options, Parts, scenario
from handmade_scripts import by_hand, gan
from plain_loop import copied, differing
from session_internals import tensors

REFUSALS = [
    ("", "b", "backward needs a loss, and there is none yet: run forward first (B tries it all the same)."),
    (
        "F B",
        "b",
        "this graph has been used and freed, so a second backward would raise (B shows it): run forward first.",
    ),
    (
        "fbsz",
        "b",
        "this graph has been used and freed, so a second backward would raise (B shows it): run forward first.",
    ),
    ("", "s", "step has no gradient to use, so nothing would move (S shows it): run backward first."),
    ("f", "s", "step has no gradient to use, so nothing would move (S shows it): run backward first."),
    ("fbz", "s", "step has no gradient to use, so nothing would move (S shows it): run backward first."),
    (
        "fbs",
        "s",
        "a step has used these gradients, so another would move twice on them (S shows it): zero_grad is next.",
    ),
]


@pytest.mark.parametrize(("before", "command", "sentence"), REFUSALS)
def test_a_refusal_says_what_would_follow_and_what_to_do(before: str, command: str, sentence: str) -> None:
    session = open_session("linear")
    list(session.run_all(before))
    with pytest.raises(Refused) as refused:
        session.run(command)
    assert str(refused.value) == sentence


@pytest.mark.parametrize(("before", "command", "sentence"), REFUSALS)
def test_a_refused_command_makes_no_frame_and_changes_nothing(before: str, command: str, sentence: str) -> None:
    session = open_session("linear", momentum=0.9)
    list(session.run_all(before))
    frame, newest, expected = session.frame, session.newest, copied(tensors(session))
    with pytest.raises(Refused):
        session.run(command)
    assert (session.frame, session.newest) == (frame, newest)
    assert differing(tensors(session), expected) == []


@pytest.mark.parametrize(("before", "command", "_"), REFUSALS)
def test_a_capital_runs_what_a_small_letter_may_not(before: str, command: str, _: str) -> None:
    session = open_session("linear")
    list(session.run_all(before))
    assert session.run(command.upper()).index == session.newest == len(before.replace(" ", "")) + 1


@pytest.mark.parametrize("before", ["", "f", "fb", "fbs", "fbsz", "FB B", "fb f"])
def test_forward_and_zero_grad_may_always_run(before: str) -> None:
    session = open_session("linear")
    list(session.run_all(f"{before} fz"))


@pytest.mark.parametrize(
    ("before", "next_one"),
    [
        ("", "f"),
        ("f", "b"),
        ("f f", "b"),
        ("f b", "s"),
        ("f b s", "z"),
        ("f b s z", "f"),
        ("f b s f", "b"),
        ("f b s f b", "s"),
        ("f B B", "s"),
        ("S", "f"),
        ("z", "f"),
        ("f b z", "f"),
    ],
)
def test_the_next_phase_goes_on_from_here(before: str, next_one: str) -> None:
    session = open_session("linear")
    list(session.run_all(before))
    assert next_phase(session.frame).letter == next_one


def detached(prediction: Tensor, target: Tensor) -> Tensor:
    return nn.functional.mse_loss(prediction, target).detach()


@scenario("detached")
def without_graph(options: Options) -> Parts:
    from torch import rand

    x = rand(4, 1)
    return Parts(model=nn.Linear(1, 1), batch=lambda i: (x, x), loss=detached)


@pytest.mark.parametrize("before", ["f", "f B"])
def test_backward_through_a_loss_without_graph_is_refused_with_the_reason(before: str) -> None:
    session = open_session(without_graph)
    list(session.run_all(before))
    with pytest.raises(Refused, match="has no graph to go back through"):
        session.run("b")


def test_an_iteration_of_a_script_is_over_where_its_session_says_so() -> None:
    in_the_middle = gan()[7]
    assert in_the_middle.phase is Phase.ZERO_GRAD
    assert not Goal(1).reached_by(in_the_middle)
    by_no_optimizer = by_hand()[3]
    assert not Goal(2).is_out_of_reach(by_no_optimizer)
    assert Goal(below=1.0).reached_by(gan()[8])
    assert not Goal(below=0.5).reached_by(gan()[8])
