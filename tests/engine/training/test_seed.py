"""A seed set on the way starts all random numbers anew, and is the way past a forward that raises by chance."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autograd_tui.core.errors import UnknownCommand
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from plain_loop import small_net
from session_internals import as_scenario


class Chancy(nn.Module):
    """Raises in one forward of two, as chance has it: PyTorch's, Python's or NumPy's."""

    def __init__(self, whose: str) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))
        self.whose = whose

    def forward(self, x: Tensor) -> Tensor:
        draws = {"torch": torch.rand, "python": lambda _: random.random(), "numpy": np.random.rand}
        if draws[self.whose](1) < 0.5:  # type: ignore[operator]
            raise RuntimeError("bad luck")
        return self.w * x


def opened(whose: str) -> Session:
    return open_session(as_scenario(lambda seed: (Chancy(whose), lambda i: (torch.ones(2), torch.ones(2)))))


def run_until_it_raises(session: Session) -> None:
    while not session.run(session.next_command()).error:
        pass


@pytest.mark.parametrize("whose", ["torch", "python", "numpy"])
def test_a_forward_that_raised_by_chance_raises_again_until_another_seed_is_set(whose: str) -> None:
    session = opened(whose)
    run_until_it_raises(session)
    assert session.run("f").error
    seeds = iter(range(1, 50))
    while session.run(f"seed={next(seeds)}") and session.run("f").error:
        pass
    assert session.frame.error is None
    assert session.frame.loss == 0


def test_a_seed_set_before_a_forward_is_what_manual_seed_is_in_a_plain_loop() -> None:
    session = open_session(as_scenario(small_net, optimizer="sgd,lr=0.01"))
    *_, frame = session.run_all("fbsz seed=3 f")
    torch.manual_seed(0)
    model, batch = small_net(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for place in range(2):
        inputs, targets = batch(place)
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        torch.manual_seed(3)
    assert frame.loss == loss.item()


@pytest.mark.parametrize("whose", ["torch", "python", "numpy"])
def test_a_run_with_a_seed_on_the_way_is_the_same_when_it_is_run_again(whose: str) -> None:
    session = opened(whose)
    words = "f seed=7 f b s z f seed=8 f f f"
    first = list(session.run_all(words))
    session.rewind(0)
    again = list(session.run_all(words))
    assert any(frame.error for frame in first)
    assert all(one.same(other) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize("value", ["", "x", "-1", "1.5", "1e3", "9" * 13])
def test_a_seed_is_a_whole_number(value: str) -> None:
    with pytest.raises(UnknownCommand, match=r"needs a whole number from 0 to 999,999,999,999 after .*, such as "):
        open_session().run(f"seed={value}")
