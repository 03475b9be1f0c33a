"""Random walks over resnet18 against the straight run. --examples 20 asks for as many of them."""

from __future__ import annotations

import random

import pytest

import suite_options
from autograd_tui.core.frame import Frame
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from plain_loop import copied, differing
from session_internals import open_with_many_checkpoints, tensors

WALKS = suite_options.EXAMPLES or 1
ROOM = 300 << 20  # bytes: for two or three checkpoints
WORDS = ["FBSZ", "FBSZ", "FFF", "FSFS", "FB", "B", "S", "Z", "lr=0.01", "optimizer=adam", "optimizer=sgd,momentum=0.9"]


def walk(session: Session, draw: random.Random, steps: int) -> list[Frame]:
    """Run, go back and take branches at random; give the frames of the branch arrived at."""
    for _ in range(steps):
        kind = draw.random()
        if kind < 0.6:
            for _ in session.run_all(draw.choice(WORDS)):
                pass
        elif kind < 0.9:
            session.rewind(draw.randrange(session.newest + 1))
        elif session.branches:
            session.run(f"branch={draw.choice(session.branches).number}")
    return [session.look(index) for index in range(session.frame.index + 1)]


@pytest.mark.parametrize("seed", range(WALKS))
@pytest.mark.parametrize("optimizer", ["sgd,lr=0.01,momentum=0.9", "adam,lr=0.001"])
def test_a_walk_ends_where_the_straight_run_does(optimizer: str, seed: int) -> None:
    session = open_with_many_checkpoints("resnet18", budget=ROOM, frames=200_000, optimizer=optimizer, image_size=32)
    frames = walk(session, random.Random(seed), 12 if WALKS == 1 else 40)
    held = copied(tensors(session))
    straight = open_session("resnet18", optimizer=optimizer, image_size=32, memory=0)
    expected = [straight.frame, *straight.run_all(session.commands())]
    assert len(expected) == len(frames)
    assert all(one.same(other) for one, other in zip(expected, frames, strict=True))
    assert differing(tensors(straight), held) == []
    assert session.take_divergence() is None
