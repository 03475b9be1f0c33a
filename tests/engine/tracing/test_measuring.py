"""What a recorded phase measures, and what it does to the process meanwhile."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autograd_tui import Options, Parts, Session, open_session
from autograd_tui.core.trace import Trace
from autograd_tui.engine.tracing.autograd_graph import AutogradGraph
from autograd_tui.engine.tracing.measurement_batch import MeasurementBatch
from autograd_tui.engine.training import stats_reader
from autograd_tui.engine.training.scenario import Scenario
from session_internals import state_of


class Network(nn.Module):
    """Nodes of one type that keep more or fewer tensors, and permuted tensors of more values than are copied whole."""

    def __init__(self, look: Callable[[], None]) -> None:
        super().__init__()
        self.look = look
        self.first, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.second, self.last = nn.Conv2d(8, 8, 3, bias=True), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.look()
        h = self.second(self.norm(self.first(x)).relu_())
        return self.last(h.permute(0, 2, 3, 1).exp().mean((1, 2)))


def opened(look: Callable[[], None] = lambda: None) -> Session:
    def build(options: Options) -> Parts:
        x, y = torch.rand(4, 3, 12, 12), torch.rand(4, 2)
        return Parts(model=Network(look), batch=lambda _: (x, y), loss=nn.functional.mse_loss, optimizer="sgd,lr=0")

    return open_session(Scenario("network", build))


def forward(session: Session) -> Trace:
    trace = session.run("i:f").trace
    assert trace is not None
    return trace


def test_every_forward_knows_all_tensors_that_its_nodes_keep() -> None:
    session = opened()
    for _ in range(3):
        trace = forward(session)
        nodes = AutogradGraph(state_of(session).loss).nodes
        for node, told in zip(nodes, trace.nodes, strict=True):
            kept = [
                name for name in dir(node) if name.startswith("_saved_") and isinstance(getattr(node, name), Tensor)
            ]
            assert [value.role for value in told.saved or ()] == [name.removeprefix("_saved_") for name in kept]
        session.run("b")


def test_forwards_that_compute_the_same_are_measured_alike() -> None:
    session = opened()
    traces = []
    for _ in range(2):
        traces.append(forward(session))
        for letter in "bsz":
            session.run(letter)
    first, second = ([[each.stats for each in op.output] for op in trace.ops if op.name != "add_"] for trace in traces)
    assert first == second


def test_numbers_asked_for_later_are_those_of_the_phase() -> None:
    at_once, later = opened(), opened()
    wanted, traces = [], []
    for letter in "fbsz" * 2:
        trace, other = at_once.run(f"i:{letter}").trace, later.run(f"i:{letter}").trace
        assert trace is not None
        assert other is not None
        wanted.append(_numbers(trace))
        traces.append(other)
    assert [_numbers(trace) for trace in traces] == wanted
    norm, relu = next(pair for pair in pairwise(traces[0].ops) if pair[1].name == "relu_")
    low = norm.output[0].stats.min
    assert low is not None
    assert low < 0 == relu.output[0].stats.min  # the one was changed into the other


def _numbers(trace: Trace) -> list[object]:
    values = [value for op in trace.ops for value in (*op.inputs, *op.output, *op.grad_in, *op.grad_out)]
    values += [value for node in trace.nodes for value in node.saved or ()]
    return [(value.stats, value.first) for value in values if value is not None]


@pytest.mark.parametrize("bad", [0.0, math.nan, -math.inf])
@pytest.mark.parametrize("layout", ["permuted", "apart", "channels last"])
def test_the_bounds_of_a_large_tensor_are_found_in_whatever_order_it_lies(bad: float, layout: str) -> None:
    tensor = torch.randn(4, 20, 6, 10)
    tensor[1, 2, 3, 4] += bad
    arranged = {
        "permuted": tensor.permute(3, 1, 0, 2),
        "apart": tensor[:, ::2],
        "channels last": tensor.to(memory_format=torch.channels_last),
    }[layout]
    measurements = MeasurementBatch()
    number = measurements.measure(arranged)
    measurements.read()
    row = measurements.table[number]
    wanted = torch.tensor([arranged.min().item(), arranged.max().item()])
    assert torch.tensor([row.min, row.max]).equal(wanted) or (math.isnan(bad) and math.isnan(row.min or 0.0))
    assert row.nonfinite == int((~arranged.isfinite()).sum())


class Growing(nn.Module):
    """Large values whose squares are infinite long before they are."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1e25))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.factor) * self.factor


@pytest.mark.parametrize("size", [5000, 50_000])
def test_the_first_infinity_is_found_where_finite_values_came_in_whose_norm_is_infinite(size: int) -> None:
    def build(options: Options) -> Parts:
        x = torch.ones(size)
        return Parts(model=Growing(), batch=lambda _: (x, x), loss=lambda output, y: (output * y).sum())

    grown, infinite, *_ = forward(open_session(Scenario("growing", build))).ops
    assert (grown.output[0].nonfinite, grown.not_finite) == (0, ())
    assert [each.infinities for each in infinite.not_finite] == [size]
    assert infinite.not_finite[0].input_values == pytest.approx((1e25, 1e25))


def test_the_collector_rests_while_a_phase_is_recorded_and_not_afterwards() -> None:
    seen: list[bool] = []

    def look() -> None:
        seen.append(gc.isenabled())
        if len(seen) == 3:
            raise ValueError

    session = opened(look)
    for command in ("f", "b", "s", "z", "i:f", "i:b", "s", "z", "i:f"):
        frame = session.run(command)
        assert gc.isenabled()
    assert frame.error is not None
    assert seen == [True, False]  # what the forward that raised had appended is undone


class LargeNetwork(nn.Module):
    """Two layers of one weight that is too large to be copied; `hook` may change its gradient."""

    def __init__(self, hook: Callable[[Tensor], object], *, twice: bool = False) -> None:
        super().__init__()
        self.first, self.last, self.times = nn.Linear(200, 200, bias=False), nn.Linear(200, 1), 1 + twice
        hook(self.first.weight)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = torch.tanh(self.first(x))
        return self.last(x)


def double_twice(param: Tensor) -> None:
    """Put other tensors in the place of a gradient, the last of them maybe where the first one lay."""
    assert param.grad is not None
    param.grad = param.grad * 2
    param.grad = param.grad * 2


def double_in_place(param: Tensor) -> None:
    assert param.grad is not None
    param.grad.mul_(2)


HOOKS: dict[str, Callable[[Tensor], object]] = {
    "none": lambda param: None,
    "of the tensor": lambda param: param.register_hook(lambda grad: grad * 2),
    "of the tensor, in place": lambda param: param.register_hook(lambda grad: grad.mul_(2)),
    "behind, in place": lambda param: param.register_post_accumulate_grad_hook(double_in_place),
    "behind, in its place": lambda param: param.register_post_accumulate_grad_hook(double_twice),
}


def large_network(hook: str, *, twice: bool = False) -> Scenario:
    """Make a scenario of such a network."""

    def build(_: Options) -> Parts:
        model, x = LargeNetwork(HOOKS[hook], twice=twice), torch.rand(4, 200)
        return Parts(model=model, batch=lambda i: (x, x.sum(1, keepdim=True)), loss=nn.functional.mse_loss)

    return Scenario("large", build)


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("words", ["fb", "fbfb"])
@pytest.mark.parametrize("hook", HOOKS)
def test_a_frame_with_gradients_that_recording_has_measured_is_that_of_a_plain_backward(
    hook: str, words: str, twice: bool
) -> None:
    recorded, plain = (open_session(large_network(hook, twice=twice)) for _ in range(2))
    for letter in words:
        frame = recorded.run(f"i:{letter}")
        assert frame.same(plain.run(letter))
    assert frame.grads.table == plain.frame.grads.table


def test_a_gradient_that_recording_has_measured_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    session, read = open_session(large_network("none")), list[int]()
    session.run("i:f")
    launch = stats_reader.launch_large

    def counted(tensor: Tensor, *arguments: Any, **options: Any) -> list[Tensor]:
        read.append(tensor.numel())
        return launch(tensor, *arguments, **options)

    monkeypatch.setattr(stats_reader, "launch_large", counted)
    session.run("i:b")
    assert read == []
    session.run("i:f")
    read.clear()
    session.run("i:b")  # which adds to `.grad`
    assert read == [40_000]
