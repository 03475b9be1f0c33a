"""A session keeps its random numbers, grad mode and default dtype to itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import numpy
import pytest
import torch
from torch import Tensor, nn

from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from models_hard_to_repeat import gated
from plain_loop import Batch, Build, copied, differing, plain_loop, small_net, small_net_fresh
from session_internals import as_scenario, open_with_many_checkpoints, tensors

COMMANDS = "fbsz*3 lr=0.1 fbs f b B z undo @9 fbsz optimizer=adam fbsz"


@pytest.fixture(autouse=True)
def globals_as_they_were() -> Iterator[None]:
    with torch.random.fork_rng():
        yield
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)


def turn_off_gradients() -> None:
    torch.set_grad_enabled(False)


def draw() -> None:
    torch.rand(5)


def seed() -> None:
    torch.manual_seed(99)


def change_the_dtype() -> None:
    torch.set_default_dtype(torch.float64)


def run(session: Session, commands: str) -> None:
    for _ in session.run_all(commands):
        pass


@pytest.mark.parametrize("meddle", [turn_off_gradients, draw, seed, change_the_dtype])
@pytest.mark.parametrize("build", [small_net, small_net_fresh])
def test_what_other_code_does_between_commands_does_not_reach_the_run(
    build: Build, meddle: Callable[[], object]
) -> None:
    session, straight = (open_with_many_checkpoints(as_scenario(build)) for _ in range(2))
    run(straight, COMMANDS)
    for _ in session.run_all(COMMANDS):
        meddle()
    assert differing(tensors(session), tensors(straight)) == []


def test_a_session_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    session = open_with_many_checkpoints(as_scenario(small_net), frames=1)
    run(session, COMMANDS)
    session.look(2)
    assert torch.equal(torch.rand(1), expected)


def test_a_session_leaves_the_callers_grad_mode_alone() -> None:
    session = open_session(as_scenario(small_net))
    with torch.no_grad():
        run(session, "fbsz @0 fb")
        assert not torch.is_grad_enabled()


def test_two_sessions_side_by_side_do_not_disturb_each_other() -> None:
    one, other, alone = (open_session(as_scenario(gated), seed=seed) for seed in (1, 2, 1))
    run(alone, COMMANDS)
    for _ in one.run_all(COMMANDS):
        other.run("f")
    assert differing(tensors(one), tensors(alone)) == []


def once_careless(seed: int) -> tuple[nn.Module, Batch]:
    class Careless(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            if self.bias.item() == 3:
                torch.set_grad_enabled(False)
                torch.set_default_dtype(torch.float64)
            return y

    x = torch.rand(3, 1)
    return Careless(1, 1), lambda i: (x, x)


def test_code_that_turns_gradients_off_for_good_does_so_as_in_a_script() -> None:
    session = open_session(as_scenario(once_careless))
    run(session, "bias=3 f bias=0")
    assert session.run("f").graph == "none"


@pytest.mark.parametrize("commands", ["bias=3 f @0 bias=0 f", "bias=3 f bias=0 f f @1 bias=0 f"])
def test_going_back_turns_gradients_on_again(commands: str) -> None:
    session = open_with_many_checkpoints(as_scenario(once_careless))
    run(session, commands)
    assert session.frame.graph == "alive"


def test_code_that_changes_globals_for_good_leaves_the_callers_alone() -> None:
    run(open_session(as_scenario(once_careless)), "bias=3 f")
    assert (torch.is_grad_enabled(), torch.get_default_dtype()) == (True, torch.float32)


def test_metrics_leave_no_trace_in_the_random_numbers() -> None:
    session, straight = (open_session(as_scenario(gated)) for _ in range(2))
    session._trainer.state.parts.metrics["noise"] = lambda prediction, target: torch.rand(())  # type: ignore[index]
    for each in (session, straight):
        run(each, "fbsz*2")
    assert dict(session.frame.metrics).keys() == {"noise"}
    assert differing(tensors(session), copied(tensors(straight))) == []


def foreign(seed: int) -> tuple[nn.Module, Batch]:
    """Draw from Python's and NumPy's own random numbers, also where the forward then raises."""

    class Foreign(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            noise = random.gauss() + numpy.random.randn()
            if self.bias.item() > 3:
                raise ValueError("too large")
            y: Tensor = super().forward(x) + noise
            return y

    x = torch.rand(3, 1)
    return Foreign(1, 1), lambda i: (x, x * random.random())


def draw_elsewhere() -> None:
    random.seed(3)
    numpy.random.seed(3)


def test_the_random_numbers_of_python_and_numpy_are_a_runs_own() -> None:
    session, straight = (open_with_many_checkpoints(as_scenario(foreign), seed=5) for _ in range(2))
    run(straight, "fbsz*3 @5 fbsz")
    for _ in session.run_all("fbsz*3 @5 fbsz"):
        draw_elsewhere()
    assert differing(tensors(session), tensors(straight)) == []


def test_a_session_leaves_the_callers_numbers_of_python_and_numpy_alone() -> None:
    draw_elsewhere()
    expected = random.random(), numpy.random.rand()
    draw_elsewhere()
    run(open_session(as_scenario(foreign)), "fbsz*2")
    assert (random.random(), numpy.random.rand()) == expected


def test_a_forward_that_raises_takes_no_random_numbers_of_python_and_numpy() -> None:
    session, straight = (open_session(as_scenario(foreign)) for _ in range(2))
    run(session, "bias=4 f bias=0 f")
    run(straight, "bias=4 bias=0 f")
    assert session.frame.loss == straight.frame.loss


def test_another_seed_gives_other_numbers_of_python_and_numpy() -> None:
    losses = {open_session(as_scenario(foreign), seed=seed).run("f").loss for seed in (0, 0, 1)}
    assert len(losses) == 2


class Late(nn.Module):
    """Draws from Python's and NumPy's random numbers from its tenth forward on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1  # type: ignore[assignment, operator]
        noise = random.random() + numpy.random.rand() if self.calls >= 10 else 1.0  # type: ignore[operator]
        return self.layer(x) * noise


def late(seed: int) -> tuple[nn.Module, Batch]:
    batch = torch.rand(4, 3), torch.rand(4, 2)
    return Late(), lambda i: batch


def test_numbers_drawn_late_are_those_of_a_plain_script_and_come_back() -> None:
    random.seed(0)
    numpy.random.seed(0)
    plain = plain_loop(late, partial(torch.optim.SGD, lr=0.01))
    expected = [each["loss"].item() for each in islice(plain, 20) if each["loss"] is not None]
    session = open_with_many_checkpoints(as_scenario(late))
    frames = list(session.run_all("fbsz*20"))
    assert [frame.loss for frame in frames[::4]] == expected
    session.rewind(60)
    run(session, "fbsz*5")
    assert session.frame.same(frames[-1])
