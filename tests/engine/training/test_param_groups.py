"""Parameter groups: torch's own form, each with a learning rate and options of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autograd_tui.core.errors import Refused
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.scenario import Parts, Scenario
from session_internals import open_with_many_checkpoints, state_of

Form = Callable[[nn.Sequential], Sequence[Any]]


def net() -> tuple[nn.Sequential, Tensor, Tensor]:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), torch.rand(5, 3), torch.rand(5, 1)


def two(model: nn.Sequential) -> Sequence[Any]:
    return [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.1, "momentum": 0.9}]


def grouped(form: Form = two) -> Scenario:
    def build(options: Any) -> Parts:
        model, x, y = net()
        loss = nn.functional.mse_loss
        return Parts(model=model, batch=lambda i: (x, y), loss=loss, optimizer="sgd,lr=0.01", groups=form(model))

    return Scenario("grouped", build)


def plain(iterations: int, form: Form = two) -> list[Tensor]:
    torch.manual_seed(0)
    model, x, y = net()
    optimizer = torch.optim.SGD(form(model), lr=0.01)
    for _ in range(iterations):
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    return [*model.parameters(), *(param.grad for param in model.parameters() if param.grad is not None)]


def held(session: Session) -> list[Tensor]:
    params = state_of(session).params.values()
    return [*params, *(param.grad for param in params if param.grad is not None)]


def same(some: list[Tensor], others: list[Tensor]) -> bool:
    return len(some) == len(others) and all(map(torch.equal, some, others))


def head_alone(model: nn.Sequential) -> Sequence[Any]:
    return [{"params": model[2].parameters()}]


@pytest.mark.parametrize("form", [two, head_alone])
def test_a_stepped_run_equals_the_plain_script(form: Form) -> None:
    session = open_session(grouped(form))
    list(session.run_all("fbsz*6"))
    assert same(held(session), plain(6, form))


@pytest.mark.parametrize("form", [two, head_alone])
def test_a_run_that_was_rewound_equals_the_plain_script(form: Form) -> None:
    session = open_with_many_checkpoints(grouped(form))
    list(session.run_all("fbsz*6 lr[0]=3 optimizer=adam fbsz @10 sz fbsz*3"))
    assert same(held(session), plain(6, form))


@pytest.mark.parametrize("form", [two, head_alone])
def test_a_free_run_equals_the_plain_script(form: Form) -> None:
    session = open_session(grouped(form))
    list(session.run_free(session.end_of(12), lambda: False, every=0))
    assert same(held(session), plain(12, form))


def test_a_free_run_counts_the_gradients_that_add_up_as_steps_do() -> None:
    free, stepped = open_session(grouped(head_alone)), open_session(grouped(head_alone))
    list(free.run_free(free.end_of(12), lambda: False, every=0))
    list(stepped.run_all("fbsz*12"))
    assert free.frame.grads.backwards == stepped.frame.grads.backwards == (12, 12, 0, 0)


def test_what_the_optimizer_does_not_hold_is_nobodys_turn() -> None:
    session = open_session(grouped(head_alone))
    list(session.run_all("fbsz"))
    assert str(session.next_command()) == "f"


def test_parameters_may_be_given_by_name_or_as_pairs() -> None:
    names = open_session(grouped(lambda model: [{"params": ["0.weight", "0.bias"]}, *two(model)[1:]]))
    pairs = open_session(grouped(lambda model: [{"params": model[0].named_parameters("0")}, *two(model)[1:]]))
    assert names.frame.groups == pairs.frame.groups == open_session(grouped()).frame.groups


RATES = [
    ("f", (0.01, 0.1)),
    ("lr=0.5", (0.5, 0.5)),
    ("lr[1]=0.5", (0.01, 0.5)),
    ("optimizer=adam", (0.01, 0.1)),
    ("optimizer=adam,lr=0.3", (0.3, 0.3)),
]


@pytest.mark.parametrize(("command", "rates"), RATES)
def test_the_frame_says_each_learning_rate(command: str, rates: tuple[float, ...]) -> None:
    frame = open_session(grouped()).run(command)
    assert frame.learning_rates == rates
    assert frame.plain()["learning_rates"] == list(rates)


def test_the_learning_rate_of_one_group_returns_with_its_frame() -> None:
    session = open_with_many_checkpoints(grouped())
    list(session.run_all("fbsz lr[1]=0.5 fbsz lr=1 fbsz"))
    assert session.run("@6").learning_rates == (0.01, 0.5)


def test_a_command_line_repeats_the_learning_rate_of_one_group() -> None:
    session = open_session(grouped())
    session.run("lr[1]=0.50")
    assert session.commands() == "lr[1]=0.5"


def test_the_plot_marks_a_change_in_any_group() -> None:
    session = open_session(grouped())
    list(session.run_all("fbsz lr[1]=0.5 fbsz"))
    assert [point.index for point in session.history.learning_rate.points()] == [0, 5]


def an_empty_one(model: nn.Sequential) -> Sequence[Any]:
    return [{"params": model.parameters()}, {"params": [], "lr": 0.5}]


def test_a_group_may_be_empty() -> None:
    session = open_session(grouped(an_empty_one))
    list(session.run_all("fbsz*3"))
    assert same(held(session), plain(3, an_empty_one))
    assert session.frame.learning_rates == (0.01, 0.5)


def test_a_group_that_is_not_there_is_refused() -> None:
    with pytest.raises(Refused, match="there is no parameter group 2: there are 2, counted from 0"):
        open_session(grouped()).run("lr[2]=0.5")


BAD: list[tuple[Any, str]] = [
    (lambda model: [*two(model), {"params": [model[0].bias]}], "group 2 holds 0.bias a second time"),
    (lambda model: [{"params": [model[0].bias, model[0].bias]}], "group 0 holds .* a second time"),
    (lambda model: [{"params": torch.rand(7)}], r"group 0 holds a tensor of shape \(7,\) that is not the model's"),
    (lambda model: [{"params": []}], "the parameter groups are empty: there is nothing to train."),
    (lambda model: [{"params": ["nobody"]}], "group 0 takes parameters of the model, or their names, not 'nobody'"),
    (lambda model: [{"params": 3}], 'as "params" of a group'),
    (lambda model: [{"lr": 0.1}], "groups= as torch does"),
    (lambda model: model.parameters(), "groups= as torch does"),
    (lambda model: [{"params": model.parameters(), "lr": -1}], "group 0: a learning rate must be a number from 0 up"),
    (lambda model: [{"params": model.parameters(), "lr": "fast"}], "must be a number from 0 up, not fast"),
    (lambda model: [{"params": model.parameters(), "weigth_decay": 1}], "weigth_decay, an option that no optimizer"),
]


@pytest.mark.parametrize(("form", "said"), BAD)
def test_groups_that_cannot_be_are_refused_in_one_sentence(form: Form, said: str) -> None:
    with pytest.raises(Refused, match=said):
        open_session(grouped(form))
