"""Free runs of scripts: where they end, which frames come, and that a watchpoint fires as in a held run."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.watchpoint import FiredWatchpoint, Watchpoint, parse_watchpoint
from autograd_tui.core.wire import FrameDecoder
from autograd_tui.engine.script import agent as script_agent
from autograd_tui.engine.script import script_free_run
from autograd_tui.engine.script.agent import Agent
from autograd_tui.engine.script.agent_messages import Detach, Ended, GoOn, Stop
from autograd_tui.engine.script.loop_phases import Phases
from autograd_tui.engine.script.script_free_run import LossRecord
from autograd_tui.engine.script.seams import install
from script_recorder import fingerprint, run_script

ACCUMULATION = """
import torch
from torch import nn
model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
schedule = torch.optim.lr_scheduler.StepLR(optimizer, 4, gamma=0.5)
for i in range(12):
    for part in range(2):
        x = torch.randn(8, 3) * (1 + i)
        loss = model(x).pow(2).mean() * (1 + 0.5 * i)
        scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    schedule.step()
"""

TWO_OPTIMIZERS = """
import torch
from torch import nn
netG, netD = nn.Linear(2, 3), nn.Linear(3, 1)
optimizerG = torch.optim.Adam(netG.parameters(), lr=0.05)
optimizerD = torch.optim.SGD([netD.weight, netD.bias], lr=0.1)
for i in range(14):
    netD.zero_grad()
    fake = netG(torch.randn(4, 2))
    lossD = netD(fake.detach()).mean().abs() + netD(torch.randn(4, 3)).pow(2).mean()
    lossD.backward()
    if i > 5:
        optimizerD.param_groups[0]["lr"] = 0.0
    optimizerD.step()
    netG.zero_grad()
    lossG = (netD(fake).mean() - 1) ** 2
    if i == 9:
        lossG = lossG * float("nan")
    lossG.backward()
    optimizerG.step()
"""

RECTIFIED = """
import copy, torch
from torch import nn
model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
for i in range(12):
    x = torch.randn(6, 3)
    if i in (5, 8):
        with torch.no_grad():
            model[0].bias.fill_(-9.0 if i == 8 else 1.0)
    loss = model(x).pow(2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    with torch.no_grad():
        model(-9 * x)
assert not copy.deepcopy(model)[1]._forward_hooks
"""

WHOLE_NUMBERS = """
import torch
from torch import nn
model = nn.Linear(3, 1)
model.order = nn.Parameter(torch.arange(3), requires_grad=False)
optimizer = torch.optim.SGD([model.weight, model.bias], lr=0.05)
for i in range(12):
    if i == 5:
        model.order += 1
    loss = model(torch.randn(6, 3)[:, model.order % 3]).pow(2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
"""

SCRIPTS = {
    "accumulation": ACCUMULATION,
    "two optimizers": TWO_OPTIMIZERS,
    "rectified": RECTIFIED,
    "whole numbers": WHOLE_NUMBERS,
}
CONDITIONS = {
    "accumulation": (
        "loss > 0.21",
        "loss < 0.04",
        "grad_norm > 70",
        "grad_norm < 14",
        "param_norm < 2.32",
        "0.weight > 0.97",
        "2.bias.grad > 17",
        "0.bias.grad < 1e-6",
        "still 2",
        "0.bias still 3",
        "loss rises 2",
        "*.grad > 40",
        "2.*.update > 0.1",
        "update > 0.05",
        "*.bias still 2",
    ),
    "rectified": (
        "dead 1 > 0.9",
        "dead * > 0.8",
        "dead 1 < 0.3",
        "zero",
        "0.weight.grad zero",
        "*.bias.grad < 1e-9",
    ),
    "whole numbers": ("* > 3", "param_norm > 3", "order > 3"),
    "two optimizers": (
        "nonfinite",
        "loss > 1.5",
        "grad_norm > 5",
        "param_norm > 1.3",
        "netG.weight > 1",
        "netG.bias < 0.52",
        "netD.weight.grad < 0.4",
        "netD.bias still",
        "still 3",
        "loss rises 1",
    ),
}


class LedAgent(Agent):
    """An agent whose orders come from a function, and whose messages are kept."""

    def __init__(self, order: Callable[[Stop, Frame], Any]) -> None:
        super().__init__(Path())
        self._connection: Any = self
        self._order = order
        self._decoder = FrameDecoder()
        self.stops: list[tuple[Stop, Frame]] = []
        self.reasons: list[str] = []
        self.pauses_at = sys.maxsize  # the index of the event from which on the pause byte is set
        self._pause: Any = self

    def send(self, message: Any) -> None:
        if isinstance(message, Stop):
            self.stops.append((message, self._decoder.frame(message.line)))

    def give_up(self, reason: str) -> None:
        self.reasons.append(reason)

    def __getitem__(self, index: int) -> int:
        passed = self.phases.passed
        uncounted = len(passed.events) + 1 if passed is not None and passed.events else 0
        return self.phases.counts.index + uncounted >= self.pauses_at

    def poll(self, timeout: float | None) -> bool:
        return True

    def recv(self) -> Any:
        return self._order(*self.stops[-1])

    def _is_read(self, seconds: float = 0.0) -> bool:
        return True


def lead(text: str, folder: Path, agent: LedAgent) -> dict[str, Any]:
    """Run a script from seed 0 under the agent's orders; return its variables."""
    agent.phases = Phases(agent)
    torch.manual_seed(0)
    seams = install(agent.phases)
    try:
        return run_script(text, folder)
    finally:
        seams.uninstall()


def led(text: str, folder: Path, order: Callable[[Stop, Frame], Any]) -> LedAgent:
    """Run a script from seed 0 under the orders of a function."""
    agent = LedAgent(order)
    lead(text, folder, agent)
    assert not agent.reasons, agent.reasons
    return agent


def firings(text: str, folder: Path, armed: tuple[Watchpoint, ...], *, goal: Goal | None) -> list[FiredWatchpoint]:
    """Return where the watchpoints fire, in a run that goes on behind each, free where there is a goal."""

    def order(stop: Stop, frame: Frame) -> GoOn:
        return GoOn(frame.index, goal, 60.0, armed)

    agent = led(text, folder, order)
    assert all(stop.held for stop, _ in agent.stops if stop.fired)
    return [stop.fired for stop, _ in agent.stops if stop.fired]


CASES = [(script, condition) for script, conditions in CONDITIONS.items() for condition in conditions]


@pytest.mark.parametrize(("script", "condition"), CASES)
def test_a_watchpoint_fires_where_it_does_in_a_held_run(script: str, condition: str, tmp_path: Path) -> None:
    armed = (parse_watchpoint(condition),)
    held = firings(SCRIPTS[script], tmp_path, armed, goal=None)
    assert held
    assert held[-1].iteration > 3
    assert firings(SCRIPTS[script], tmp_path, armed, goal=Goal()) == held


@pytest.mark.parametrize("script", SCRIPTS)
def test_several_watchpoints_fire_together_as_in_a_held_run(script: str, tmp_path: Path) -> None:
    armed = tuple(parse_watchpoint(each) for each in CONDITIONS[script] if "still" not in each)
    held = firings(SCRIPTS[script], tmp_path, armed, goal=None)
    assert firings(SCRIPTS[script], tmp_path, armed, goal=Goal()) == held


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_watched_free_run_leaves_the_same_bits(script: str, tmp_path: Path) -> None:
    armed = tuple(map(parse_watchpoint, CONDITIONS[script]))
    agent = LedAgent(lambda stop, frame: GoOn(frame.index, Goal(), 0.001, armed))
    watched = fingerprint(lead(SCRIPTS[script], tmp_path, agent))
    torch.manual_seed(0)
    assert watched == fingerprint(run_script(SCRIPTS[script], tmp_path))


def frames_made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Return a list that takes the iteration and the event of each frame that is made."""
    made: list[tuple[int, str]] = []
    make_frame = Phases.make_frame

    def counted(phases: Phases, name: str) -> Frame:
        made.append((phases.counts.iteration, name))
        return make_frame(phases, name)

    monkeypatch.setattr(Phases, "make_frame", counted)
    return made


def test_a_watched_run_makes_frames_only_where_something_may_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = frames_made(monkeypatch)
    armed = tuple(
        map(
            parse_watchpoint,
            (
                "nonfinite",
                "grad_norm > 1000",
                "param_norm < 0.1",
                "0.weight.grad < 1e-3",
                "*.grad > 1000",
                "dead * > 0.9",
                "zero",
            ),
        )
    )
    led(ACCUMULATION, tmp_path, lambda stop, frame: GoOn(frame.index, Goal(), 60.0, armed))
    assert {iteration for iteration, _ in made} == {0, 1}


def test_a_run_that_watches_for_stillness_makes_frames_from_the_step_before_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = frames_made(monkeypatch)
    ends_early = "    optimizer.param_groups[0]['lr'] = 0.05 * (i < 40)\n    optimizer.step()"
    text = PLAIN.replace("    optimizer.step()", ends_early)
    armed = (parse_watchpoint("still 4"),)
    fired = firings(text, tmp_path, armed, goal=Goal())
    assert [each.iteration for each in fired[:2]] == [44, 48]  # it has moved in the first 40
    usual = {iteration for iteration, _ in made if 1 < iteration <= 48}
    assert usual == {43, 44, 47, 48}
    assert firings(text, tmp_path, armed, goal=None) == fired
    monkeypatch.setattr(script_free_run, "MAX_FRAME_SHARE", 1e9)  # some iterations are shown, and those before followed
    agent = led(text, tmp_path, lambda stop, frame: GoOn(frame.index, Goal(), 0.0005, armed))
    assert [stop.fired for stop, _ in agent.stops if stop.fired] == fired


CLOSURES = """
import torch
from torch import nn
model = nn.Linear(3, 1)
optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
for i in range(12):
    x = torch.randn(6, 3)
    optimizer.param_groups[0]["lr"] = 0.1 * (i < 4)

    def closure():
        optimizer.zero_grad()
        loss = (model(x) - 1).pow(2).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
"""


@pytest.mark.parametrize("stops_held", [(), (7, 8), (52, 53, 54)])
def test_a_step_within_which_a_run_pauses_is_counted_for_stillness(stops_held: tuple[int, ...], tmp_path: Path) -> None:
    armed = tuple(map(parse_watchpoint, ("weight still 3", "loss rises 1")))
    fired = []
    for goal in (None, Goal()):

        def order(stop: Stop, frame: Frame, goal: Goal | None = goal) -> GoOn:
            return GoOn(frame.index, None if frame.index in stops_held else goal, 60.0, armed)

        agent = led(CLOSURES, tmp_path, order)
        fired.append([str(stop.fired) for stop, _ in agent.stops if stop.fired])
    assert fired[0] == fired[1]
    assert any("weight has not changed" in each for each in fired[0])


def test_a_step_within_which_frames_are_due_is_counted_for_stillness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script_free_run, "MAX_FRAME_SHARE", 1e9)  # frames come as often as they are asked for
    armed = (parse_watchpoint("weight still 3"),)
    held = firings(CLOSURES, tmp_path, armed, goal=None)
    for every in (0.0, 0.0003, 0.001):

        def order(stop: Stop, frame: Frame, every: float = every) -> GoOn:
            return GoOn(frame.index, Goal(), every, armed)

        agent = led(CLOSURES, tmp_path, order)
        assert [stop.fired for stop, _ in agent.stops if stop.fired] == held


# Where runs end, and which frames come.

PLAIN = """
import torch
from torch import nn
model = nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.ones(4, 1), torch.full((4, 1), 3.0)
for i in range(300):
    loss = (model(x) - y).pow(2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def runs(text: str, folder: Path, *orders: Any) -> tuple[LedAgent, list[Frame]]:
    """Run a script under these orders, one at each held stop, and detach; return the frames where it was held."""
    waiting = list(orders)

    def order(stop: Stop, frame: Frame) -> Any:
        return waiting.pop(0)(frame) if waiting else Detach()

    agent = led(text, folder, order)
    return agent, [frame for stop, frame in agent.stops if stop.held]


def until(goal: Goal, every: float = 60.0) -> Callable[[Frame], GoOn]:
    return lambda frame: GoOn(frame.index, goal, every)


def test_a_run_of_iterations_ends_at_the_last_ones_last_event(tmp_path: Path) -> None:
    agent, held = runs(PLAIN, tmp_path, until(Goal(50)), until(Goal(51)), until(Goal(53)))
    assert [(each.iteration, str(each.command)) for each in held] == [(0, "None"), (50, "z"), (51, "z"), (53, "z")]
    shown = [frame.iteration for _, frame in agent.stops]
    assert [shown.count(each) for each in (1, 2, 49, 50, 51, 52, 53)] == [4, 0, 0, 4, 4, 0, 4]
    last = agent.stops[-3][1]
    assert (str(last.command), last.prediction is not None) == ("b", True)


def test_a_run_ends_at_a_loss_where_a_held_one_would(tmp_path: Path) -> None:
    agent, _ = runs(PLAIN, tmp_path, *[lambda frame: GoOn(frame.index)] * 200)
    first = next(frame for _, frame in agent.stops if frame.loss is not None and frame.loss < 0.01)
    _, held = runs(PLAIN, tmp_path, until(Goal(below=0.01)))
    assert (held[-1].index, held[-1].loss) == (first.index, first.loss)


def test_every_loss_reaches_the_plot_also_those_before_the_end(tmp_path: Path) -> None:
    agent = led(PLAIN, tmp_path, lambda stop, frame: GoOn(frame.index, Goal(), 0.01))
    agent.phases.count_passed()
    losses = [point for stop, _ in agent.stops for point in stop.losses.points()] + agent._losses.take().points()
    brought = {frame.index: frame.loss for _, frame in agent.stops if frame.phase is Phase.FORWARD}
    brought |= {point.index: point.value for point in losses}
    assert sorted(brought) == list(range(1, 1201, 4))
    assert brought[1197] == pytest.approx(0, abs=1e-3)


def test_an_iteration_is_shown_whole_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script_free_run, "MAX_FRAME_SHARE", 1e9)
    agent = led(PLAIN, tmp_path, lambda stop, frame: GoOn(frame.index, Goal(), 0.001))
    shown = [frame.iteration for stop, frame in agent.stops if not stop.held]
    counts = {each: shown.count(each) for each in shown if each > 1}
    assert 2 < len(counts) < 100
    assert set(counts.values()) == {4}


def test_a_pause_holds_at_the_next_event(tmp_path: Path) -> None:
    agent = LedAgent(lambda stop, frame: Detach() if frame.index > 0 else GoOn(frame.index, Goal(), 60.0))
    agent.pauses_at = 402
    lead(PLAIN, tmp_path, agent)
    held = [frame for stop, frame in agent.stops if stop.held]
    assert [(each.index, str(each.command)) for each in held] == [(0, "None"), (402, "b")]
    assert held[-1].grads.backwards == (1, 1)
    assert len(agent.stops) == 6


def test_a_script_whose_iterations_do_not_end_is_not_slowed_down(tmp_path: Path) -> None:
    script = """
    import torch
    w = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1)
    for i in range(1000):
        w.pow(2).sum().backward()
        w.grad = None
    """
    agent = led(script, tmp_path, lambda stop, frame: GoOn(frame.index, Goal(), 60.0))
    assert {frame.iteration for _, frame in agent.stops} == {0, 1}
    assert len(agent.stops) < 300


def test_losses_of_an_accelerator_are_copied_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "is_cpu", False)
    record = LossRecord()
    for index in range(300):
        assert record.add(index, index + 1, torch.tensor(float(index), requires_grad=True)) is None
    assert record.take().values.tolist() == [float(index) for index in range(300)]
    assert len(record.take()) == 0


# A free run that ends with the script.

SKIPPED = """
import torch
from torch import nn
model = nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
for i in range(40):
    loss = model(torch.ones(4, 1)).mean() * (float("inf") if i > 37 else 1.0)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
"""


def last_stop(text: str, folder: Path, forget: tuple[str, ...] = ()) -> tuple[LedAgent, Frame]:
    """Run a script freely, drop some of its variables, and have its end said; return the last frame that came."""
    agent = LedAgent(lambda stop, frame: GoOn(frame.index, Goal(), 60.0))
    variables = lead(text, folder, agent)
    for name in forget:
        del variables[name]
    agent._say_end()
    return agent, agent.stops[-1][1]


def test_the_last_event_is_shown_at_the_end(tmp_path: Path) -> None:
    _, frame = last_stop(PLAIN, tmp_path)
    assert (frame.index, frame.iteration, frame.steps, str(frame.command)) == (1200, 300, 300, "z")
    assert frame.script is not None
    assert frame.script.at_end
    assert not any(frame.grads.backwards)
    held = led(PLAIN, tmp_path, lambda stop, frame: GoOn(frame.index)).stops[-1][1]
    assert (frame.params, frame.loss, frame.loss_is_old) == (held.params, held.loss, True)


def test_a_step_left_out_at_the_end_is_not_shown_as_a_step(tmp_path: Path) -> None:
    _, frame = last_stop(SKIPPED, tmp_path)
    assert frame.script is not None
    assert (frame.index, frame.steps, frame.script.skipped, frame.mover) == (160, 38, True, None)
    assert frame.loss_is_old is False


@pytest.mark.parametrize("gone", ["model", "optimizer"])
def test_nothing_is_shown_where_something_is_gone(gone: str, tmp_path: Path) -> None:
    agent, frame = last_stop(PLAIN.replace("x, y", "kept = [*model.parameters()]\nx, y"), tmp_path, (gone,))
    assert frame.index < 1200
    assert not any(frame.script and frame.script.at_end for _, frame in agent.stops)


# A screen that does not read.

WIDE = """
import torch
from torch import nn
model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(20)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
for i in range(60):
    loss = model(torch.randn(2, 4)).pow(2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def test_a_free_run_does_not_wait_for_a_screen_that_does_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script_free_run, "MAX_FRAME_SHARE", 1e9)
    monkeypatch.setattr(script_agent, "END_SECONDS", 0.01)
    ours, theirs = socket.socketpair()

    class UnreadAgent(Agent):
        """An agent whose screen lets it run, and then is stopped."""

        def __init__(self) -> None:
            super().__init__(Path())
            self._connection = Connection(ours.detach())

    agent = UnreadAgent()
    agent.phases = Phases(agent)
    with Connection(theirs.detach()) as screen:
        screen.send(GoOn(0))
        screen.send(GoOn(1, Goal(), 0.0))
        torch.manual_seed(0)
        seams = install(agent.phases)
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.alarm(60)  # a hang would end here
        try:
            variables = run_script(WIDE, tmp_path)
            agent._say_end()
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
            seams.uninstall()
        bits = fingerprint(variables)
        messages: list[Any] = []
        while screen.poll(0):
            messages.append(screen.recv())
    agent.detach()
    decoder = FrameDecoder()
    frames = [decoder.frame(each.line) for each in messages if isinstance(each, Stop)]
    assert 4 <= len(frames) < 200
    assert frames[-1].index < 240
    ended = messages[-1]
    assert isinstance(ended, Ended)
    assert (ended.index, agent.is_over) == (240, True)
    losses = {number for each in messages if isinstance(each, (Stop, Ended)) for number in each.losses.iterations}
    assert losses | {frame.iteration for frame in frames if frame.phase is Phase.FORWARD} == set(range(1, 61))
    torch.manual_seed(0)
    assert fingerprint(run_script(WIDE, tmp_path)) == bits
