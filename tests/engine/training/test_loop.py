"""What raises leaves everything as before it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autograd_tui.core.errors import Refused
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.training.scenario import Parts, Scenario
from models_hard_to_repeat import Gated, gated, mixed, tripwire, wilful, words
from plain_loop import Batch, Build, copied, differing, mse
from session_internals import as_scenario, tensors


@pytest.mark.parametrize(
    ("build", "optimizer", "before", "raises"),
    [
        (gated, "sgd,lr=0.1", "fbsz*2 gate=4", "f"),  # buffers and random numbers
        (gated, "adam,lr=0.1", "fbs fb gate=4", "f"),
        (wilful, "sgd,lr=0.1", "fbsz w=4", "f"),  # buffers replaced by others
        (wilful, "sgd,lr=0.1", "w=4", "f"),
        (tripwire, "sgd,lr=0.1", "w=4 f", "b"),  # gradients that were None
        (tripwire, "sgd,lr=0.1", "fb w=4 f", "b"),  # gradients added to
        (words, "adam,lr=0.1", "fb", "s"),  # the state of one parameter made, not of the other
        (words, "sgd,lr=0.1", "fbs lr=1e39 fb", "s"),
        (mixed, "sgd,lr=0.1", "fbsz fb lr=1e39", "s"),  # one parameter moved, the other not
        (mixed, "adam,lr=0.1", "fbsz fb lr=1e39", "s"),
    ],
)
def test_a_phase_that_raises_leaves_every_tensor_as_it_was(
    build: Build, optimizer: str, before: str, raises: str
) -> None:
    session = open_session(as_scenario(build), optimizer=optimizer)
    list(session.run_all(before))
    expected = copied(tensors(session))
    assert session.run(raises).error is not None
    assert differing(tensors(session), expected) == []


def test_sparse_gradients_are_put_back_when_backward_raises() -> None:
    session = open_session(as_scenario(words))
    list(session.run_all("fb"))
    expected = copied(tensors(session))
    assert session.run("B").error is not None
    assert differing(tensors(session), expected) == []


def test_the_old_graph_outlives_a_forward_that_raises() -> None:
    session, straight = open_session(as_scenario(gated)), open_session(as_scenario(gated))
    list(session.run_all("f gate=4 f b"))
    list(straight.run_all("f gate=4 b"))
    assert session.frame.error is None
    assert differing(tensors(session), tensors(straight)) == []


def test_a_buffer_that_a_raising_forward_replaced_is_the_old_one_again() -> None:
    session = open_session(as_scenario(wilful))
    last = session._trainer.state.model.get_buffer("last")
    list(session.run_all("w=4 f"))
    assert session._trainer.state.model.get_buffer("last") is last


def test_the_same_batch_is_tried_again_after_a_forward_that_raised(capfd: pytest.CaptureFixture[str]) -> None:
    def build(seed: int) -> tuple[nn.Module, Batch]:
        model, batch = gated(seed)
        return model, lambda i: (print(i), batch(i))[1]

    list(open_session(as_scenario(build)).run_all("f gate=4 f gate=0 f f"))
    assert capfd.readouterr().out.split() == ["0", "1", "1", "2"]


def test_grad_mode_is_put_back_when_the_code_that_turned_it_off_raises() -> None:
    class Careless(Gated):
        def forward(self, x: Tensor) -> Tensor:
            if self.gate.item() > 3:
                torch.set_grad_enabled(False)
            return super().forward(x)

    def careless(seed: int) -> tuple[nn.Module, Batch]:
        return Careless(), gated(seed)[1]

    session = open_session(as_scenario(careless))
    list(session.run_all("gate=4 f gate=0"))
    assert session.run("f").graph == "alive"


def test_a_scheduler_that_raises_undoes_its_step() -> None:
    def build(seed: int) -> tuple[nn.Module, Batch]:
        x = torch.rand(3, 1)
        return nn.Linear(1, 1), lambda i: (x, x)

    vector = Scenario("vector", lambda options: Parts(**parts(build), loss=lambda prediction, target: prediction))
    session = open_session(vector, decay="plateau")
    list(session.run_all("f"))
    expected = copied(tensors(session))
    error = session.run("S").error
    assert error is not None
    assert error.type in ("RuntimeError", "ValueError")
    assert differing(tensors(session), expected) == []


@pytest.mark.parametrize("word", ["w=1e39", "b=-1e39"])
def test_a_value_too_large_for_the_dtype_is_refused(word: str) -> None:
    session = open_session("linear")
    with pytest.raises(Refused, match="does not fit in float32"):
        session.run(word)
    assert session.newest == 0


def test_gradients_that_build_left_behind_are_counted() -> None:
    def build(seed: int) -> tuple[nn.Module, Batch]:
        model, batch = mixed(seed)
        inputs, targets = batch(0)
        mse(model(inputs), targets).backward()
        return model, batch

    assert open_session(as_scenario(build)).frame.grads.backwards == (1, 1)


def parts(build: Build) -> dict[str, Any]:
    model, batch = build(0)
    return {"model": model, "batch": batch}
