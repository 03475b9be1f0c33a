"""A session keeps its random numbers, grad mode and default dtype to itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from plain_loop import Batch, Build, copied, differing, small_net, small_net_fresh
from reach import as_scenario, open_with_many_checkpoints, tensors
from torch import Tensor, nn
from worlds import gated

from autograd_tui.engine.session import Session
from autograd_tui.open import open_session

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
    session._trainer._loop.parts.metrics["noise"] = lambda prediction, target: torch.rand(())  # type: ignore[index]
    for each in (session, straight):
        run(each, "fbsz*2")
    assert dict(session.frame.metrics).keys() == {"noise"}
    assert differing(tensors(session), copied(tensors(straight))) == []
