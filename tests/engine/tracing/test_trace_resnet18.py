from __future__ import annotations

import pytest
import torch

from autograd_tui import Session, open_session
from autograd_tui.core.trace import Trace
from session_internals import tensors


@pytest.fixture(scope="module")
def walked() -> tuple[Session, Trace]:
    session = open_session("resnet18", optimizer="sgd,momentum=0.9")
    traces = [session.run(f"i:{letter}").trace for letter in "fbsz"]
    assert traces[1] is not None
    return session, traces[1]


def test_all_nodes_and_accumulations_are_there(walked: tuple[Session, Trace]) -> None:
    trace = walked[1]
    assert (len(trace.nodes), len(trace.ops)) == (135, 135)
    assert sorted(op.node for op in trace.ops if op.node is not None) == list(range(135))
    assert len({op.accumulates_into for op in trace.ops if op.accumulates_into}) == 62


def test_a_recorded_iteration_leaves_the_same_tensors(walked: tuple[Session, Trace]) -> None:
    plain = open_session("resnet18", optimizer="sgd,momentum=0.9")
    for letter in "fbsz":
        plain.run(letter)
    assert plain.frame.same(walked[0].frame)
    ours, theirs = tensors(walked[0]), tensors(plain)
    for name, tensor in ours.items():
        twin = theirs[name]
        assert tensor is twin or (tensor is not None and twin is not None and torch.equal(tensor, twin)), name


def test_each_operation_knows_its_module_and_its_line(walked: tuple[Session, Trace]) -> None:
    forward = walked[1].forward
    assert forward is not None
    assert len(forward.ops) == 92
    conv = next(op for op in forward.ops if op.module == "layer3.0.conv2")
    assert conv.name == "conv2d"
    assert conv.source is not None
    assert conv.source.text == "out = self.conv2(out)"
    assert conv.inputs[1].name == "layer3.0.conv2.weight"
    assert dict(conv.settings)["padding"] == "(1, 1)"


def test_relus_count_their_dead_units(walked: tuple[Session, Trace]) -> None:
    forward = walked[1].forward
    assert forward is not None
    relus = [op for op in forward.ops if op.name in ("relu", "relu_")]
    assert len(relus) == 17
    assert all(op.mutates and op.dead is not None for op in relus)
    assert relus[0].dead is not None
    assert relus[0].dead[1] == 64


def test_numbers_are_those_of_plain_pytorch(walked: tuple[Session, Trace]) -> None:
    grads = {op.accumulates_into: op.grad_in[0] for op in walked[1].ops if op.accumulates_into}
    plain = open_session("resnet18", optimizer="sgd,momentum=0.9")
    plain.run("f")
    plain.run("b")
    for name, grad in tensors(plain).items():
        if name.endswith(".grad") and grad is not None:
            value = grads[name.removesuffix(".grad")]
            assert value is not None
            assert value.stats.shape == tuple(grad.shape)
            assert value.stats.max == pytest.approx(grad.max().item())
            assert value.stats.norm == pytest.approx(grad.double().norm().item(), rel=1e-5)
            assert value.first is None or value.first == grad.reshape(-1)[0].item()
