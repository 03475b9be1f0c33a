"""Four loops as people write them around a DataLoader: the run is the script's for three epochs, rewound or not."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from autograd_tui import Options, Parts, from_loader, open_session
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.scenario import Scenario
from loops_with_loaders import CASES, Case
from session_internals import open_with_many_checkpoints, state_of


def run_of_script(case: Case) -> tuple[list[float], list[Tensor]]:
    torch.manual_seed(5)
    losses, model = case.script()
    return losses, list(model.state_dict().values())


def weights_of(session: Session) -> list[Tensor]:
    return list(state_of(session).model.state_dict().values())


@pytest.mark.parametrize("close", [True, False], ids=["checkpoints", "one checkpoint"])
@pytest.mark.parametrize("name", CASES)
def test_three_epochs_are_the_scripts_to_the_bit_with_rewinds_and_looks(name: str, close: bool) -> None:
    losses, state = run_of_script(CASES[name])
    scenario = Scenario(name, CASES[name].parts)
    session = open_with_many_checkpoints(scenario, seed=5) if close else open_session(scenario, seed=5)
    for each in losses:
        assert [session.run(command).loss for command in "fbsz"] == [each] * 4
    assert all(map(torch.equal, weights_of(session), state))
    places = random.Random(name)
    for _ in range(8):
        start = places.randrange(session.newest)  # into the middle of iterations too
        session.run(f"@{start}")
        begun = -(-start // 4)  # iterations, the one that start is in included
        for each in losses[begun : begun + places.randrange(1, 12)]:
            while session.next_command().name != "forward":
                session.run(session.next_command())
            assert session.run("f").loss == each
        look = places.randrange(1, session.newest)
        assert session.look(look).loss == losses[(look - 1) // 4]
        assert session.trace(4 * (session.newest // 8) + 1).ops
    session.run("@0")
    for frame in session.run_all(f"fbsz*{len(losses)}"):
        assert frame.loss == losses[(frame.index - 1) // 4]
    assert all(map(torch.equal, weights_of(session), state))


@pytest.mark.parametrize("name", CASES)
def test_a_free_run_of_three_epochs_is_the_scripts_to_the_bit(name: str) -> None:
    losses, state = run_of_script(CASES[name])
    session = open_session(Scenario(name, CASES[name].parts), seed=5)
    list(session.run_free(session.end_of(len(losses)), lambda: False))
    assert session.history.loss.values.tolist() == losses
    assert all(map(torch.equal, weights_of(session), state))
    assert session.look(4 * (len(losses) // 2) + 1).loss == losses[len(losses) // 2]
    assert all(map(torch.equal, weights_of(session), state))


def test_a_loader_of_the_whole_file_begins_anew_in_each_session_and_wherever_all_is_built_again() -> None:
    own = torch.Generator().manual_seed(2)
    rows = TensorDataset(torch.arange(44.0).reshape(11, 4), torch.arange(11) % 3)
    shared = DataLoader(rows, batch_size=4, shuffle=True, generator=own)
    take = from_loader(shared)

    def build(_: Options) -> Parts:
        model = nn.Sequential(nn.Dropout(0.2), nn.Linear(4, 3))
        return Parts(model=model, batch=lambda i: take(i), loss=F.cross_entropy, optimizer="sgd,lr=0.01")

    scenario = Scenario("shared", build)
    one, other = open_session(scenario), open_session(scenario, memory=1)  # which has no checkpoint
    losses = [frame.loss for frame in one.run_all("fbsz*4")]
    assert [frame.loss for frame in other.run_all("fbsz*7")][:16] == losses  # in turns, too
    losses += [frame.loss for frame in one.run_all("fbsz*5")]
    for session in (other, one):
        list(session.run_all("@10 sz fbsz*6"))
        assert [session.look(index).loss for index in range(1, 37)] == losses
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.2), nn.Linear(4, 3))
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    script = []
    for _ in range(3):
        for x, y in shared:
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            script += [loss.item()] * 4
    assert script == losses
