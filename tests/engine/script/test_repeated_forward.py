"""Gradients of a script checked by its own forward, which copies of its process make again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic, sleep

import pytest

import fork_server
from autograd_tui.core.command import Command, parse_one
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.run_observer import Progress
from autograd_tui.engine.script.script_measurements import last_forward
from autograd_tui.engine.script.script_session import ScriptSession
from handmade_frames import frame
from led_scripts import last_lines, run_to_end, running

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="scripts are forked on Linux alone")
Lead = Callable[[str], tuple[ScriptSession, bytearray]]

DIGEST = """
import hashlib
digest = hashlib.sha256(torch.get_rng_state().numpy().tobytes())
for each in everything:
    digest.update(each.detach().numpy().tobytes())
print("sha256", digest.hexdigest(), random.random(), flush=True)
"""

LOOP = (
    """
import random, sys
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
random.seed(0)


class Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        return grad * w, 1.5 * (grad * x).sum(0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(2, 3), nn.BatchNorm1d(3)
        self.scale, self.last = nn.Parameter(torch.ones(3)), nn.Linear(3, 2)

    def forward(self, x):
        x = nn.functional.dropout(torch.tanh(self.norm(self.first(x))), 0.3) + self.first.weight.detach().sum()
        return self.last(Wrong.apply(x, self.scale))


model = Net()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
log = open(__file__ + ".log", "w")
for number in range(4):
    if number == 3:
        with torch.no_grad():
            model(torch.randn(64, 2) * random.random())
    for half in range(2):
        loss = nn.functional.cross_entropy(model(torch.randn(16, 2) * random.random()), torch.randint(0, 2, (16,)))
        loss = loss / 2
        log.write(f"{loss.item()}\\n")
        log.flush()
        if half == 0:
            optimizer.zero_grad()
        loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    optimizer.step()
    scheduler.step()
    print("iteration", number, loss.item(), flush=True)
everything = list(model.state_dict().values())
"""
    + DIGEST
)

SHAPES = (
    """
import random
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
random.seed(0)
x = torch.tensor([1.0, 2.0, 3.0])
y = 4 * x + 1
w, b = torch.tensor([2.0], requires_grad=True), torch.tensor([6.0], requires_grad=True)
for _ in range(2):
    loss = ((w * x + b - y) ** 2).mean()
    loss.backward()
    with torch.no_grad():
        for each in (w, b):
            each -= 0.1 * each.grad
            each.grad = None

lbfgs = torch.optim.LBFGS([w, b], lr=0.1, max_iter=3)


def closure():
    lbfgs.zero_grad()
    loss = ((w * x + b - y) ** 2).mean()
    loss.backward()
    return loss


lbfgs.step(closure)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(1, 1), nn.Linear(1, 1)

    def forward(self, x):
        made, _ = self.lstm(x)
        return self.head(made)


net = Recurrent()
sgd = torch.optim.SGD(net.parameters(), lr=0.01)
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
for _ in range(3):
    sgd.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = net.head(torch.randn(8, 1))
    loss = (net(torch.randn(3, 2, 1)) ** 2).mean() + (made**2).mean()
    scaler.scale(loss).backward()
    scaler.unscale_(sgd)
    scaler.step(sgd)
    scaler.update()

v = nn.Parameter(torch.tensor([1.0, 2.0]))
steps = torch.optim.SGD([v], lr=0.01)
for number in range(5):
    steps.zero_grad()
    loss = (v**2).sum()
    if number == 1:
        loss.backward(retain_graph=True)
        loss.backward()
    elif number == 2:
        loss.backward(torch.tensor(0.5))
    elif number == 3:
        torch.autograd.backward([loss, v.sum()])
    else:
        loss.backward()
    steps.step()

netG, netD = nn.Linear(1, 1), nn.Linear(1, 1)
optimizerG, optimizerD = (torch.optim.SGD(each.parameters(), lr=0.01) for each in (netG, netD))
for _ in range(2):
    optimizerD.zero_grad()
    fake = netG(torch.randn(4, 1))
    (netD(fake.detach()) ** 2).mean().backward()
    optimizerD.step()
    optimizerG.zero_grad()
    loss = (netD(fake) - 1).pow(2).mean()
    loss.backward()
    optimizerG.step()
everything = [w, b, v, *net.parameters(), *netG.parameters(), *netD.parameters()]
"""
    + DIGEST
)


def plain_end(file: str) -> str:
    """Return what a script prints last under plain Python."""
    ended = fork_server.run([sys.executable, file])
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split("sha256")[1].strip()


def check(session: ScriptSession, name: str) -> GradCheck:
    return session.check_gradient(session.frame.index, name, stopped=lambda: False)


def refusal(session: ScriptSession, name: str) -> str:
    with pytest.raises(Refused) as refused:
        check(session, name)
    return str(refused.value)


def go_to(session: ScriptSession, name: str, iteration: int, count: int = 1) -> None:
    """Let a script go on to the so manieth event of a kind in an iteration."""
    while count:
        stop = session.run(session.next_command())
        assert stop.iteration <= iteration
        count -= stop.iteration == iteration and stop.command is not None and stop.command.name == name


def near(one: tuple[float, ...], other: tuple[float, ...], tolerance: float = 1e-5) -> bool:
    size = max(map(abs, other))
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= tolerance * size


def test_each_gradient_is_checked_by_the_scripts_own_forward_and_a_wrong_backward_is_named(
    lead: Lead,
) -> None:
    session, _ = lead(LOOP)
    go_to(session, "forward", 1)
    assert refusal(session, "scale").startswith("there is no backward before frame 2")
    go_to(session, "backward", 1)
    assert "before anything of the script was followed" in refusal(session, "last.bias")
    go_to(session, "backward", 2, 2)
    here = session.frame
    reported: list[Progress] = []

    def watch(progress: Progress) -> bool:
        reported.append(progress)
        return True

    session.watch(watch)
    bias = check(session, "last.bias")
    assert (bias.verdict, bias.index, bias.of_script, bias.backwards) == ("agrees", here.index, True, 1)
    assert near(bias.held, bias.numeric)
    assert reported[-1].gradient == "last.bias.grad"
    assert (reported[-1].done, reported[-1].of) == (1, 2)
    first = check(session, "first.weight")
    assert first.verdict == "agrees"
    assert len(first.held_still) == 1
    assert first.held_still[0].startswith("detach (line ")
    assert check(session, "norm.bias").verdict == "agrees"
    wrong = check(session, "scale")
    assert wrong.verdict == "wrong"
    assert near(wrong.held, wrong.exact)
    assert not near(wrong.held, wrong.numeric, 0.05)
    assert session.frame == here
    assert "no parameter" in refusal(session, "other") or "not known" in refusal(session, "other")
    assert "parameters can be checked" in refusal(session, 3)  # type: ignore[arg-type]
    # Behind the clipping, the step and the next evaluation it is still the backward's own gradient.
    go_to(session, "backward", 4)
    session.run(parse_one("lr=0.02"))
    session.run(parse_one("lr=0.01"))
    assert near((clipped := check(session, "last.bias")).held, clipped.numeric)
    assert not session.branches
    assert session.take_divergence() is None


def test_the_end_has_the_bits_of_plain_python_and_its_log_no_line_more(lead: Lead) -> None:
    session, printed = lead(LOOP)
    file = session.about.config.scenario
    go_to(session, "step", 3)
    assert check(session, "last.bias").verdict == "agrees"
    run_to_end(session)
    end = last_lines(printed, 1)
    with open(f"{file}.log") as log:
        lines = log.read().splitlines()
    assert end == [plain_end(file)]
    with open(f"{file}.log") as log:
        plain = log.read().splitlines()
    assert set(lines) == set(plain)
    assert len(lines) <= len(plain) + 8  # what is taken back writes again, once


EXPECTED = [  # of the so manieth backward: a parameter, and what comes of a check of its gradient
    (1, "w", "this forward ran before anything of the script was followed"),
    (2, "w", "agrees 1 float32"),
    (4, "w", "agrees 1 float32"),
    (8, "lstm.weight_ih_l0", "agrees 1024 bfloat16"),
    (11, "v", "frame 37 is a further backward of a loss that had one"),
    (12, "v", "this backward is given a gradient to begin with"),
    (13, "v", "the backward does not begin at one loss that is one number"),
    (18, "netD.bias", "agrees 1 float32"),
    (18, "netG.bias", "the script calls forward, backward and step between the beginning of this forward and its"),
]


def test_loops_of_other_shapes_are_checked_or_refused_with_the_reason(lead: Lead) -> None:
    session, printed = lead(SHAPES)
    names: dict[int, list[str]] = {}
    for number, name, _ in EXPECTED:
        names.setdefault(number, []).append(name)
    found, count = [], 0
    while count < EXPECTED[-1][0]:
        stop = session.run(session.next_command())
        if stop.command is not None and stop.command.name == "backward":
            count += 1
            found += [outcome(session, name) for name in names.get(count, ())]
    for (number, name, expected), sentence in zip(EXPECTED, found, strict=True):
        assert sentence.startswith(expected), (number, name, sentence)
    run_to_end(session)
    assert last_lines(printed, 1) == [plain_end(session.about.config.scenario)]


def outcome(session: ScriptSession, name: str) -> str:
    try:
        result = check(session, name)
    except Refused as refused:
        return str(refused)
    return f"{result.verdict} {result.scale:g} {result.coarsest}"


def test_the_forward_of_a_gradient_is_found_where_frames_are_missing() -> None:
    def frames(names: dict[int, str]) -> Callable[[int], Frame | None]:
        found = {index: frame(index, command=Command(name)) for index, name in names.items()}
        return found.get

    assert last_forward(frames({3: "forward", 4: "backward", 5: "lr", 6: "step"}), 6) == 3
    assert last_forward(frames({3: "forward", 4: "lr", 5: "backward"}), 5) == 3
    assert last_forward(frames({4: "backward", 5: "step"}), 5) == 3
    assert last_forward(frames({5: "step"}), 5) is None
    with pytest.raises(Refused, match="frame 5 is a further backward"):
        last_forward(frames({4: "backward", 5: "backward"}), 5)
    with pytest.raises(Refused, match="there is no backward before frame 2"):
        last_forward(frames({1: "zero_grad", 2: "forward"}), 2)


SLOW = """
import time
import torch
w = torch.nn.Parameter(torch.ones(3))
optimizer = torch.optim.SGD([w], lr=0.1)
for number in range(6):
    optimizer.zero_grad()
    loss = (w**2).sum()
    time.sleep(0.2 if number else 0)
    loss.backward()
    optimizer.step()
"""


def test_a_check_that_is_given_up_leaves_no_process_behind(lead: Lead) -> None:
    session, _ = lead(SLOW)
    go_to(session, "step", 3)
    here = session.frame
    before = len(running(session.about.config.scenario))
    reported: list[Progress] = []

    def watch(progress: Progress) -> bool:
        reported.append(progress)
        return True

    session.watch(watch)
    with pytest.raises(Refused, match="given up"):
        session.check_gradient(here.index, "w", stopped=lambda: len(reported) > 2)
    assert session.frame == here
    deadline = monotonic() + 60
    while len(running(session.about.config.scenario)) > before + 1:
        assert monotonic() < deadline
        sleep(0.05)
    assert check(session, "w").verdict == "agrees"


def test_the_loss_is_measured_around_the_parameters_by_the_scripts_own_forward(lead: Lead) -> None:
    session, printed = lead(LOOP)
    go_to(session, "backward", 1)
    with pytest.raises(Refused, match="there is no step yet"):
        session.choose_surface("usual")
    assert session.surface(stopped=lambda: False, watch=lambda progress: None) is None
    go_to(session, "step", 2)
    here = session.frame
    with pytest.raises(Refused, match='no parameter "other"'):
        session.choose_surface(("other", "scale[0]"))
    session.choose_surface("usual")
    assert session.frame == here
    reported: list[Progress] = []
    surface = session.surface(stopped=lambda: session.surface_so_far is not None, watch=reported.append)
    assert surface is not None
    assert surface.names == ("last step", "random")
    assert surface.frame == here.index
    assert surface.path is not None
    assert list(surface.path.xs) == [-1.0, 0.0]
    assert surface.x[0] < -1 < surface.x[1]
    assert session.give_up_surface() is not None
    assert session.give_up_surface() is None
    session.choose_surface(("scale[0]", "last.bias[1]"))

    def is_measured() -> bool:
        return session.surface_so_far is not None and session.surface_so_far.measured_rows > 4

    values = session.surface(stopped=is_measured, watch=reported.append)
    assert values is not None
    assert values.names == ("scale[0]", "last.bias[1]")
    # In its middle no parameter is moved: that is the script's own forward.
    forward = session.stored(here.index - 3)
    assert forward is not None
    assert forward.command == Command("forward")
    assert values.losses[4 * values.columns + values.columns // 2] == forward.loss
    assert values.frame == forward.index
    assert not values.is_followed
    session.choose_surface("off")
    assert session.surface_so_far is None
    run_to_end(session)
    assert last_lines(printed, 1) == [plain_end(session.about.config.scenario)]
