"""Checks of `device.py` that start other programs on the device: an exported script, a script that is led, ranks."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep

from device_runs import MOMENTUM, Findings, Setting, Skipped, deterministic_algorithms, losses_of, run_all

from autograd_tui import Session, open_session
from autograd_tui.core.errors import Refused
from autograd_tui.core.phase_order import Goal


def exported_script(setting: Setting, findings: Findings) -> None:
    """A run that is exported as a script gives the same losses on the device, to the bit."""
    with deterministic_algorithms():
        session = open_session(
            "resnet18", device=str(setting.device), optimizer=MOMENTUM, batch_size=2, deterministic=True
        )
        losses = losses_of(run_all(session, "fbsz*3"))
        _compare_with_export(setting, findings, session, losses)


def _compare_with_export(setting: Setting, findings: Findings, session: Session, losses: list[float | None]) -> None:
    from autograd_tui.export.live_export import export_live

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.py")
        findings.say(export_live(path, session, lambda: False).replace(folder, ""))
        device_lines = [each.strip() for each in path.read_text().splitlines() if setting.device.type in each]
        findings.require(bool(device_lines) or setting.on_cpu, "the script does not name the device")
        ended = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=60, check=False)
    findings.require(ended.returncode == 0, f"the script ended with {ended.returncode}: {ended.stderr[-300:]}")
    printed = [float(each.split()[-1]) for each in ended.stdout.splitlines() if "loss" in each]
    findings.require(printed == losses, f"the script printed {ended.stdout[-300:]!r}, the run's losses are {losses}")


SCRIPT = """
import hashlib, sys, torch
from torch import nn

device = sys.argv[1]
torch.manual_seed(0)
torch.use_deterministic_algorithms(True)
model = nn.Sequential(nn.Linear(64, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 8)).to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
scaler = torch.amp.GradScaler(device, enabled=device != "cpu")
x, y = torch.rand(32, 64, device=device), torch.rand(32, 8, device=device)
for _ in range(8):
    optimizer.zero_grad()
    with torch.autocast(device, dtype=torch.bfloat16 if device == "cpu" else torch.float16):
        loss = nn.functional.mse_loss(model(x).float(), y)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
digest = hashlib.sha256()
for tensor in [*model.state_dict().values(), loss]:
    digest.update(tensor.detach().cpu().double().numpy().tobytes())
print("sha256", digest.hexdigest(), flush=True)
"""


def led_script(setting: Setting, findings: Findings) -> None:
    """A script of the user's own, with GradScaler: the same bits when it is led; going back is refused with why."""
    from autograd_tui.engine.script.script_session import ScriptSession

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "train.py")
        file.write_text(textwrap.dedent(SCRIPT))
        words = (str(file), setting.device.type)
        plain = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60, check=False)
        if not findings.require(plain.returncode == 0, f"the script alone fails: {plain.stderr[-300:]}"):
            return
        printed = bytearray()
        session = ScriptSession(words, on_output=printed.extend)
        try:
            frames = [session.run(session.next_command()) for _ in range(12)]
            device = session.frame.script.device if session.frame.script else ""
            letters = [frame.command.name for frame in frames if frame.command is not None]
            findings.say(f"events {sorted(set(letters))}, on {device}, loss {session.frame.loss}")
            findings.require(device.startswith(setting.device.type), f"its device is said to be {device}")
            inside = session.run(replace(session.next_command(), recorded=True))
            findings.require(inside.error is None, f"inside: {inside.error}")
            try:
                session.rewind(4)
                findings.say("it was taken back")
                findings.require(setting.on_cpu, "it was taken back by a fork after CUDA had started")
            except Refused as refused:
                findings.say(f"going back: {refused}")
                findings.require(not setting.on_cpu, f"on a CPU going back is refused: {refused}")
            try:
                for _ in session.run_free(Goal(), lambda: False, every=0.05):
                    pass
            except Refused as refused:
                findings.say(str(refused))
            deadline = monotonic() + 10
            while plain.stdout.strip().encode() not in bytes(printed) and monotonic() < deadline:
                sleep(0.02)
        finally:
            session.close(in_order=True)
    is_equal = plain.stdout.strip().encode() in bytes(printed)
    findings.require(is_equal, f"led, it printed {bytes(printed)[-300:]!r}, alone {plain.stdout!r}")


RANKS = """
import hashlib, os, sys
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from autograd_tui import Parts, open_session
from autograd_tui.engine.training.scenario import Scenario

device = sys.argv[1]
dist.init_process_group("gloo")
rank, count = dist.get_rank(), dist.get_world_size()

def parts(options):
    x, y = torch.rand(16 * count, 64), torch.rand(16 * count, 8)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 8)).to(device))
    return Parts(model=model, batch=lambda i: (x[rank::count], y[rank::count]), loss=nn.functional.mse_loss)

session = open_session(Scenario("ranks", parts), device=device, optimizer="adam,lr=0.001")
frames = list(session.run_all("fbsz*5"))
digest = hashlib.sha256()
for param in session._trainer.state.params.values():
    digest.update(param.detach().cpu().numpy().tobytes())
digests = [None] * count
dist.all_gather_object(digests, digest.hexdigest()[:16])
if rank == 0:
    errors = [str(frame.error) for frame in frames if frame.error]
    print("ranks", len(set(digests)) == 1 and not errors, digests, errors[:1], flush=True)
dist.barrier()
os._exit(0)
"""


def two_ranks(setting: Setting, findings: Findings) -> None:
    """Two ranks of DDP over gloo, both on this device, end with the same parameters."""
    if not setting.with_ranks:
        raise Skipped("not asked for: --ranks")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "ranks.py")
        file.write_text(RANKS)
        words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(file)]
        ended = subprocess.run(
            [*words, setting.device.type],
            capture_output=True,
            text=True,
            timeout=55,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=False,
        )
    answers = [each for each in ended.stdout.splitlines() if each.startswith("ranks")]
    findings.require(answers[:1] != [] and "True" in answers[0], f"{answers} {ended.stderr[-300:]}")
    findings.say("".join(answers))
