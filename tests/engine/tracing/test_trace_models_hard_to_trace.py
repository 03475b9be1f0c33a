from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autograd_tui import Session, open_session
from autograd_tui.core.trace import Operation, Trace
from autograd_tui.engine.training.scenario import Options, Parts, scenario
from autograd_tui.text.derivation.chain_rule import chain_rule_lines
from autograd_tui.text.styled_text import plain
from autograd_tui.text.trace.operation_lines import operation_lines, trace_lines
from models_hard_to_trace import MODELS, Attention, Packed, Partly, strange
from session_internals import state_of, tensors


def run(session: Session, commands: str) -> None:
    for frame in session.run_all(commands):
        assert frame.error is None, frame.error


def backward_of(name: str) -> tuple[Trace, Session]:
    session = open_session(strange(MODELS[name]))
    run(session, "i:f")
    trace = session.run("i:b").trace
    assert trace is not None
    return trace, session


@pytest.mark.parametrize("name", MODELS)
def test_recording_changes_no_bit(name: str) -> None:
    plain, recorded = (open_session(strange(MODELS[name], losses=2)) for _ in range(2))
    for _ in range(3):
        for letter in "fbsz":
            one, other = plain.run(letter), recorded.run(f"i:{letter}")
            assert one.same(other), letter
            ours, theirs = tensors(recorded), tensors(plain)
            assert ours.keys() == theirs.keys()
            for key, tensor in ours.items():
                twin = theirs[key]
                assert (tensor is None) == (twin is None), key
                assert tensor is None or twin is None or torch.equal(_bits(tensor), _bits(twin)), key


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1).contiguous().view(torch.uint8)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_accumulated_is_the_gradient(name: str) -> None:
    trace, session = backward_of(name)
    held = {name: param.grad for name, param in state_of(session).params.items() if param.grad is not None}
    filled = {op.accumulates_into: op for op in trace.ops if op.accumulates_into}
    assert set(filled) == set(held) or name in ("reentrant checkpoint", "torch.func")
    for param, op in filled.items():
        assert param is not None
        assert op.grad_in[0] is not None
        assert op.grad_after is not None
        assert op.grad_in[0].stats.norm == op.grad_after.stats.norm, param


@pytest.mark.parametrize("name", MODELS)
def test_no_hook_stays_behind(name: str) -> None:
    session = open_session(strange(MODELS[name]))
    run(session, "i:f i:b i:s i:z")
    recorded = session.run("i:f").trace
    run(session, "b s z f b s z")
    assert recorded is not None
    assert session.frame.error is None
    hooks = nn.modules.module._global_forward_hooks, nn.modules.module._global_forward_pre_hooks
    assert hooks == ({}, {})


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("reentrant checkpoint",)])
def test_every_node_but_the_leaves_belongs_to_an_operation(name: str) -> None:
    trace, _ = backward_of(name)
    assert all(node.op is not None for node in trace.nodes if node.param is None)


def test_a_reentrant_checkpoint_says_that_it_hides_something() -> None:
    assert "hides what happens there" in " ".join(backward_of("reentrant checkpoint")[0].notes)


def test_a_custom_function_is_an_operation_without_arguments() -> None:
    trace, _ = backward_of("custom")
    assert trace.forward is not None
    (op,) = [op for op in trace.forward.ops if op.opaque]
    assert (op.name, op.inputs, op.output[0].stats.shape) == ("Wrong", (), (8, 2))


def test_saved_tensors_that_are_packed_are_not_looked_at() -> None:
    trace, session = backward_of("packed")
    model = state_of(session).model
    assert isinstance(model, Packed)
    plain = open_session(strange(Packed))
    run(plain, "fb")
    twin = state_of(plain).model
    assert isinstance(twin, Packed)
    assert model.looked == twin.looked > 0
    assert all(node.saved is None for node in trace.nodes if node.name in ("AddmmBackward0", "ReluBackward0"))


def test_under_no_grad_operations_make_no_nodes() -> None:
    session = open_session(strange(Partly))
    trace = session.run("i:f").trace
    assert trace is not None
    assert [op.name for op in trace.ops if op.module == "frozen"] == ["linear"]
    assert all(op.nodes == () for op in trace.ops if op.name == "relu" or op.module == "frozen")


def test_a_fast_path_that_recording_turns_off_is_named() -> None:
    session = open_session(strange(lambda: Attention(quick=True)))
    run(session, "f b s z")
    trace = session.run("i:f").trace
    assert trace is not None
    assert "fast path" in trace.notes[0]


@pytest.mark.usefixtures("compiler_counters")
def test_a_compiled_module_is_what_its_compiled_code_calls_and_says_so() -> None:
    plain, recorded = (
        open_session(strange(lambda: torch.compile(nn.Linear(4, 2), backend="eager")))  # type: ignore[arg-type, return-value]
        for _ in range(2)
    )
    with pytest.warns(UserWarning, match="global hooks"):
        trace = recorded.run("i:f").trace
    assert trace is not None
    assert "cannot be seen" in trace.notes[0]
    assert trace.ops[0].name in ("linear", "Addmm")
    assert plain.run("f").same(recorded.frame)


def test_a_transformers_layer_owns_all_its_nodes() -> None:
    trace, _ = backward_of("transformer")
    assert {node.name for node in trace.nodes if node.op is not None} >= {"NativeLayerNormBackward0", "ReluBackward0"}
    assert len(trace.nodes) > 30


def test_a_forward_that_raises_leaves_the_operations_before_it_and_the_one_that_raised() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) @ torch.rand(3, 3)

    frame = open_session(strange(Broken)).run("i:f")
    assert frame.error is not None
    assert frame.trace is not None
    assert frame.trace.error == frame.error
    assert [(op.name, op.raised) for op in frame.trace.ops] == [("linear", False), ("rand", False), ("matmul", True)]


def test_a_backward_that_raises_leaves_the_nodes_before_it() -> None:
    class Snag(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, *grads: Tensor) -> Tensor:
            raise ValueError("a snag")

    class Snagged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(Snag.apply(self.layer(x)))

    session = open_session(strange(Snagged))
    run(session, "f")
    frame = session.run("i:b")
    assert frame.error is not None
    assert frame.error.message == "a snag"
    assert frame.trace is not None
    assert [op.name for op in frame.trace.ops][-2:] == ["TanhBackward0", "SnagBackward"]


class Normed(nn.Module):
    """One batch norm, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.norm(x) * 2 + 1)


def test_a_norm_keeps_its_buffers_as_it_has_left_them() -> None:
    x = torch.randn(4, 3)
    twin = nn.BatchNorm1d(3)
    fresh, once = twin.running_mean.clone(), twin(x) * 2 + 1  # type: ignore[union-attr]
    after_one = twin.running_mean.clone()  # type: ignore[union-attr]
    twin(once)

    @scenario("normed", device="cpu")
    def build(_: Options) -> Parts:
        return Parts(model=Normed(), batch=lambda _: (x, x), loss=nn.MSELoss())

    trace = open_session(build).run("i:f").trace
    assert trace is not None
    norms = [op for op in trace.ops if op.name == "batch_norm"]
    given = [value.stats.values for op in norms for value in op.inputs if value.role == "running_mean"]
    kept = [
        value.stats.values
        for op in norms
        for value in trace.nodes[op.nodes[0]].saved or ()
        if value.role == "running_mean"
    ]
    assert given == [tuple(fresh.tolist()), tuple(after_one.tolist())]
    assert kept == [tuple(after_one.tolist()), tuple(twin.running_mean.tolist())]  # type: ignore[union-attr]
    for op in norms:
        words = "\n".join(map(plain, operation_lines(trace, op, 200)))
        assert words.count("as this call has left it") == 2


class GivesMemoryBack(nn.Module):
    """Gives the memory of intermediate results back, as FSDP does, and asks for no more than their shapes then."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.layer, self.sizes = nn.Linear(4, 6), sizes

    def forward(self, x: Tensor) -> Tensor:
        for size in self.sizes:
            doubled = torch.ones(size) * 2
            doubled.untyped_storage().resize_(0)
            torch.zeros_like(doubled.detach())
        result: Tensor = self.layer(x)
        return result


def test_what_has_no_memory_is_recorded_and_not_read() -> None:
    session = open_session(strange(lambda: GivesMemoryBack(12, 100_000)))
    frame = session.run("i:f")
    assert frame.error is None
    assert frame.trace is not None
    views = [op.output[0].stats for op in frame.trace.ops if op.name == "detach"]
    assert [(each.size, each.norm) for each in views] == [(12, None), (100_000, None)]


def test_what_runs_while_a_model_is_compiled_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session("linear")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # PyTorch 2.11 would compile the recorder too
    trace = session.run("i:f").trace
    assert trace is not None
    assert all(op.opaque for op in trace.ops)


class Autocast(nn.Module):
    """A linear layer in bfloat16, whose output is put back into float32."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = self.layer(x)
        return hidden.float()


def test_under_autocast_each_dtype_is_shown_and_where_it_changes() -> None:
    x, y = torch.randn(8, 4), torch.randn(8, 6)

    @scenario("autocast", device="cpu")
    def build(_: Options) -> Parts:
        return Parts(model=Autocast(), batch=lambda _: (x, y), loss=nn.MSELoss())

    session = open_session(build)
    forward, backward = (session.run(f"i:{letter}").trace for letter in "fb")
    assert forward is not None
    assert backward is not None
    linear, back, loss = forward.ops
    assert "float32 goes in, bfloat16 comes out." in _told(forward, linear)
    assert "(8, 6) bfloat16 norm" in _told(forward, linear)
    assert "bfloat16 goes in, float32 comes out." in _told(forward, back)
    assert "bfloat16" not in _told(forward, loss)
    changed = [op.name for op in backward.ops if " goes in, " in _told(backward, op)]
    assert changed == ["ToCopyBackward0"] * 3  # of the output, of the weight and of the bias
    first = next(op for op in backward.ops if op.name == "ToCopyBackward0")
    assert "handed on as bfloat16" in _told(backward, first)
    assert any("bfloat16" in line for line in trace_lines(forward))


def _told(trace: Trace, op: Operation) -> str:
    return "\n".join(map(plain, (*operation_lines(trace, op, 200), *chain_rule_lines(trace, op, 200))))
