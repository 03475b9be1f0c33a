"""Where no checkpoint fits, going back builds the scenario anew."""

from __future__ import annotations

import gc
import random
import weakref

import pytest
import torch
from torch import nn

from autograd_tui.core.errors import Refused
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.scenario import Scenario
from plain_loop import Batch, copied, differing, small_net, small_net_fresh
from session_internals import as_scenario, tensors

WORDS = "fbsz*6 lr=0.05 fb F b B s S f z B fbsz optimizer=adam fbs fb s z*2 4.bias[0]=2 fbsz*2 f f b"


def without_checkpoints(scenario: Scenario | str, **options: str | float) -> Session:
    session = open_session(scenario, memory=0, **options)  # type: ignore[arg-type]
    assert len(session._replayer.checkpoints) == 0
    return session


@pytest.mark.parametrize("build", [small_net, small_net_fresh])
@pytest.mark.parametrize("optimizer", ["sgd,momentum=0.9", "adam"])
def test_every_frame_is_made_again_from_nothing(build: object, optimizer: str) -> None:
    scenario = as_scenario(build)  # type: ignore[arg-type]
    straight, session = open_session(scenario, optimizer=optimizer), without_checkpoints(scenario, optimizer=optimizer)
    expected = [(straight.frame, copied(tensors(straight)))]
    expected += [(frame, copied(tensors(straight))) for frame in straight.run_all(WORDS)]
    for _ in session.run_all(WORDS):
        pass
    for index in [*range(len(expected) - 1, -1, -7), 20, 21, 3]:
        frame, held = expected[index]
        assert session.rewind(index).same(frame)
        assert differing(tensors(session), held) == []
    assert session.take_divergence() is None


def test_what_is_around_it_is_as_at_first() -> None:
    drawn: list[tuple[float, torch.dtype, float]] = []

    def build(seed: int) -> tuple[nn.Module, Batch]:
        drawn.append((random.random(), torch.get_default_dtype(), torch.rand(1).item()))
        x = torch.rand(3, 1)
        return nn.Linear(1, 1), lambda i: (x, x)

    session = without_checkpoints(as_scenario(build), seed=5)
    session.run("f")
    random.random()
    torch.rand(4)
    torch.set_default_dtype(torch.float64)
    try:
        session.rewind(0)
    finally:
        torch.set_default_dtype(torch.float32)
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.parametrize("refers_to_itself", [False, True])
def test_the_old_model_is_gone_before_the_new_one_is_built(refers_to_itself: bool, is_frozen: bool) -> None:
    alive: list[bool] = []
    last: list[weakref.ref[nn.Module]] = []

    def build(seed: int) -> tuple[nn.Module, Batch]:
        alive.extend(each() is not None for each in last)
        model, x = nn.Linear(1, 1), torch.rand(3, 1)
        last.append(weakref.ref(model))
        if refers_to_itself:
            object.__setattr__(model, "itself", model)
        return model, lambda i: (x, x)

    session = without_checkpoints(as_scenario(build), optimizer="adam")
    for _ in session.run_all("fbsz*2 fb"):
        pass
    if is_frozen:
        gc.freeze()
    frozen = gc.get_freeze_count()
    gc.disable()
    try:
        session.rewind(3)
    finally:
        gc.enable()
    assert alive == [False]
    assert gc.get_freeze_count() > frozen / 2  # and what stays is not looked through from now on


def test_a_scenario_that_cannot_be_built_again_is_said_loudly() -> None:
    built: list[int] = []

    def build(seed: int) -> tuple[nn.Module, Batch]:
        if built:
            raise OSError("the file is gone")
        built.append(seed)
        return nn.Linear(1, 1), lambda i: (torch.rand(3, 1), torch.rand(3, 1))

    session = without_checkpoints(as_scenario(build))
    session.run("f")
    with pytest.raises(RuntimeError, match=r"built once, but not again: .*the file is gone"):
        session.rewind(0)


def test_memory_that_is_no_size_is_refused() -> None:
    with pytest.raises(Refused, match="--memory must be a size"):
        open_session("linear", memory="much")
