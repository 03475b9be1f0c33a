"""What was rewound over is kept, and can be returned to."""

from __future__ import annotations

from itertools import product
from unittest.mock import patch

import pytest

from autograd_tui.core.errors import Refused
from autograd_tui.core.frame_store import MAX_BRANCHES
from autograd_tui.core.phase_order import Goal
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.replay.checkpoints import CheckpointStore
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.trainer import Trainer
from models_hard_to_repeat import gated, words
from plain_loop import copied, differing, small_net
from session_internals import as_scenario, open_with_many_checkpoints, tensors
from suite_options import LONG


def run(session: Session, commands: str) -> None:
    for _ in session.run_all(commands):
        pass


def listed(session: Session) -> list[tuple[int, int, int]]:
    return [(branch.number, branch.fork, len(branch)) for branch in session.branches]


def test_a_command_given_after_going_back_leaves_a_branch() -> None:
    session = open_session("linear")
    run(session, "fbsz f @2")
    assert listed(session) == []
    session.run("lr=0.5")
    assert listed(session) == [(1, 2, 5)]
    assert session.branches[0].loss == pytest.approx(3.318520)


def test_branches_are_numbered_in_the_order_in_which_they_were_left() -> None:
    session = open_session("linear")
    run(session, "fbsz @3 z @1 b s @0 lr=1")
    assert listed(session) == [(1, 3, 4), (2, 1, 4), (3, 0, 3)]


def test_the_branch_left_for_another_becomes_a_branch() -> None:
    session = open_session("linear")
    run(session, "fbsz f @2 lr=0.5 s branch=1")
    assert session.commands() == "fbsz f"
    assert listed(session) == [(2, 2, 4)]
    run(session, "branch=2")
    assert session.commands() == "fb lr=0.5 s"
    assert listed(session) == [(3, 2, 5)]


def test_a_branch_that_this_run_only_goes_on_from_leaves_this_run() -> None:
    session = open_session("linear")
    run(session, "fb undo b s branch=1")
    assert (session.commands(), session.newest) == ("fb", 2)
    assert listed(session) == [(2, 2, 3)]


def test_a_free_run_from_an_old_frame_leaves_a_branch() -> None:
    session = open_session("linear")
    run(session, "fbsz*3 @4")
    for _ in session.run_free(Goal(iteration=9), lambda: False, every=0):
        pass
    assert listed(session) == [(1, 4, 12)]


WAYS_OUT = ["@17 z lr=0.5 FBSZ", "@0 FBSZ*9", "@18 f @2 F"]
WORLDS = product(enumerate([small_net, gated, words]), enumerate(["sgd,momentum=0.9", "adam"]), enumerate(WAYS_OUT))


@pytest.mark.parametrize(
    ("world", "optimizer", "leaving"),
    # Every two of a world, an optimizer and a way out meet: half of all cases.
    [[each for _, each in case] for case in WORLDS if LONG or sum(index for index, _ in case) % 2 == 0],
)
def test_a_branch_is_returned_to_with_every_tensor_and_frame(world: object, optimizer: str, leaving: str) -> None:
    name = {"small_net": "4.bias[0]", "gated": "gate", "words": "out.bias"}[world.__name__]  # type: ignore[attr-defined]
    scenario = as_scenario(world)  # type: ignore[arg-type]
    session, straight = (open_with_many_checkpoints(scenario, optimizer=optimizer, frames=5000) for _ in range(2))
    first = f"fbsz*3 {name}=4 F B B S F z {name}=0 fbsz*8 optimizer=sgd,lr=1e39 F B S lr=0.1 f f b"
    run(straight, first)
    run(session, f"{first} {leaving} branch=1")
    assert session.frame.same(straight.frame)
    assert differing(tensors(session), copied(tensors(straight))) == []
    assert session.history.loss.points() == straight.history.loss.points()
    for index in range(session.newest + 1):
        assert session.look(index).same(straight.look(index))
    assert session.take_divergence() is None


def test_a_long_branch_of_a_free_run_is_returned_to() -> None:
    session, straight = open_session("linear", lr=0.01), open_session("linear", lr=0.01)
    for each in (session, straight):
        for _ in each.run_free(Goal(iteration=3000), lambda: False):
            pass
    run(session, "@4000 lr=0.1 fbsz*2 branch=1")
    assert session.frame.same(straight.frame)
    assert session.look(11_001).same(straight.look(11_001))


def test_frames_of_the_branch_left_are_not_taken_for_those_of_this_one() -> None:
    session = open_session("linear")
    run(session, "fbsz*2 @3 lr=0.5 fbsz branch=1")
    assert [str(session.look(index).command) for index in range(1, 9)] == [*"fbszfbsz"]


def test_branches_are_let_go_when_there_are_too_many() -> None:
    session = open_session("linear")
    run(session, "f " + "undo f " * (MAX_BRANCHES + 5))
    assert [branch.number for branch in session.branches] == list(range(6, MAX_BRANCHES + 6))


@pytest.mark.parametrize(
    ("before", "says"),
    [
        ("fb", "there is no branch 7: nothing has been rewound over yet."),
        ("f @0 z", "there is no branch 7: there is 1"),
    ],
)
def test_a_branch_that_is_not_there_is_refused(before: str, says: str) -> None:
    session = open_session("linear")
    run(session, before)
    with pytest.raises(Refused, match=says):
        session.run("branch=7")


def test_a_branch_that_ran_freely_has_no_frame_of_the_run_that_was_left_for_it() -> None:
    session = open_session("linear")
    list(session.run_all("fbsz*2"))
    list(session.run_free(session.end_of(8), lambda: False))
    there = session.look(9)
    list(session.run_all("@8 B branch=1"))
    assert session.look(9).same(there)
    session.run("@9")
    assert session.take_divergence() is None


@pytest.mark.parametrize("leaving", ["@2 lr=0.5 fbsz*3", "@0 lr=0.5 fbsz*50"])
def test_a_branch_is_returned_to_from_its_last_checkpoint(leaving: str) -> None:
    session, straight = (open_with_many_checkpoints(as_scenario(small_net), frames=5000) for _ in range(2))
    run(straight, "fbsz*50 f")
    run(session, f"fbsz*50 f {leaving}")
    for branch in (1, 2, 3):  # there, back and there
        with (
            patch.object(Trainer, "run", autospec=True, side_effect=Trainer.run) as phases,
            patch.object(Trainer, "iterate", autospec=True, side_effect=Trainer.iterate) as iterations,
        ):
            session.run(f"branch={branch}")
        assert phases.call_count < 30
        assert iterations.call_count == 0
    assert session.frame.same(straight.frame)
    assert differing(tensors(session), copied(tensors(straight))) == []
    for index in range(0, session.newest, 7):
        assert session.look(index).same(straight.look(index))
    assert session.take_divergence() is None


def test_checkpoints_of_branches_take_a_quarter_of_the_memory_at_most() -> None:
    session = open_session("linear")
    run(session, "fbsz")
    checkpoint = session.checkpoint()
    store = CheckpointStore(session._trainer, budget=9 * checkpoint.bytes)
    for number in range(1, 6):
        store.keep_of_branch(number, checkpoint, fork=0)
    store.keep_of_branch(6, checkpoint, fork=4)  # it lies where the branch had not begun
    assert [len(store.fork(0, branch=number)) for number in range(1, 7)] == [1, 1, 1, 2, 2, 1]
