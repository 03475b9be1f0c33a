"""Which checkpoints are kept."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
import torch

from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.replay.checkpoints import MAX_USUAL_SPACING, MIN_SPACING, CheckpointStore
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.checkpoint import BARE_CHECKPOINT, Checkpoint
from session_internals import open_with_many_checkpoints, state_of

SMALL = 12 * (BARE_CHECKPOINT + 8)  # bytes; the line's two parameters take 8


def kept(session: Session) -> list[int]:
    return [each.frame.index for each in session._replayer.checkpoints._checkpoints]


def run(session: Session, commands: str) -> None:
    for _ in session.run_all(commands):
        pass


def test_a_quick_run_takes_no_checkpoint_after_the_first() -> None:
    session = open_session("linear")
    run(session, "fbsz*20")
    was_quick = session._replayer.checkpoints._seconds < MIN_SPACING  # as on any machine that is not overloaded
    assert kept(session)[1:] == [] or not was_quick


def test_a_checkpoint_is_taken_before_a_forward_once_it_is_due() -> None:
    session = open_with_many_checkpoints("linear")
    run(session, "fbsz*3")
    assert kept(session) == [0, 4, 8]


def test_no_checkpoint_is_kept_of_a_forward_that_raises() -> None:
    session = open_with_many_checkpoints("linear")
    run(session, "fbsz")
    session._trainer.state.parts.model.forward = None  # type: ignore[assignment]
    assert session.run("f").error is not None
    assert kept(session) == [0]


def test_the_budget_is_kept_and_the_first_and_the_newest_stay() -> None:
    session = open_with_many_checkpoints("linear", budget=SMALL)
    run(session, "fbsz*200")
    places = kept(session)
    assert sum(each.bytes for each in session._replayer.checkpoints._checkpoints) <= SMALL
    assert (places[0], places[-1]) == (0, 796)


def test_checkpoints_of_a_long_run_lie_further_apart_and_at_most_twice_as_far_as_even_ones() -> None:
    session = open_with_many_checkpoints("linear", budget=SMALL)
    line = session._replayer.checkpoints
    for _ in range(150):
        run(session, "fbsz")
        line.spend(4.0, frames=0)  # as if a frame took a second
    gaps = [after - before for before, after in pairwise([*kept(session), session.newest])]
    assert len(gaps) == 12
    assert 50 < max(gaps) <= 2 * 600 / 12


def test_a_checkpoint_is_due_when_it_lies_as_far_from_the_last_as_those_that_stay() -> None:
    session = open_with_many_checkpoints("linear", budget=SMALL)
    run(session, "fbsz*20")
    session._replayer.checkpoints.spend(3600.0, frames=0)
    run(session, "f")  # from here on a frame takes some seconds
    assert not session._replayer.checkpoints.is_due(2.0)
    assert session._replayer.checkpoints.is_due(3.0)


def test_there_are_never_more_than_so_many() -> None:
    session = open_with_many_checkpoints("linear", max_count=50)
    run(session, "fbsz*200")
    places = kept(session)
    assert (len(places), places[0], places[-1]) == (50, 0, 796)


@pytest.mark.parametrize("fit", range(5))
def test_as_many_are_kept_as_fit(fit: int) -> None:
    session = open_with_many_checkpoints("linear", budget=fit * (BARE_CHECKPOINT + 8))
    run(session, "fbsz*50")
    assert len(kept(session)) == fit


def test_no_more_than_the_budget_is_ever_held() -> None:
    session = open_with_many_checkpoints("linear", budget=SMALL)
    line, held = session._replayer.checkpoints, []
    take = session._trainer.checkpoint

    def watched(recycled: Checkpoint | None, **_: bool) -> Checkpoint:
        held.append(line.bytes + (recycled.bytes if recycled else BARE_CHECKPOINT + 8))
        return take(recycled)

    session._trainer.checkpoint = watched  # type: ignore[method-assign, assignment]
    run(session, "fbsz*60 @100 fbsz*20")
    assert SMALL - BARE_CHECKPOINT < max(held) <= SMALL


def test_a_rerun_takes_checkpoints_on_the_way() -> None:
    session = open_with_many_checkpoints("linear", budget=SMALL)
    run(session, "fbsz*10")
    session._replayer.checkpoints._checkpoints = session._replayer.checkpoints._checkpoints[:1]
    session.rewind(30)
    assert kept(session) == [0, 8, 16, 20, 24, 28]  # iterations without frames, one with them, in turn


@pytest.mark.parametrize(("index", "place"), [(0, 0), (1, 0), (4, 0), (5, 4), (8, 4), (9, 8), (12, 8)])
def test_a_frame_is_made_again_from_the_checkpoint_before_its_forward(index: int, place: int) -> None:
    session = open_with_many_checkpoints("linear")
    run(session, "fbsz*3")
    assert session._replayer.checkpoints.before(index).frame.index == place  # type: ignore[union-attr]


def test_going_on_from_an_old_frame_drops_the_checkpoints_from_there_on() -> None:
    session = open_with_many_checkpoints("linear")
    run(session, "fbsz*3 @4 z")
    assert kept(session) == [0]


def test_checkpoints_cost_at_most_their_share() -> None:
    session = open_session("linear")
    line = CheckpointStore(session._trainer, spacing=0, share=0.5)
    run(session, "fbsz")
    line._cost = 2.0
    line.spend(3.9)
    assert line.take_if_due() is None
    line.spend(0.1)
    assert line.take_if_due() is not None


def test_checkpoints_cost_far_less_where_going_back_is_quick_all_the_same() -> None:
    session = open_session("linear")
    line = CheckpointStore(session._trainer, spacing=0, share=0.5)
    run(session, "fbsz")
    for cost, spacing in ((0.125, 1.0), (0.5, MAX_USUAL_SPACING)):
        line._cost, line._since = cost, 0.0
        line.spend(0.99 * spacing)
        assert not line.is_due()
        line.spend(0.02 * spacing)
        assert line.is_due()


def test_checkpoints_share_random_states_that_nobody_has_used() -> None:
    session = open_with_many_checkpoints("linear")
    run(session, "fbsz*5")
    assert len({id(each.mark.host_rng) for each in session._replayer.checkpoints._checkpoints}) == 1
    with state_of(session).global_state:
        random.random()
    run(session, "fbsz")
    with state_of(session).global_state:
        np.random.rand()
    run(session, "fbsz")
    assert len({id(each.mark.host_rng) for each in session._replayer.checkpoints._checkpoints}) == 3


def test_checkpoints_share_pytorchs_random_state_until_a_number_is_drawn() -> None:
    session = open_with_many_checkpoints("linear")
    run(session, "fbsz*5")
    with state_of(session).global_state:
        torch.rand(1)
    run(session, "fbsz*5")
    assert len({id(each.mark.torch) for each in session._replayer.checkpoints._checkpoints}) == 2
