"""Phases of a script that are recorded: what they show, and that the script does not feel it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import _len_torch_function_stack

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.trace import Trace
from autograd_tui.engine.script.recording import ScriptRecorder
from autograd_tui.engine.tracing.backward_tracer import BackwardTracer
from autograd_tui.engine.tracing.forward_tracer import ForwardTracer
from autograd_tui.text.styled_text import plain as plain_text
from autograd_tui.text.trace.health import first_alarm, health_lines
from script_recorder import RecordingAgent, fingerprint, run_script, seams_on

LOOP = """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
criterion = nn.MSELoss()
for epoch in range(3):
    x, y = torch.randn(8, 3), torch.randn(8, 1)
    output = model(x)
    optimizer.zero_grad()
    loss = criterion(output, y) * 1.0
    loss.backward()
    optimizer.step()
"""
TRANSFORMER = """
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
        self.head = nn.Linear(8, 11)

    def forward(self, tokens):
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        return self.head(self.encoder(self.embedding(tokens), mask=mask, is_causal=True))

teacher, model = Model().eval(), Model()
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
for epoch in range(3):
    tokens = torch.randint(0, 11, (4, 6))
    logits = model(tokens)
    with torch.no_grad():
        wanted = teacher(tokens).softmax(-1)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(0, 1))
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
"""
CLOSURE = """
import torch
from torch import nn

model = nn.Linear(2, 1)
optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=3)
x, y = torch.randn(9, 2), torch.randn(9, 1)

def closure():
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    return loss

for epoch in range(3):
    optimizer.step(closure)
"""
ACCUMULATION = """
import torch
from torch import nn

model = nn.LSTM(3, 5)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
for epoch in range(2):
    for micro in range(3):
        output, _ = model(torch.randn(4, 2, 3))
        (output.square().mean() / 3).backward()
    optimizer.step()
    scheduler.step()
    with torch.no_grad():
        model(torch.randn(4, 2, 3))
    optimizer.zero_grad()
"""
BY_HAND = """
import torch

w = torch.randn(3, requires_grad=True)
for epoch in range(3):
    x = torch.randn(5, 3)
    noise = torch.rand(5) + 1
    junk = torch.randn(9).sort()
    loss = ((x @ w) * noise).square().mean()
    loss.backward()
    loss2 = (w * w).sum()
    loss2.backward(retain_graph=True)
    loss2.backward()
    with torch.no_grad():
        w -= 0.1 * w.grad
        w.grad = None
"""
CHECKPOINTED = """
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

block, head = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Dropout(0.5)), nn.Linear(4, 1)
optimizer = torch.optim.SGD([*block.parameters(), *head.parameters()], lr=0.1)
for epoch in range(4):
    x = torch.randn(6, 4, requires_grad=True)
    loss = head(checkpoint(block, x, use_reentrant=epoch % 2 == 0)).square().sum()
    loss.backward(retain_graph=epoch == 3)
    optimizer.step()
    optimizer.zero_grad()
"""
SCRIPTS = {
    "loop": LOOP,
    "transformer": TRANSFORMER,
    "closure": CLOSURE,
    "accumulation": ACCUMULATION,
    "by hand": BY_HAND,
    "checkpointed": CHECKPOINTED,
}


OWN = LOOP.replace("    output = model(x)", "    with Own():\n        output = model(x)").replace(
    "model = nn",
    "class Own(torch.overrides.TorchFunctionMode):\n"
    "    def __torch_function__(self, func, types, args=(), kwargs=None):\n"
    "        return func(*args, **(kwargs or {}))\n\nmodel = nn",
    1,
)


class TracingAgent(RecordingAgent):
    """Records every phase, from every stop on."""

    phases: Any

    def __init__(self, behind: tuple[str, ...] = ()) -> None:
        """`behind`: record only behind the stops of these calls; () for all."""
        super().__init__()
        self._behind = behind
        self.traces: list[tuple[Frame, Trace]] = []
        self.problems: list[str] = []

    def stop(self, frame: Frame) -> None:
        super().stop(frame)
        recorder = self.phases.recorder
        trace = recorder.take(frame) if recorder is not None else None
        if trace is not None:
            self.traces.append((frame, trace))
        elif recorder is not None and recorder.problem:
            self.problems.append(recorder.problem)
        if not self._behind or (frame.command is not None and frame.command.name in self._behind):
            self.phases.record(frame)
        elif recorder is not None:
            recorder.disarm()

    def of(self, phase: Phase) -> list[Trace]:
        return [trace for _, trace in self.traces if trace.phase is phase]


def traced(text: str, folder: Path, *, behind: tuple[str, ...] = ()) -> tuple[TracingAgent, str]:
    """Run a script from seed 0, every phase recorded; return what was, and the script's fingerprint."""
    agent = TracingAgent(behind)
    torch.manual_seed(0)
    with seams_on(agent) as seams:
        agent.phases = seams._phases
        variables = run_script(text, folder)
    assert not agent.reasons, agent.reasons
    assert _len_torch_function_stack() == 0
    return agent, fingerprint(variables)


def plain(text: str, folder: Path) -> str:
    torch.manual_seed(0)
    return fingerprint(run_script(text, folder))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_recorded_script_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    agent, ended = traced(SCRIPTS[name], tmp_path)
    assert ended == plain(SCRIPTS[name], tmp_path)
    assert set(agent.problems) <= {"The forward was not recorded: it ran before the first stop."}
    assert len(agent.problems) <= 1
    phases = [frame for frame in agent.frames[2:] if frame.phase is not None]
    assert [frame.index for frame in phases] == [frame.index for frame, _ in agent.traces if frame.index > 1]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_of_which_the_backwards_alone_are_recorded_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    agent, ended = traced(SCRIPTS[name], tmp_path, behind=("forward",))
    assert ended == plain(SCRIPTS[name], tmp_path)
    assert not agent.problems
    assert {trace.phase for _, trace in agent.traces} == {Phase.BACKWARD}


def test_a_backward_without_its_forward_shows_what_its_nodes_had_saved(tmp_path: Path) -> None:
    text = LOOP.replace("output = model(x)", "output = torch.log(model(x) - 3)")
    agent, _ = traced(text, tmp_path, behind=("forward",))
    backward = agent.of(Phase.BACKWARD)[0]
    assert backward.notes == ("The forward was not recorded: the lines that made these nodes are not known.",)
    log = next(node for node in backward.nodes if node.name == "LogBackward0")
    assert [value.role for value in log.saved or ()] == ["self"]
    alarm = first_alarm(backward)
    assert alarm is not None
    assert backward.ops[alarm].name == "MseLossBackward0"
    assert "It was already in what went in: self" in plain_text(health_lines(backward, 1000)[0])


def test_a_checkpoint_is_not_run_again_to_be_read(tmp_path: Path) -> None:
    agent, _ = traced(CHECKPOINTED, tmp_path, behind=("forward",))
    backward = agent.of(Phase.BACKWARD)[1]  # of the checkpoint that is not reentrant
    saved = {node.name: node.saved for node in backward.nodes}
    assert saved["ReluBackward0"] is None
    assert saved["SumBackward0"] is not None


def test_a_forward_has_the_calls_of_its_graph_with_the_lines_of_the_script(tmp_path: Path) -> None:
    agent, _ = traced(LOOP, tmp_path)
    forward = agent.of(Phase.FORWARD)[1]
    lines = [(op.name, op.module, op.source and op.source.text) for op in forward.ops]
    assert lines == [
        ("linear", "0", "output = model(x)"),
        ("batch_norm", "1", "output = model(x)"),
        ("dropout", "2", "output = model(x)"),
        ("linear", "3", "output = model(x)"),
        ("mse_loss", "", "loss = criterion(output, y) * 1.0"),
        ("mul", "", "loss = criterion(output, y) * 1.0"),
    ]
    assert all(op.source is not None and op.source.file == str(tmp_path / "train.py") for op in forward.ops)
    first, loss = forward.ops[0], forward.ops[4]
    assert [value.name for value in first.inputs] == ["x", "0.weight", "0.bias"]
    assert [value.name for value in loss.inputs] == ["output", "y"]
    assert [value.maker for value in loss.inputs] == [3, None]
    assert forward.ops[5].output[0].name == "loss"
    assert {node.param for node in forward.nodes if node.param} == {
        f"{layer}.{kind}" for layer in (0, 1, 3) for kind in ("weight", "bias")
    }
    assert all(op.nodes for op in forward.ops)


def test_a_backward_knows_the_forward_before_it(tmp_path: Path) -> None:
    agent, _ = traced(LOOP, tmp_path)
    forward, backward = agent.of(Phase.FORWARD)[1], agent.of(Phase.BACKWARD)[1]
    assert backward.forward is not None
    assert len(backward.forward.ops) == len(forward.ops)
    assert backward.ops[0].name == "MulBackward0"
    assert backward.ops[0].made_by == 5
    filled = {op.accumulates_into: op for op in backward.ops if op.accumulates_into}
    after = next(frame for frame, trace in agent.traces if trace is backward)
    for name, op in filled.items():
        assert op.grad_before is None
        assert op.grad_after is not None
        assert op.grad_after.stats.norm == after.grads[after.params.layout.names.index(name)].norm
    assert not backward.notes


def test_a_step_and_a_zero_grad_have_a_row_for_each_parameter_of_their_optimizer(tmp_path: Path) -> None:
    agent, _ = traced(LOOP, tmp_path)
    step, zero_grad = agent.of(Phase.STEP)[1], agent.of(Phase.ZERO_GRAD)[1]
    assert step.optimizer == "adam,lr=0.01"
    assert [op.name for op in step.ops] == [op.name for op in zero_grad.ops]
    roles = [value.role for value in step.ops[0].inputs]
    assert roles == ["value", "grad", "step", "exp_avg", "exp_avg_sq"]
    assert dict(step.ops[0].settings)["lr"] == "0.01"
    before, after = step.ops[0].named_input("value"), step.ops[0].named_output("value")
    assert before is not None
    assert after is not None
    assert before.stats != after.stats
    assert zero_grad.ops[0].inputs
    assert not zero_grad.ops[0].output


def test_a_loss_without_modules_is_recorded_from_the_stop_on_and_keeps_what_made_it(tmp_path: Path) -> None:
    agent, _ = traced(BY_HAND, tmp_path)
    forward = agent.of(Phase.FORWARD)[1]
    assert [op.name for op in forward.ops] == ["randn", "rand", "add", "matmul", "mul", "square", "mean"]
    assert forward.ops[4].inputs[1].name == "noise"
    again = agent.of(Phase.BACKWARD)[3:6]
    assert [len(trace.ops) for trace in again[1:]] == [3, 3]
    assert all(trace.forward is not None for trace in again)


def test_the_first_nan_is_found_in_the_line_that_made_it(tmp_path: Path) -> None:
    text = LOOP.replace("output = model(x)", "output = torch.log(model(x) - 3)")
    agent, _ = traced(text, tmp_path)
    alarm = first_alarm(agent.of(Phase.FORWARD)[1])
    assert alarm is not None
    op = agent.of(Phase.FORWARD)[1].ops[5]
    assert (op.name, op.source and op.source.text) == ("log", "output = torch.log(model(x) - 3)")
    assert op.not_finite


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (ForwardTracer, "begin_call"),
        (ForwardTracer, "end_call"),
        (BackwardTracer, "_measured"),
        (BackwardTracer, "add_hooks"),
        (ScriptRecorder, "_begin_forward"),
        (ScriptRecorder, "_parameter_trace"),
    ],
)
def test_a_recorder_that_fails_says_so_and_the_script_goes_on(
    owner: type, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ValueError("planted")

    monkeypatch.setattr(owner, name, fail)
    agent, ended = traced(LOOP, tmp_path)
    monkeypatch.undo()
    assert ended == plain(LOOP, tmp_path)
    assert agent.problems
    assert all("the script went on without it" in each for each in agent.problems)


def test_a_forward_is_not_recorded_in_a_mode_of_the_scripts_own(tmp_path: Path) -> None:
    agent, ended = traced(OWN, tmp_path)
    assert ended == plain(OWN, tmp_path)
    assert set(agent.problems) == {"The forward was not recorded: it runs inside a mode of the script's, Own."}


def test_the_devices_that_a_script_chooses_stay_as_they_are(tmp_path: Path) -> None:
    forward = "    output = model(x)"
    around = LOOP.replace(forward, f"    with torch.device('cpu'):\n    {forward}")
    agent, ended = traced(around, tmp_path)
    assert ended == plain(around, tmp_path)
    assert all("DeviceContext" in each for each in agent.problems)
    inside = LOOP.replace(forward, f"{forward}\n    with torch.device('meta'):\n        torch.zeros(2)")
    agent, ended = traced(inside, tmp_path)
    assert (ended, agent.problems) == (plain(inside, tmp_path), [])
    default = LOOP.replace(
        forward, f"    torch.set_default_device('cpu')\n{forward}\n    torch.set_default_device(None)"
    )
    agent, ended = traced(default, tmp_path)
    assert (ended, agent.problems) == (plain(default, tmp_path), [])


def test_nothing_is_held_once_the_script_goes_on_without_recording(tmp_path: Path) -> None:
    class Once(TracingAgent):
        def stop(self, frame: Frame) -> None:
            RecordingAgent.stop(self, frame)
            recorder = self.phases.recorder
            if recorder is not None:
                recorder.take(frame)
            if frame.index == 1:
                self.phases.record(frame)
            elif recorder is not None:
                recorder.disarm()
                assert (recorder._forward, recorder._tracer, recorder._backward, recorder._finish) == (None,) * 4

    agent = Once()
    with seams_on(agent) as seams:
        agent.phases = seams._phases
        run_script(LOOP, tmp_path)
    assert not agent.reasons
    assert _len_torch_function_stack() == 0
