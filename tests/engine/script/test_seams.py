"""Seams in a script of each shape: which events come, in which order, and that the script does not feel them."""

from __future__ import annotations

from pathlib import Path

import pytest

from script_recorder import ends_the_same, recorded, stops

SIMPLE = """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
criterion = nn.MSELoss()
for epoch in range(3):
    x, y = torch.randn(8, 3), torch.randn(8, 1)
    optimizer.zero_grad()
    loss = criterion(model(x), y)
    loss.backward()
    optimizer.step()
"""


def test_a_simple_loop(tmp_path: Path) -> None:
    agent, _ = recorded(SIMPLE, tmp_path)
    assert agent.by_iteration() == ["Z", "FBSZ", "FBSZ", "FBS"]
    assert [frame.index for frame in agent.frames] == list(range(13))
    first, zero, forward, backward, step = agent.frames[:5]
    assert (first.command, first.params, first.iteration) == (None, zero.params, 0)
    assert (forward.graph, backward.graph) == ("alive", "freed")
    shapes = [row and row.shape for row in (forward.prediction, forward.inputs, forward.targets)]
    assert shapes == [(8, 1), (8, 3), (8, 1)]
    assert not forward.loss_is_old
    assert (set(backward.grads.backwards), set(backward.grads.used), set(step.grads.used)) == ({1}, {False}, {True})
    assert step.before is forward.params
    assert step.loss_is_old
    assert (step.optimizer, step.learning_rate, step.steps) == ("adam", 0.01, 1)
    assert [row.name for row in step.params][:2] == ["0.weight", "0.bias"]


def test_a_stop_is_named_in_the_words_of_the_script(tmp_path: Path) -> None:
    agent, _ = recorded(SIMPLE, tmp_path)
    zero, forward, backward, step = stops(agent)[1:5]
    assert [each.call for each in (zero, forward, backward, step)] == [
        "optimizer.zero_grad",
        "loss.backward",
        "loss.backward",
        "optimizer.step",
    ]
    assert step.source[step.line - step.first_line] == "    optimizer.step()"
    assert (forward.models, backward.models) == (("model",), ("model",))
    assert (step.optimizer, step.steps) == ("optimizer", (("optimizer", 1),))


SCRIPTS = {"simple": SIMPLE}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    assert ends_the_same(SCRIPTS[name], tmp_path)


def test_a_model_is_known_from_its_zero_grad_on(tmp_path: Path) -> None:
    agent, _ = recorded(
        """
        import torch
        from torch import nn

        def train():
            net = nn.Linear(3, 1)
            net.eval()
            for _ in range(2):
                net.zero_grad()
                net(torch.randn(4, 3)).mean().backward()
                for param in net.parameters():
                    param.data.add_(param.grad, alpha=-0.1)

        train()
        """,
        tmp_path,
    )
    assert {frame.params.layout.names for frame in agent.frames} == {("weight", "bias")}
    assert stops(agent)[2].models == ("net",)
    assert [stop.moved_by_hand for stop in stops(agent)] == [(), (), (), (), ("weight", "bias"), (), ()]


def test_what_moves_inside_a_step_is_moved_by_the_step(tmp_path: Path) -> None:
    agent, _ = recorded(
        """
        import torch

        w = torch.ones(2, requires_grad=True)
        optimizer = torch.optim.LBFGS([w], max_iter=3)

        def closure():
            optimizer.zero_grad()
            loss = (w - torch.tensor([2.0, 3.0])).pow(4).sum()
            loss.backward()
            return loss

        for _ in range(2):
            optimizer.step(closure)
        """,
        tmp_path,
    )
    assert [stop.moved_by_hand for stop in stops(agent)] == [()] * len(agent.frames)
    assert {stop.inside for stop in stops(agent)} == {(), ("optimizer.step",)}
