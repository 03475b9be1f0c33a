from __future__ import annotations

import pytest
import torch
from reach import loop_of

from autograd_tui import Parts, Session, open_session
from autograd_tui.engine.training.scenario import Scenario


def params(session: Session) -> dict[str, torch.Tensor]:
    return {name: param.detach().clone() for name, param in loop_of(session).params.items()}


def test_moves_of_small_parameters_are_exact() -> None:
    session = open_session()
    *_, frame = session.run_all("fbs")
    assert frame.moves is not None
    assert list(frame.moves) == pytest.approx([0.1333333, 0.2], rel=1e-5)


def test_moves_of_large_parameters_are_estimated_from_their_sample() -> None:
    session = open_session("resnet18")
    list(session.run_all("fb"))
    before = params(session)
    frame = session.run("s")
    assert frame.moves is not None
    after = params(session)
    for moved, name in zip(frame.moves, before, strict=True):
        exact = (after[name] - before[name]).norm().item()
        assert moved == pytest.approx(exact, rel=0.5 if after[name].numel() > 1024 else 1e-5)


def test_moves_after_going_back_are_those_of_the_first_time() -> None:
    session = open_session("resnet18")
    *_, first = session.run_all("fbsz fbs")
    session.rewind(2)
    again = session.rewind(7)
    assert again.moves == first.moves


def test_a_setting_is_a_move() -> None:
    session = open_session()
    frame = session.run("w=5")
    assert frame.moves is not None
    assert list(frame.moves) == [3.0, 0.0]


def test_the_five_largest_outputs_come_with_their_targets() -> None:
    session = open_session("resnet18")
    frame = session.run("f")
    loop = loop_of(session)
    assert loop.prediction is not None
    values, classes = loop.prediction[0].topk(5)
    targets = loop.batch[1][0][classes]
    assert frame.top == tuple(zip(classes.tolist(), values.tolist(), targets.tolist(), strict=True))


def test_batches_of_ever_new_shapes_do_not_disturb_the_moves() -> None:
    model = torch.nn.Linear(1, 1)
    batches = [(torch.rand(size, 1), torch.rand(size, 1)) for size in range(1, 80)]
    parts = Parts(model=model, batch=lambda i: batches[i], loss=torch.nn.functional.mse_loss)
    session = open_session(Scenario("growing", lambda options: parts))
    frames = list(session.run_all("fbsz*79"))
    assert all(frame.moves is not None and len(frame.moves) == 2 for frame in frames if str(frame.command) == "s")
