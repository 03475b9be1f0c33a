"""Forwards of scripts that are written to run by themselves: plain Python gives the same bits without the script."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import fork_server
from autograd_tui.core.command import parse_one
from autograd_tui.core.errors import Refused
from autograd_tui.core.files import try_lock
from autograd_tui.core.frame import Frame, TorchError
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.run_config import RunConfig
from autograd_tui.core.script_stop import ScriptRepro
from autograd_tui.core.session_protocol import SessionInfo, StoredFramesSession
from autograd_tui.engine.script.repro_writer import write_repro
from autograd_tui.engine.script.script_session import ScriptSession
from autograd_tui.export import repro_of_script
from autograd_tui.export.repro_of_script import CLAIM_NAME, export_script_repro, script_text
from autograd_tui.export.stored_run import export_from_session
from script_recorder import RecordingAgent, fingerprint, run_script, seams_on

LINE = """
import torch

w = torch.tensor([2.0], requires_grad=True)
b = torch.tensor([6.0], requires_grad=True)
x = torch.linspace(1, 3, 7)
y = 4 * x + 1
for iteration in range(4):
    q = w * x + b
    noise = torch.randn(7)
    loss = ((y - q + 0.1 * noise) ** 2).mean()
    loss.backward()
    with torch.no_grad():
        for each in (w, b):
            each -= 0.1 * each.grad
            each.grad = None
"""
CNN = """
import argparse
import os
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

CHANNELS, SHIFT = 4, 0.25
args = argparse.Namespace(slope=0.1, lr=0.01)
scales = {"pixels": torch.tensor(0.5)}

class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, channels, 3), nn.BatchNorm2d(channels)

    def forward(self, x):
        return activation(self.norm(self.conv(x)))

def activation(x):
    return F.leaky_relu(x, args.slope)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block(CHANNELS)
        self.dropout = nn.Dropout(0.4)
        self.head = nn.Linear(CHANNELS * 36, 3)
        self.calls = 0
        block = self.block
        self.features = lambda x: block(x * scales["pixels"] + SHIFT)

    def forward(self, x, *, scale=1.0):
        self.calls += 1
        x = self.dropout(self.features(x))
        return self.head(x.flatten(1)) * scale / self.calls

def main():
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=args.lr, momentum=0.9)
    data = DataLoader(TensorDataset(torch.randn(20, 1, 8, 8), torch.randint(0, 3, (20,))), 5, shuffle=True)
    for images, labels in data:
        optimizer.zero_grad()
        logits = net(images, scale=0.7)
        loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
        loss.backward()
        optimizer.step()

main()
"""
CRITERION = """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
criterion = nn.MSELoss()
for epoch in range(4):
    x, y = torch.randn(8, 3), torch.randn(8, 1)
    output = model(x)
    optimizer.zero_grad()
    penalty = sum(each.pow(2).sum() for each in model.parameters())
    junk = torch.randn(3)
    loss = criterion(nn.functional.dropout(output, 0.2), y) * 1.0 + 1e-3 * penalty
    right = (output.detach() > 0).float().mean()
    loss.backward()
    optimizer.step()
"""
TWO = """
import torch
from torch import nn

class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 5), nn.Linear(5, 3)])

    def forward(self, noise):
        return self.layers[1](self.layers[0](noise).tanh()), noise

netG, netD = Generator(), nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(0.2), nn.Linear(4, 1))
criterion = nn.BCEWithLogitsLoss()
optimizerD = torch.optim.Adam(netD.parameters())
optimizerG = torch.optim.Adam(netG.parameters())
for step in range(4):
    netD.zero_grad()
    netG.zero_grad()
    fake, noise = netG(torch.randn(6, 2))
    scores = netD(fake)[:, 0]
    error = criterion(scores, torch.ones(6))
    error.backward()
    optimizerG.step()
    optimizerD.step()
"""
IN_PLACE = """
import torch
from torch import nn

encoder, head = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 1)
optimizer = torch.optim.SGD([*encoder.parameters(), *head.parameters()], lr=0.1)
for epoch in range(4):
    optimizer.zero_grad()
    hidden, (last, cell) = encoder(torch.randn(4, 2, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = head(hidden)
    filled = torch.zeros(4, 3)
    filled[:, 1:] = scores[..., 0].float()
    loss = 0.0
    for row in filled.clone().unbind(0):
        loss += row.square().sum()
    loss /= 4
    loss = 1 - loss
    loss.backward()
    optimizer.step()
"""
NAN = """
import torch
from torch import nn

model = nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(4):
    optimizer.zero_grad()
    s = model(torch.ones(3, 1)).sigmoid()
    loss = torch.log(0.2 - s).mean()
    loss.backward()
"""
MANY = """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
for epoch in range(4):
    optimizer.zero_grad()
    losses = []
    for number in range(20):
        state, action = torch.randn(3, 2), torch.randint(0, 3, (1,))
        losses.append(model(state)[action].sum() * torch.rand(1))
    loss = torch.cat(losses).mean()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
"""
GAN = """
import torch
from torch import nn

netG, netD = nn.Linear(2, 3), nn.Linear(3, 1)
optimizer = torch.optim.SGD([*netG.parameters(), *netD.parameters()], lr=0.1)
for step in range(4):
    fake = netG(torch.randn(6, 2))
    errD = netD(fake.detach()).mean()
    errD.backward()
    optimizer.zero_grad()
    errG = netD(fake).mean()
    errG.backward()
    optimizer.step()
    optimizer.zero_grad()
"""
SCRIPTS = {"line": LINE, "cnn": CNN, "criterion": CRITERION, "two": TWO, "in place": IN_PLACE, "nan": NAN, "many": MANY}
RUN_ALL = """
import json, os, runpy, sys
found = {}
for name in sys.argv[1:]:
    variables = runpy.run_path(name, run_name="__main__")
    grads = {key: each.grad.view(-1).tolist() for key, each in variables["params"].items() if each.grad is not None}
    loss = next(variables[each] for each in ("scaled_loss", "loss", "error") if each in variables)
    found[name] = loss.item(), grads
assert not [name for name in sys.modules if name.startswith("autograd_tui")]
print("found", json.dumps(found))
"""


class ReproAgent(RecordingAgent):
    """Records every forward, and writes the last of them."""

    phases: Any

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.repro: ScriptRepro | None = None
        self.grads: dict[str, list[float]] = {}
        self.refused: list[str] = []

    def stop(self, frame: Frame) -> None:
        super().stop(frame)
        name = frame.command.name if frame.command is not None else ""
        if self.phases.recorder is not None:
            self.phases.recorder.take(frame)
        if name == "forward" and frame.iteration >= 2:
            self.path.unlink(missing_ok=True)
            try:
                self.repro = write_repro(self.phases, str(self.path))
            except Refused as refused:
                self.refused.append(str(refused))
        if name == "backward":
            params = self.phases.registry.params()
            self.grads = {key: each.grad.view(-1).tolist() for key, each in params.items() if each.grad is not None}
        self.phases.record(frame)


def written(text: str, folder: Path, path: Path) -> ReproAgent:
    """Run a script with its forwards recorded, and write its last one to a path and the script beside it."""
    agent = ReproAgent(path)
    torch.manual_seed(0)
    with seams_on(agent) as seams:
        agent.phases = seams._phases
        run_script(text, folder)
    assert not agent.reasons, agent.reasons
    if agent.repro is not None:
        config = RunConfig(str(folder / "train.py"), script=("train.py",))
        path.with_suffix(".py").write_text(script_text(config, agent.repro, path.name))
    return agent


def run_plain(folder: Path, *names: str) -> Any:
    """Run scripts under plain Python, which finds nothing of this package."""
    environment = {name: each for name, each in os.environ.items() if not name.startswith(("PYTHONPATH", "COV"))}
    command = [sys.executable, "-c", RUN_ALL, *names]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    line = next(each for each in done.stdout.splitlines() if each.startswith("found "))
    return json.loads(line.removeprefix("found "))


def test_plain_python_repeats_the_loss_and_the_gradients_to_the_bit(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    agents = {}
    for name, text in SCRIPTS.items():
        script = tmp_path / name
        script.mkdir()
        agents[name] = written(text, script, folder / f"{name}.pt")
        assert not agents[name].refused, (name, agents[name].refused)
    found = run_plain(folder, *(f"{name}.py" for name in SCRIPTS))
    for name, agent in agents.items():
        assert agent.repro is not None
        loss, grads = found[f"{name}.py"]
        assert repr(loss) == agent.repro.loss, name
        assert repr(grads) == repr(agent.grads), name
    assert agents["nan"].repro is not None
    assert agents["nan"].repro.loss == "nan"


def test_what_a_repro_leaves_out_is_said(tmp_path: Path) -> None:
    many = written(MANY, tmp_path, tmp_path / "many.pt").repro
    assert many is not None
    assert many.notes == (f"GradScaler had scaled this loss, which was {float(many.loss) / 8!r} before.",)
    assert many.names == ("model",)
    assert 'saved["state_20"]' in "".join(many.calls)
    gan = written(GAN, tmp_path, tmp_path / "gan.pt").repro
    assert gan is not None
    assert gan.notes == ("No gradient goes on behind fake: what made it was not recorded.",)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_whose_forwards_are_written_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = fingerprint(run_script(SCRIPTS[name], tmp_path))
    agent = ReproAgent(tmp_path / "out.pt")
    torch.manual_seed(0)
    with seams_on(agent) as seams:
        agent.phases = seams._phases
        variables = run_script(SCRIPTS[name], tmp_path)
    assert fingerprint(variables) == plain


REFUSED = {
    "cannot be pickled": ("nn.Linear(1, 1)", "nn.Linear(1, 1)\nmodel.lock = __import__('threading').Lock()"),
    "the source of Net is not found": (
        "nn.Linear(1, 1)",
        "(exec('class Net(nn.Linear): pass', globals()), Net(1, 1))[1]",
    ),
    "its loss is made by a call that PyTorch does not tell of": (
        "torch.log(0.2 - s).mean()",
        "Own.apply(s)",
    ),
    "its loss is no single number": (
        ".mean()\n    loss.backward()",
        "\n    loss.backward(torch.ones_like(loss))",
    ),
    "object of the class Index": ("torch.log(0.2 - s)", "torch.log(0.2 - s)[Index(0)]"),
    "it runs inside a mode of the script's": (
        "    s = model(torch.ones(3, 1)).sigmoid()",
        "    with torch.overrides.BaseTorchFunctionMode():\n        s = model(torch.ones(3, 1)).sigmoid()",
    ),
}
OWN = """
class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        return value.sum()

    @staticmethod
    def backward(ctx, grad):
        return grad.expand(3, 1)

class Index:
    def __init__(self, number):
        self.number = number

    def __index__(self):
        return self.number

model ="""


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_written_is_refused_with_the_reason(reason: str, tmp_path: Path) -> None:
    old, new = REFUSED[reason]
    assert old in NAN
    agent = written(NAN.replace(old, new).replace("\nmodel =", OWN, 1), tmp_path, tmp_path / "out.pt")
    assert agent.repro is None
    assert agent.refused
    assert reason in agent.refused[-1]
    assert not (tmp_path / "out.pt").exists()


LATE_NAN = """
import torch
from torch import nn
from nets import Net

torch.manual_seed(0)
model = Net(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
for number in range(40):
    optimizer.zero_grad()
    x = torch.rand(16, 4)
    loss = torch.log(1.5 + model(x)).mean()
    loss.backward()
    optimizer.step()
"""
WITH_THREAD = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
NETS = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, given, made):
        super().__init__(nn.Linear(given, 8), nn.Dropout(0.5), nn.Linear(8, made))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="scripts go back on Linux alone")
def test_a_held_script_is_taken_back_to_write_the_forward_where_a_watchpoint_has_fired(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "train.py").write_text(LATE_NAN)
    session = ScriptSession((str(tmp_path / "train.py"),), on_output=lambda _: None)
    try:
        with pytest.raises(Refused, match="there is no forward to write yet"):
            export_from_session(Path("none.pt"), session, bool, folder=str(folder))
        session.arm("nonfinite")
        for _ in session.run_free(Goal(30), bool, every=10.0):
            pass
        held = session.frame
        assert held.iteration > 2
        fired = session.take_fired()
        assert fired is not None
        for name in ("fault.pt", "fault-2.pt"):
            sentence = export_from_session(Path("fault.pt"), session, bool, folder=str(folder), numbered=True)
            assert sentence == f"written: {name}; {name[:-3]}.py repeats this forward: tried, its loss is NaN too"
        assert (session.frame.index, session.frame.params) == (held.index, held.params)
        assert session.take_fired() is None
        text = (folder / "fault.py").read_text()
        assert f'sys.path.insert(0, "{tmp_path}")  # nets is there\n' in text
        assert "loss = torch.log(model(x) + 1.5).mean()  # train.py:12" in text
    finally:
        session.close(in_order=True)
    assert sorted(each.name for each in folder.iterdir()) == ["fault-2.pt", "fault-2.py", "fault.pt", "fault.py"]


@pytest.fixture
def forked_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try what is written in forks of a process that has PyTorch."""

    def start(words: Sequence[str], *, cwd: Path, stdout: Any, **_: object) -> fork_server.Process:
        with open(os.devnull) as nothing:
            return fork_server.Process(words, [each.fileno() for each in (nothing, stdout, stdout)], folder=cwd)

    monkeypatch.setattr(repro_of_script, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": start}))


@pytest.mark.usefixtures("forked_trials")
def test_a_script_that_cannot_be_taken_back_is_recorded_for_a_repro_by_i(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "train.py").write_text(WITH_THREAD + LATE_NAN)
    session = ScriptSession((str(tmp_path / "train.py"),), on_output=lambda _: None)
    try:
        for _ in range(2):
            session.run(parse_one("b"))
        with pytest.raises(Refused, match=r"other threads .* i records the next forward, and e writes it then"):
            export_from_session(Path("late.pt"), session, bool, folder=str(tmp_path))
        session.run(parse_one("i:f"))
        session.run(parse_one("i:b"))
        sentence = export_from_session(Path("late.pt"), session, bool, folder=str(tmp_path))
        assert sentence.endswith("late.py repeats this forward: tried, its loss is the same to the bit")
    finally:
        session.close(in_order=True)


@pytest.mark.usefixtures("forked_trials")
def test_a_repro_that_gives_another_loss_or_raises_is_not_kept(tmp_path: Path) -> None:
    agent = written(CRITERION, tmp_path, tmp_path / "good.pt")
    repro = agent.repro
    assert repro is not None
    contents = (tmp_path / "good.pt").read_bytes()

    class Session(StoredFramesSession):
        about = SessionInfo("train.py", "cpu", 0, RunConfig("train.py", script=("train.py",)))
        frame: Frame = agent.frames[-1]
        repro: ScriptRepro

        def write_repro(self, path: Path) -> ScriptRepro:
            path.write_bytes(contents)
            return self.repro

    session = Session()
    for changed, reason in (
        ({"loss": "0.25"}, f"tried by itself, the forward gives the loss {repro.loss}, not 0.25."),
        ({"calls": ("nothing()",)}, "it ends with NameError: name 'nothing' is not defined."),
    ):
        session.repro = replace(repro, **changed)
        with pytest.raises(Refused, match=re.escape(reason)):
            export_script_repro(tmp_path / "bad.pt", session, sources={})
    left, tried, other = (tmp_path / name for name in (".raises-12345678", ".raises-abcdefgh", ".raises-notes"))
    for each in (left, tried, other):
        each.mkdir()
        (each / "raises.pt").write_bytes(b"")
    for each in (left, tried):  # the first by a program that was killed
        (each / CLAIM_NAME).touch()
    session.repro, path = replace(repro, parameters=("nothing()",)), tmp_path / "raises.pt"
    session.frame = replace(
        session.frame, error=TorchError("NameError", "name 'nothing' is not defined", "", 0, "", "")
    )
    with (tried / CLAIM_NAME).open() as claim:
        assert try_lock(claim.fileno())
        assert export_script_repro(path, session, sources={}).endswith("tried, it raises the same NameError")
    assert [each.exists() for each in (left, tried, other)] == [False, True, True]
    shutil.rmtree(tried)
    shutil.rmtree(other)
    session.repro = repro
    with pytest.raises(Refused, match="the last forward with a loss runs without the NameError behind it"):
        export_script_repro(tmp_path / "bad.pt", session, sources={})
    with pytest.raises(Refused, match="stopped"):
        export_script_repro(tmp_path / "bad.pt", session, sources={}, stopped=lambda: True)
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "good.pt",
        "good.py",
        "raises.pt",
        "raises.py",
        "train.py",
    ]
