"""Frozen parameters: as the scenario makes them, and by command."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from autograd_tui.core.command import parse_one
from autograd_tui.core.errors import Refused, UnknownCommand
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from plain_loop import line, mse
from session_internals import as_scenario, open_with_many_checkpoints, state_of


def plain() -> list[Tensor]:
    """Train the line, w frozen in the middle."""
    model, batch = line(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for i in range(6):
        dict(model.named_parameters())["w"].requires_grad = not 2 <= i < 4
        inputs, targets = batch(i)
        mse(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    return list(model.parameters())


COMMANDS = "fbsz*2 w.requires_grad=False fbsz*2 w.requires_grad=True fbsz*2"


def equal(session: Session) -> bool:
    return all(map(torch.equal, state_of(session).params.values(), plain()))


def test_freezing_by_command_equals_the_plain_script() -> None:
    session = open_session("linear", momentum=0.9)
    list(session.run_all(COMMANDS))
    assert equal(session)


@pytest.mark.parametrize("index", range(27))
def test_freezing_is_rewound_exactly(index: int) -> None:
    session = open_with_many_checkpoints("linear", momentum=0.9)
    frames = [session.frame, *session.run_all(COMMANDS)]
    assert session.run(f"@{index}").same(frames[index])
    session.run(f"@{session.newest}")
    assert equal(session)


@pytest.mark.parametrize("typed", ["w.requires_grad=False", "w.requires_grad=false"])
def test_both_spellings_mean_the_same(typed: str) -> None:
    assert str(parse_one(typed)) == "w.requires_grad=False"


def test_requires_grad_is_true_or_false() -> None:
    with pytest.raises(UnknownCommand, match="needs True or False"):
        parse_one("w.requires_grad=0")


def test_what_is_not_there_cannot_be_frozen() -> None:
    with pytest.raises(Refused, match='no parameter "v": this model has w, b'):
        open_session("linear").run("v.requires_grad=False")


def test_a_module_is_frozen_with_all_that_it_holds() -> None:
    frame = open_session("resnet18", image_size=32, batch_size=2).run("layer1.requires_grad=False")
    names = [frame.params.layout.names[place] for place in frame.frozen]
    assert len(names) == 12
    assert all(name.startswith("layer1.") for name in names)


def test_json_names_what_is_frozen() -> None:
    assert open_session("linear").run("w.requires_grad=False").plain()["frozen"] == ["w"]


def test_a_frozen_parameter_gets_no_gradient_and_does_not_move() -> None:
    session = open_session("linear")
    *_, frame = session.run_all("w.requires_grad=False fbs")
    assert (frame.grads[0], frame.params[0].values) == (None, (2.0,))


def test_freezing_after_forward_leaves_the_graph_alive() -> None:
    session = open_session("linear")
    *_, frame = session.run_all("f w.requires_grad=False")
    assert frame.graph == "alive"


def test_with_all_frozen_backward_is_refused() -> None:
    session = open_session("linear")
    list(session.run_all("requires_grad=False f"))
    with pytest.raises(Refused, match="no graph to go back through"):
        session.run("b")


def test_with_all_frozen_a_forced_backward_raises_in_pytorchs_words() -> None:
    *_, frame = open_session("linear").run_all("requires_grad=False f B")
    assert frame.error is not None
    assert "does not require grad" in frame.error.message


def test_what_is_frozen_is_not_called_unused_by_the_loss() -> None:
    *_, frame = open_session("linear").run_all("w.requires_grad=False fb")
    assert not frame.unused


def test_what_was_frozen_in_forward_is_not_called_unused_by_the_loss() -> None:
    *_, frame = open_session("linear").run_all("w.requires_grad=False f w.requires_grad=True b")
    assert not frame.unused


def test_a_frozen_scenario_stays_equal_to_the_plain_loop_while_running_freely() -> None:
    session = open_session(as_scenario(line), lr=0.1)
    session.run("w.requires_grad=False")
    list(session.run_free(session.end_of(9), lambda: False, every=0))
    assert state_of(session).params["w"].item() == 2
