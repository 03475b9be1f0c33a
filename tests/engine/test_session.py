"""The line of frames: running, going back, looking back."""

from __future__ import annotations

from typing import Any

import pytest

from autograd_tui.core.errors import Refused, UnknownCommand
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from models_hard_to_repeat import gated, mixed, tripwire, wilful, words
from plain_loop import Build, copied, differing
from session_internals import FEW, PLENTY, as_scenario, open_with_many_checkpoints, tensors
from suite_options import some

SIXTY = (
    "fbsz*4 gate=1 lr=0.2 fb F b B s S f gate=4 f z B f gate=0 fbsz optimizer=adam fbs fb s z*2 fb lr=1e39 s lr=0.1 s z"
)
SIXTY += " fbsz*2 f f b F B gate=2"


def run(session: Session, commands: str) -> None:
    for _ in session.run_all(commands):
        pass


# Going back.


BUDGETS = {"many checkpoints": PLENTY, "two checkpoints": FEW, "none": 1}
# Without checkpoints each frame is made from the first one, in whatever order: the last two cases add little.
RETURNS = [(held, order) for held in BUDGETS for order in ("hopping", "backwards", "forwards")]


@pytest.mark.parametrize(("held", "order"), some(RETURNS, 7))
def test_every_frame_of_a_long_run_can_be_returned_to(held: str, order: str) -> None:
    session = open_with_many_checkpoints(as_scenario(gated), budget=BUDGETS[held], optimizer="sgd,lr=0.1,momentum=0.9")
    frames = [session.frame, *session.run_all(SIXTY)]
    assert len(frames) > 60
    indices = list(range(len(frames)))
    if order == "backwards":
        indices.reverse()
    if order == "hopping":
        indices.sort(key=lambda index: index * 37 % 61)
    for index in indices:
        assert session.rewind(index).same(frames[index])


@pytest.mark.parametrize("budget", [1 << 30, 1], ids=["many checkpoints", "two checkpoints"])
@pytest.mark.parametrize(
    ("build", "commands"),
    [
        (gated, SIXTY),
        (tripwire, "fb w=4 fb B f w=1 b fbsz w=5 fb S"),
        (words, "fbsz*2 fb optimizer=adam s optimizer=sgd,momentum=0.9 s fb fbs"),
        (mixed, "fb lr=1e39 s lr=0.1 s f lr=1e39 S S b"),
        (wilful, "f w=4 f w=1 fbsz*2 F f"),
    ],
)
def test_going_back_brings_every_tensor_back(build: Build, commands: str, budget: int) -> None:
    session = open_with_many_checkpoints(as_scenario(build), budget=budget)
    past = [copied(tensors(session))]
    for _ in session.run_all(commands):
        past.append(copied(tensors(session)))
    for index in reversed(range(len(past))):
        session.rewind(index)
        assert differing(tensors(session), past[index]) == [], f"frame {index}"


def test_undo_returns_to_the_frame_before() -> None:
    session = open_session("linear")
    run(session, "fbs")
    expected = copied(tensors(session))
    run(session, "z undo")
    assert session.frame.index == 3
    assert differing(tensors(session), expected) == []


def test_undo_at_the_start_is_refused() -> None:
    with pytest.raises(Refused, match="nothing to undo"):
        open_session("linear").run("undo")


def test_a_frame_that_has_not_come_yet_is_refused() -> None:
    session = open_session("linear")
    run(session, "fb")
    with pytest.raises(Refused, match=r"there is no frame 3: the newest is frame 2\."):
        session.run("@3")


def test_later_frames_stay_after_going_back() -> None:
    session = open_session("linear")
    frames = list(session.run_all("fbsz"))
    session.run("@1")
    assert session.newest == 4
    assert session.run("@4").same(frames[-1])


def test_the_next_command_drops_the_frames_that_were_ahead() -> None:
    session = open_session("linear")
    run(session, "fbsz @2 z")
    assert (session.newest, session.stored(4)) == (3, None)
    with pytest.raises(Refused):
        session.run("@4")


def test_a_refused_command_after_going_back_drops_nothing() -> None:
    session = open_session("linear")
    run(session, "fbsz @1")
    with pytest.raises(Refused):
        session.run("s")
    assert session.newest == 4


def test_another_branch_is_as_if_the_first_had_never_been() -> None:
    session, straight = (open_with_many_checkpoints(as_scenario(gated)) for _ in range(2))
    run(session, "fbsz*5 @9 gate=2 lr=0.5 fbsz*2 undo @12 optimizer=adam fbsz")
    run(straight, "fbsz*2 f gate=2 lr=0.5 f optimizer=adam fbsz")
    assert differing(tensors(session), tensors(straight)) == []
    assert session.frame.same(straight.frame)


def test_a_checkpoint_of_the_old_branch_is_not_used_on_the_new_one() -> None:
    session = open_with_many_checkpoints("linear")
    frames = list(session.run_all("fb f f @3 b"))
    run(session, "@1")
    assert session.run("@4").same(frames[-1])


def test_going_back_to_the_start_again_and_again_costs_no_checkpoint() -> None:
    session = open_with_many_checkpoints("linear", budget=1)
    run(session, "f @0 f @0 f @0 fbsz")
    assert session.frame.index == 4


def test_a_step_that_raised_half_way_can_be_returned_to() -> None:
    session = open_session(as_scenario(mixed))
    frames = [session.frame, *session.run_all("fb lr=1e39 s lr=0.1 s")]
    session.rewind(0)
    assert session.rewind(4).same(frames[4])
    assert frames[4].error is not None


def test_what_was_raised_keeps_its_words_when_it_is_run_again() -> None:
    session = open_session(as_scenario(tripwire))
    *_, raised = session.run_all("f w=1 w=3 b")  # the text counts how often w was written to
    session.rewind(0)
    assert session.rewind(4).same(raised)


# Looking back.


@pytest.mark.parametrize("frames", [1 << 30, 4000], ids=["all frames stored", "few frames stored"])
def test_looking_at_every_frame_shows_what_was_there(frames: int) -> None:
    session = open_with_many_checkpoints(as_scenario(gated), frames=frames)
    seen = [session.frame, *session.run_all(SIXTY)]
    assert all(session.look(frame.index).same(frame) for frame in seen)


@pytest.mark.parametrize("here", [70, 22, 0])
def test_looking_back_leaves_training_where_it_is(here: int) -> None:
    session = open_with_many_checkpoints(as_scenario(gated), frames=1)
    run(session, f"{SIXTY} fbsz*2 @{here}")
    expected = copied(tensors(session))
    assert session.stored(5) is None
    session.look(5)
    assert session.frame.index == here
    assert differing(tensors(session), expected) == []


def test_a_frame_that_never_was_cannot_be_looked_at() -> None:
    with pytest.raises(Refused, match="there is no frame 1"):
        open_session("linear").look(1)


def test_the_history_is_not_touched_by_looking_back() -> None:
    session = open_with_many_checkpoints("linear", frames=1)
    run(session, "fbsz*5")
    before = session.history.loss.points()
    session.look(3)
    assert session.history.loss.points() == before


# Running.


def test_a_word_that_is_no_command_changes_nothing() -> None:
    session = open_session("linear")
    with pytest.raises(UnknownCommand):
        session.run("nonsense")
    assert session.newest == 0


@pytest.mark.parametrize(("before", "letters"), [("", "fbsz"), ("f", "bsz"), ("fbs", "z"), ("fbsf", "bsz")])
def test_the_rest_of_an_iteration_runs_to_its_zero_grad(before: str, letters: str) -> None:
    session = open_session("linear")
    run(session, before)
    assert "".join(str(frame.command) for frame in session.run_until(session.end_of(1))) == letters


def test_an_iteration_stops_at_what_raises() -> None:
    session = open_session(as_scenario(tripwire))
    session.run("w=4")
    assert [frame.error is None for frame in session.run_until(session.end_of(1))] == [True, False]


@pytest.mark.parametrize(
    "commands", ["fbsz*3", "f b s z f", "fbs lr=0.5 F B w=3 optimizer=adam,lr=0.1 fbsz*2", "w=nan f"]
)
def test_the_commands_of_a_session_repeat_it(commands: str) -> None:
    session, again = open_session("linear"), open_session("linear")
    run(session, commands)
    run(again, session.commands())
    assert again.frame.same(session.frame)


def test_the_commands_after_going_back_lead_to_where_training_stands() -> None:
    session = open_session("linear")
    run(session, "fbsz*3 @6")
    assert session.commands() == "fbsz fb"


@pytest.mark.parametrize("options", [{"seed": 2}, {"optimizer": "adam"}, {"decay": "plateau:0.5:0"}, {"data": "fresh"}])
def test_two_runs_of_the_same_commands_give_the_same_frames(options: dict[str, Any]) -> None:
    some, others = (open_session("linear", **options).run_all("fbsz*5") for _ in range(2))
    assert all(one.same(other) for one, other in zip(some, others, strict=True))


def test_iterations_that_begin_with_gradients_of_before_are_run_again_without_a_difference() -> None:
    session = open_session("linear")
    run(session, "f b fbsz*9 fbs")
    before = session.frame
    run(session, "undo s")
    assert session.take_divergence() is None
    assert session.frame.same(before)
