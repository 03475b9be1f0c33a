from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from autograd_tui import Options, Parts, open_session, scenario


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (2, 4, 3, 3)])
def test_a_unit_is_dead_that_is_0_for_the_whole_batch_and_nan_is_not_0(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape)
    x[:, 1], x[:, 2] = -1, math.nan
    x[0, 0] = -1

    @scenario("units")
    def build(options: Options) -> Parts:
        return Parts(model=Relu(), batch=lambda i: (x, x), loss=nn.functional.mse_loss)

    trace = open_session(build).run("i:f").trace
    assert trace is not None
    assert [op.dead for op in trace.ops if op.name == "relu"] == [(1, 4)]


class Relu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x * self.weight)
