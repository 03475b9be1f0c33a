from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autograd_tui.core.command import Phase, parse
from autograd_tui.core.frame import Frame
from autograd_tui.core.phase_order import Goal
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.replay import free_run
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.scenario import Options, Parts, scenario
from plain_loop import Batch, differing, small_net_fresh
from session_internals import as_scenario, open_with_many_checkpoints, state_of, tensors


@pytest.fixture(autouse=True, scope="module")
def frames_as_often_as_asked() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(free_run, "MAX_FRAME_SHARE", 1e9)  # whatever they cost
        yield


def never() -> bool:
    return False


def run(session: Session, goal: Goal, *, every: float = 0.002, stopped: Callable[[], bool] = never) -> list[Frame]:
    return list(session.run_free(goal, stopped, every=every))


def stepped(scenario: Any, words: str, **options: Any) -> Session:
    session = open_session(scenario, **options)
    for _ in session.run_all(words):
        pass
    return session


@pytest.mark.parametrize("optimizer", ["sgd", "sgd,momentum=0.9", "adam"])
@pytest.mark.parametrize("decay", [None, "plateau:0.5:3"])
def test_a_free_run_ends_in_the_very_state_of_a_stepped_one(optimizer: str, decay: str | None) -> None:
    session = open_session(optimizer=optimizer, decay=decay)
    run(session, Goal(iteration=150))
    other = stepped("linear", "fbsz*150", optimizer=optimizer, decay=decay)
    assert session.frame.same(other.frame)
    assert differing(tensors(session), tensors(other)) == []
    assert session.commands() == "fbsz*150"
    assert session.history.loss.points() == other.history.loss.points()
    assert session.history.learning_rate.points() == other.history.learning_rate.points()


def test_batch_norm_dropout_and_fresh_data_are_as_in_a_stepped_run() -> None:
    session = open_session(as_scenario(small_net_fresh), seed=3)
    run(session, Goal(iteration=60))
    other = stepped(as_scenario(small_net_fresh), "fbsz*60", seed=3)
    assert session.frame.same(other.frame)
    assert differing(tensors(session), tensors(other)) == []


class OtherTensor(Tensor):
    """A tensor of another class, as libraries have them."""


@pytest.mark.parametrize(
    "returned",
    [Tensor.double, Tensor.bfloat16, lambda loss: loss.reshape(1, 1), lambda loss: loss.as_subclass(OtherTensor)],
    ids=["double", "bfloat16", "with dimensions", "of another class"],
)
def test_a_loss_of_any_kind_is_the_number_that_it_is_in_a_stepped_run(returned: Callable[[Tensor], Tensor]) -> None:
    def build(_: Options) -> Parts:
        x, model = torch.rand(4, 3), nn.Linear(3, 1)
        return Parts(model=model, batch=lambda i: (x, x), loss=lambda y, target: returned((y - target).square().mean()))

    made = scenario("any loss", device="cpu")(build)
    session = open_session(made)
    run(session, Goal(iteration=40), every=1.0)
    assert session.history.loss.points() == stepped(made, "fbsz*40").history.loss.points()


def test_each_frame_that_a_free_run_gives_is_that_of_a_stepped_one() -> None:
    session, other = open_session(lr=0.01, momentum=0.9), stepped("linear", "fbsz*200", lr=0.01, momentum=0.9)
    shown = run(session, Goal(iteration=200))
    assert len(shown) > 3
    assert all(frame.same(other.look(frame.index)) for frame in shown)


def test_any_frame_between_can_be_looked_at() -> None:
    session, other = open_session(lr=0.01), stepped("linear", "fbsz*60", lr=0.01)
    run(session, Goal(iteration=60), every=0.005)
    here = session.frame
    for index in range(0, 4 * 60, 7):  # of each phase
        assert session.look(index).same(other.look(index))
        assert session.frame.same(here)


@pytest.mark.parametrize("words", ["", "f", "fb", "fbs", "F F", "fb fb s", "S", "fbsz w=3"])
def test_a_free_run_begins_anywhere(words: str) -> None:
    session = stepped("linear", words)
    run(session, session.end_of(40), every=0)
    other = stepped("linear", session.commands())
    assert session.frame.same(other.frame)
    zeroed = [command for command in parse(session.commands()) if command.phase is Phase.ZERO_GRAD]
    assert len(zeroed) == 40 + words.count("z")


def test_a_free_run_goes_on_from_where_one_has_gone_back_to() -> None:
    session = stepped("linear", "fbsz*9 lr=0.01 fb")
    session.rewind(10)
    run(session, session.end_of(20), every=0)
    assert session.commands() == "fbsz*22"
    assert session.frame.same(stepped("linear", "fbsz*22").frame)


@pytest.mark.parametrize("below", [3.0, 1.0, 0.01])
def test_a_run_until_a_loss_stops_at_the_first_forward_that_measures_it(below: float) -> None:
    session, other = open_session(), open_session()
    *_, frame = run(session, Goal(below=below))
    while (expected := other.run(other.next_command())).loss is None or not expected.loss < below:
        pass
    assert frame.same(expected)
    assert session.history.loss.points() == other.history.loss.points()


def test_a_run_until_a_loss_that_has_been_left_behind_stops_above_it() -> None:
    *_, frame = run(open_session(lr=0.19), Goal(above=1000.0))
    assert frame.loss is not None
    assert 1000 < frame.loss < 2000


def test_a_run_stops_after_the_iteration_in_which_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_run, "LOOK_SECONDS", 0.0)  # it looks behind each iteration
    session = open_session()
    shown = run(session, Goal(), stopped=lambda: state_of(session).forwards >= 100)
    assert shown[-1].phase == "zero_grad"
    assert 400 <= session.newest <= 408


class Brittle(nn.Module):
    """Raises in its 50th forward, however often it comes there."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([2.0]))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        if self.count == 50:
            raise ValueError("fifty")
        return self.w * x


def brittle(seed: int) -> tuple[nn.Module, Batch]:
    x = torch.rand(3)
    return Brittle(), lambda i: (x, 4 * x)


@pytest.mark.parametrize("checkpoints", ["few", "many"])
def test_what_raises_in_a_free_run_is_shown_where_it_happened(checkpoints: str) -> None:
    opened = open_with_many_checkpoints if checkpoints == "many" else open_session
    session = opened(as_scenario(brittle))
    *_, frame = run(session, Goal(iteration=100), every=0.05)
    other = stepped(as_scenario(brittle), "fbsz*49 f")
    assert frame.error is not None
    assert frame.error.message == "fifty"
    assert frame.same(other.frame)
    assert session.commands() == other.commands()
    assert differing(tensors(session), tensors(other)) == []


def test_a_loss_without_a_graph_runs_forward_again_and_again_until_stopped() -> None:
    def build(seed: int) -> tuple[nn.Module, Batch]:
        x = torch.rand(3, 1)
        model = nn.Linear(1, 1).requires_grad_(False)
        return model, lambda i: (x, 4 * x)

    session = open_session(as_scenario(build))
    *_, frame = run(session, Goal(), stopped=lambda: session.newest >= 5)
    assert session.commands() == "f*5"
    assert frame.graph == "none"


def test_a_long_run_keeps_little() -> None:
    session = open_session()
    run(session, Goal(iteration=10_000), every=0.02)
    assert session.newest == 40_000
    assert len(session.history.loss) <= session.history.loss.capacity
    assert session.commands() == "fbsz*10000"


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("before", ["", "fbszf", "fbsz"])
def test_a_run_ends_where_all_is_frozen_and_no_iteration_can_follow(before: str, watched: bool) -> None:
    session = stepped("linear", f"{before} requires_grad=False")
    if watched:
        session.arm("nonfinite")
    iteration = session.frame.iteration
    *_, frame = run(session, session.end_of(50))
    assert frame.graph in ("none", "freed")
    assert frame.iteration <= iteration + 1
    assert session.end_of(50).is_out_of_reach(frame) or frame.phase is Phase.ZERO_GRAD
    assert session.newest < 20


def test_a_run_ends_where_the_graph_leads_to_no_parameter() -> None:
    x = torch.ones(3, requires_grad=True)

    def build(seed: int) -> tuple[nn.Module, Callable[[int], Batch]]:
        return nn.Linear(3, 1).requires_grad_(False), lambda i: (x, torch.ones(1))  # type: ignore[return-value]

    session = open_session(as_scenario(build))  # type: ignore[arg-type]
    *_, frame = run(session, session.end_of(50))
    assert (str(frame.command), frame.iteration) == ("b", 1)


def test_the_way_of_two_values_is_that_of_the_plain_run() -> None:
    session, stepped = open_session("linear"), open_session("linear")
    for _ in session.run_free(session.end_of(300), lambda: False, every=60):
        pass
    for _ in stepped.run_all("fbsz*300"):
        pass
    path, there = (
        session.history.path,
        dict(zip(stepped.history.path.indices, stepped.history.path.points(), strict=True)),
    )
    assert 50 < len(path) < 120
    assert list(path.iterations[:17]) == list(range(17))
    assert path.iterations[-1] == 300
    assert all(there[index] == point for index, point in zip(path.indices, path.points(), strict=True))


def test_a_model_with_other_parameters_has_no_way() -> None:
    session = open_session("spiral")
    for _ in session.run_free(session.end_of(5), lambda: False, every=60):
        pass
    assert not len(session.history.path)
