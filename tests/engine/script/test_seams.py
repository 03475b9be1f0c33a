"""Seams in a script of each shape: which events come, in which order, and that the script does not feel them."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.wire import FrameDecoder, FrameEncoder
from autograd_tui.engine.script.loop_phases import Phases
from autograd_tui.text.explain_script import explain_script
from script_recorder import RecordingAgent, ends_the_same, recorded, run_script, script_text, seams_on, stops

SIMPLE = """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
criterion = nn.MSELoss()
for epoch in range(3):
    x, y = torch.randn(8, 3), torch.randn(8, 1)
    optimizer.zero_grad()
    loss = criterion(model(x), y)
    loss.backward()
    optimizer.step()
"""

ITERATIONS = {  # the events of each script, by iteration; those before the first forward come first
    "accumulation": ["FBFBUCSZL"] * 3,
    "checkpointing": ["Z", "FBSZ", "FBSZ", "FBS"],
    "closure": ["Z", "FBZFBZFBZFBSZ", "FBZFBZFBZFBS"],
    "gan": ["Z", "FBFBSZFBSZ", "FBFBSZFBSZ", "FBFBSZFBS"],
    "gradient_penalty": ["GZ", "FBSGZ", "FBSGZ", "FBS"],
    "manual_update": ["FB", "FBB", "FB"],
    "reinforcement": ["Z", "FBSZ", "FBSZ", "FBSZ", "FBS"],
    "schedulers": ["ZZ", "FBSSLZZ", "FBSSLLLZZ", "FBSSLZZ", "FBSSLLL"],
    "trainer_class": ["Z", "FBCSLZ", "FBCSLZ", "FBCSL"],
}


def test_a_simple_loop(tmp_path: Path) -> None:
    agent, _ = recorded(SIMPLE, tmp_path)
    assert agent.by_iteration() == ["Z", "FBSZ", "FBSZ", "FBS"]
    assert [frame.index for frame in agent.frames] == list(range(13))
    first, zero, forward, backward, step = agent.frames[:5]
    assert (first.command, first.params, first.iteration) == (None, zero.params, 0)
    assert (forward.graph, backward.graph) == ("alive", "freed")
    shapes = [row and row.shape for row in (forward.prediction, forward.inputs, forward.targets)]
    assert shapes == [(8, 1), (8, 3), (8, 1)]
    assert not forward.loss_is_old
    assert (set(backward.grads.backwards), set(backward.grads.used), set(step.grads.used)) == ({1}, {False}, {True})
    assert step.before is forward.params
    assert step.loss_is_old
    assert (step.optimizer, step.learning_rate, step.steps) == ("adam", 0.01, 1)
    assert [row.name for row in step.params][:2] == ["0.weight", "0.bias"]


def test_a_stop_says_on_which_devices_the_parameters_are(tmp_path: Path) -> None:
    spare = "model.spare = nn.Parameter(torch.empty(2, device='meta'))\noptimizer ="
    for script, device in ((SIMPLE, "cpu"), (SIMPLE.replace("optimizer =", spare), "cpu, meta")):
        agent, _ = recorded(script, tmp_path)
        assert {stop.device for stop in stops(agent)} == {device}


def test_a_stop_is_named_in_the_words_of_the_script(tmp_path: Path) -> None:
    agent, _ = recorded(SIMPLE, tmp_path)
    zero, forward, backward, step = stops(agent)[1:5]
    calls = [each.call for each in (zero, forward, backward, step)]
    assert calls == ["optimizer.zero_grad", "loss.backward", "loss.backward", "optimizer.step"]
    assert step.source[step.line - step.first_line] == "    optimizer.step()"
    assert (forward.models, backward.models) == (("model",), ("model",))
    assert (step.optimizer, step.steps) == ("optimizer", (("optimizer", 1),))


@pytest.mark.parametrize("name", ITERATIONS)
def test_the_events_of_a_script_and_its_end(name: str, tmp_path: Path) -> None:
    """The same events, numbers and bits come out held, free and without seams; and every frame can be sent."""
    text = script_text(name)
    held, _ = recorded(text, tmp_path)
    free, _ = recorded(text, tmp_path, wants=lambda phases, name: False, frames=False)
    assert held.by_iteration() == ITERATIONS[name]
    assert held.events == free.events
    assert ends_the_same(text, tmp_path)
    encoder, decoder = FrameEncoder(), FrameDecoder()
    for frame in held.frames:
        assert decoder.frame(encoder.line(frame)).same(frame)


def test_a_scaled_loss_is_shown_as_it_was_and_a_skipped_step_is_none(tmp_path: Path) -> None:
    agent, _ = recorded(script_text("accumulation"), tmp_path)
    forward = agent.frames[1]
    assert forward.script is not None
    assert forward.loss is not None
    assert forward.script.scaled_loss == pytest.approx(256 * forward.loss)
    steps = [frame for frame in agent.frames if frame.phase and frame.phase.value == "step"]
    assert [frame.script.skipped for frame in steps if frame.script] == [False, True, False]
    assert [frame.steps for frame in steps] == [1, 1, 2]
    assert steps[1].before is None
    assert not any(steps[1].grads.used)
    clip = next(frame.script for frame in agent.frames if frame.command and frame.command.name == "clip")
    assert clip is not None
    assert (clip.max_norm, clip.norm) == (0.5, pytest.approx(1.11774, rel=1e-4))
    scaled = [frame for frame in agent.frames if frame.script and frame.script.scaled_loss]  # a scaler still watches
    assert {frame.command.name for frame in scaled if frame.command} == {"forward", "backward", "unscale", "clip"}


def test_two_models_stand_in_one_frame(tmp_path: Path) -> None:
    agent, _ = recorded(script_text("gan"), tmp_path)
    names = agent.frames[0].params.layout.names
    assert (names[0], names[-1]) == ("netG.main.0.weight", "netD.main.2.bias")
    first, step_d, step_g = (stops(agent)[index] for index in (2, 6, 10))
    assert first.models == ("netD",)
    assert (step_d.optimizer, step_d.steps) == ("optimizerD", (("optimizerD", 1), ("optimizerG", 0)))
    assert (step_g.optimizer, step_g.models) == ("optimizerG", ("netG", "netD"))
    assert agent.frames[9].grads.backwards == (1,) * 6 + (3,) * 4  # netD's are not cleared in between
    groups = agent.frames[0].groups
    assert groups is not None
    assert groups.of == (1,) * 6 + (0,) * 4


def test_what_no_seam_shows_is_told_at_the_next_stop(tmp_path: Path) -> None:
    agent, _ = recorded(script_text("manual_update"), tmp_path)
    assert agent.frames[0].params.layout.names == ("w", "b")
    forward = stops(agent)[3]
    assert (forward.moved_by_hand, forward.cleared_by_hand) == (("w", "b"), ("w", "b"))
    assert (agent.frames[4].graph, agent.frames[5].graph) == ("alive", "freed")  # retain_graph, and a second backward
    assert agent.frames[5].grads.backwards == (2, 2)
    assert agent.frames[5].added_to is not None


def test_a_closure_says_what_it_is_inside_of(tmp_path: Path) -> None:
    agent, _ = recorded(script_text("closure"), tmp_path)
    inside = [stop.inside for stop in stops(agent)]
    assert inside[1:13] == [("optimizer.step",)] * 12
    assert inside[13] == ()
    assert not any(stop.moved_by_hand for stop in stops(agent))


@pytest.mark.parametrize("followed", [False, True])
def test_a_frame_behind_a_free_run_is_true(followed: bool, tmp_path: Path) -> None:
    """Whichever event it is that a free run ends at, its gradients are counted, and nothing older is told."""
    text = SIMPLE.replace("range(3)", "range(4)")
    whole, _ = recorded(text, tmp_path)
    for index in range(5, 13):

        def wants(phases: Phases, name: str, at: int = index) -> bool:
            phases.frames |= followed and phases.counts.index >= at
            return phases.counts.index >= at

        agent, _ = recorded(text, tmp_path, wants=wants, frames=False)
        for frame in agent.frames[1:]:
            other = whole.frames[frame.index]
            assert (frame.params, frame.optimizer_state) == (other.params, other.optimizer_state)
            assert (frame.grads.backwards, frame.grads.used) == (other.grads.backwards, other.grads.used)
            assert (frame.iteration, frame.steps, frame.command) == (other.iteration, other.steps, other.command)
            assert (frame.loss, frame.loss_steps, frame.loss_is_old) == (
                other.loss,
                other.loss_steps,
                other.loss_is_old,
            )
            forward = (frame.index - 2) // 4 * 4 + 2
            assert (frame.loss_params is None) == (index >= forward + 2)  # a step has moved the parameters since
            assert frame.script is not None
            assert not frame.script.moved_by_hand


NAMES = """
import torch
from torch import nn

class Trainer:
    def __init__(self):
        self.net = nn.Linear(2, 1)
        self.opt = torch.optim.SGD(self.net.parameters(), lr=0.1)

    def step(self, x):
        self.opt.zero_grad()
        self.net(x).sum().backward()
        self.opt.step()

trainer = Trainer()
for _ in range(2):
    trainer.step(torch.randn(3, 2))
"""


def test_models_in_an_object_are_named_by_its_attributes(tmp_path: Path) -> None:
    agent, _ = recorded(NAMES, tmp_path)
    assert agent.by_iteration() == ["Z", "FBSZ", "FBS"]
    assert stops(agent)[2].models == ("net",)
    assert stops(agent)[4].optimizer == "opt"
    assert stops(agent)[2].call == "self.net(x).sum().backward"
    assert stops(agent)[2].function == "Trainer.step"


WRAPPED = """
import torch
from torch import nn

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.frozen(self.embed(x)))

lm = nn.DataParallel(Tied())
scale = torch.ones((), requires_grad=True)
opt = torch.optim.SGD([*lm.parameters(), scale], lr=0.1)
for _ in range(2):
    (lm(torch.tensor([0, 1])).square().sum() * scale).backward()
    opt.step()
    opt.zero_grad()
"""


def test_wrapped_tied_frozen_and_bare_parameters(tmp_path: Path) -> None:
    agent, _ = recorded(WRAPPED, tmp_path)
    backward = agent.frames[2]
    assert backward.params.layout.names == ("embed.weight", "frozen.weight", "frozen.bias", "scale")
    assert backward.frozen == {1, 2}
    assert backward.grads.backwards == (1, 0, 0, 1)
    assert not backward.unused
    assert stops(agent)[1].models == ("lm",)


def test_a_scheduler_of_ones_own_is_heard_but_not_where_it_is_made(tmp_path: Path) -> None:
    text = """
    import torch
    w = torch.nn.Parameter(torch.ones(2))
    opt = torch.optim.SGD([w], lr=1.0)

    class Half(torch.optim.lr_scheduler.LRScheduler):
        def get_lr(self):
            return [group["lr"] / 2 for group in self.optimizer.param_groups]

        def step(self, epoch=None):
            super().step(epoch)

    schedules = [Half(opt), torch.optim.lr_scheduler.ReduceLROnPlateau(opt)]
    for _ in range(2):
        w.sum().backward()
        opt.step()
        schedules[0].step()
    """
    agent, _ = recorded(text, tmp_path)
    assert agent.by_iteration() == ["FBSL", "FBSL"]
    assert agent.frames[4].learning_rate == agent.frames[3].learning_rate / 2


def test_what_a_script_raises_passes_and_leaves_nothing_open(tmp_path: Path) -> None:
    text = """
    import torch
    w = torch.nn.Parameter(torch.ones(2))
    opt = torch.optim.LBFGS([w])

    def broken():
        raise KeyError("mine")

    def closure():
        opt.zero_grad()
        loss = w.square().sum()
        loss.backward()
        return loss

    try:
        opt.step(broken)
    except KeyError:
        pass
    loss = w.sum()
    loss.backward()
    try:
        (w * w).sum().backward(torch.ones(3))
    except RuntimeError:
        pass
    opt.zero_grad()
    opt.step(closure)
    """
    agent, _ = recorded(text, tmp_path)
    assert agent.letters[:4] == "FBFZ"
    assert stops(agent)[1].inside == ()
    assert stops(agent)[-1].inside == ()


MODES = """
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

class Counts(TorchDispatchMode):
    calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        Counts.calls += 1
        return func(*args, **(kwargs or {}))

class Functions(TorchFunctionMode):
    calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        Functions.calls += 1
        return func(*args, **(kwargs or {}))

model = torch.nn.Sequential(torch.nn.Linear(3, 40), torch.nn.Linear(40, 2))
opt = torch.optim.Adam(model.parameters())
with Counts(), Functions(), torch.autograd.set_detect_anomaly(True):
    for _ in range(2):
        opt.zero_grad()
        model(torch.randn(4, 3)).square().mean().backward()
        opt.step()
counts = [Counts.calls, Functions.calls]
"""


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_modes_of_the_scripts_own_see_nothing_of_it(tmp_path: Path) -> None:
    assert ends_the_same(MODES, tmp_path)


class FailingAgent(RecordingAgent):
    def lets_pass(self, phases: Any, name: str) -> bool:
        super().lets_pass(phases, name)
        if name == "backward":
            raise ValueError("ours")
        return False


def test_a_seam_that_fails_turns_all_off_and_the_script_goes_on(tmp_path: Path) -> None:
    agent = FailingAgent()
    with seams_on(agent):
        variables = run_script(SIMPLE, tmp_path)
    assert agent.letters == "ZFB"
    assert len(agent.reasons) == 1
    assert "ValueError: ours" in agent.reasons[0]
    assert variables["epoch"] == 2


def test_a_keyboard_interrupt_while_held_is_the_scripts(tmp_path: Path) -> None:
    class Interrupted(RecordingAgent):
        def stop(self, frame: Frame) -> None:
            super().stop(frame)
            if frame.index == 2:
                raise KeyboardInterrupt

    text = SIMPLE.replace(
        "    loss.backward()", "    try:\n        loss.backward()\n    except KeyboardInterrupt:\n        continue"
    )
    agent = Interrupted()
    with seams_on(agent):
        run_script(text, tmp_path)
    assert agent.letters == "ZF" + "ZFBS" * 2
    assert not agent.reasons


def train_once() -> None:
    w = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([w], lr=0.1)
    w.sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_only_the_first_thread_that_trains_is_heard() -> None:
    agent = RecordingAgent()
    with seams_on(agent):
        train_once()
        thread = threading.Thread(target=train_once)
        thread.start()
        thread.join()
    assert agent.letters == "FBSZ"


def test_transforms_of_functions_are_not_heard() -> None:
    agent = RecordingAgent()
    with seams_on(agent):
        torch.func.grad(lambda x: x.square().sum())(torch.ones(2))
        torch.func.vmap(torch.func.grad(lambda x: x.square().sum()))(torch.ones(2, 2))
    assert not agent.events
    assert not agent.reasons


TWO_LOOPS = {
    "one behind the other": ("for _ in range(2):\n    one()\nfor _ in range(3):\n    two()", ["1"] * 2 + ["2"] * 3),
    "in functions": (
        "def first():\n    for _ in range(2):\n        one()\n"
        "def second():\n    for _ in range(3):\n        two()\n"
        "first()\nsecond()",
        ["1"] * 2 + ["2"] * 3,
    ),
    "two turns of one": ("for _ in range(2):\n    one()\n    two()", ["12"] * 2),
    "one inside": ("for _ in range(2):\n    for _ in range(3):\n        one()\n    two()", [*"11", "12"] * 2),
    "one inside, in a function": (
        "def inner():\n    for _ in range(3):\n        one()\nfor _ in range(2):\n    inner()\n    two()",
        [*"11", "12"] * 2,
    ),
    "no loop": ("one()\ntwo()\ntwo()", ["122"]),
}


@pytest.mark.parametrize("name", TWO_LOOPS)
def test_a_loop_behind_another_begins_an_iteration(name: str, tmp_path: Path) -> None:
    text, iterations = TWO_LOOPS[name]
    for loss, word in ((1, "one()"), (2, "two()")):
        text = text.replace(word, f"(w * {loss}).sum().backward(); optimizer.step(); optimizer.zero_grad()")
    begin = "import torch\nw = torch.zeros(1, requires_grad=True)\noptimizer = torch.optim.SGD([w], lr=0.1)\n"
    agent = RecordingAgent()
    with seams_on(agent):
        run_script(begin + text, tmp_path)
    calls: dict[int, str] = {}
    for frame in agent.frames:
        if frame.phase is Phase.BACKWARD:
            grad = frame.grads.table[0].values
            assert grad is not None
            calls[frame.iteration] = calls.get(frame.iteration, "") + f"{grad[0]:.0f}"
    assert list(calls.values()) == iterations
    assert not agent.reasons


def test_the_stack_of_transforms_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each backward copies that stack from then on, also an empty one."""
    looks: list[None] = []
    monkeypatch.setattr(torch._C._functorch, "peek_interpreter_stack", lambda: looks.append(None))
    agent = RecordingAgent()
    with seams_on(agent):
        nn.Linear(1, 1)(torch.ones(1, 1)).sum().backward()
        train_once()
    assert agent.letters == "FBFBSZ"
    assert not looks


def test_nothing_of_the_scripts_is_kept() -> None:
    agent = RecordingAgent(wants=lambda phases, name: True)
    with seams_on(agent):
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss = model(torch.ones(1, 2)).sum()
        loss.backward()
        optimizer.step()
        alive = [weakref.ref(each) for each in (model, optimizer, loss, model.weight)]
        del model, optimizer, loss
        gc.collect()
        assert [each() for each in alive] == [None] * 4


def test_local_variables_are_not_kept_nor_given_out(tmp_path: Path) -> None:
    text = """
    import torch, weakref

    def train():
        settings = locals()
        w = torch.nn.Parameter(torch.ones(2))
        opt = torch.optim.SGD([w], lr=0.1)
        big = torch.ones(4)
        gone = weakref.ref(big)
        loss = w.sum()
        loss.backward()
        opt.step()
        del big
        return dict(settings), gone()

    def quiet():
        w = torch.nn.Parameter(torch.ones(2))
        opt = torch.optim.SGD([w], lr=0.1)
        big = torch.ones(4)
        gone = weakref.ref(big)
        w.sum().backward()
        del big
        return gone()

    result = train()
    kept = quiet()
    """
    _, variables = recorded(text, tmp_path)
    assert variables["result"] == ({}, None)
    assert variables["kept"] is None


SURROUNDINGS = """
import torch
from torch import nn
torch.set_default_dtype(torch.float64)
model = nn.Linear(3, 2)
opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
with torch.autocast("cpu", dtype=torch.bfloat16), torch.device("cpu"):
    for _ in range(2):
        opt.zero_grad()
        loss = model(torch.randn(4, 3)).float().square().mean()
        loss.backward()
        with torch.no_grad():
            opt.step()
with torch.inference_mode():
    opt.zero_grad()
torch.set_default_dtype(torch.float32)
"""


def test_grad_mode_autocast_and_dtype_around_a_stop_change_nothing(tmp_path: Path) -> None:
    try:
        assert ends_the_same(SURROUNDINGS, tmp_path)
        agent, _ = recorded(SURROUNDINGS, tmp_path)
    finally:
        torch.set_default_dtype(torch.float32)
    assert agent.frames[3].params[0].dtype == "float64"


LIBRARY = """
def fit(model, optimizer, batches):
    for batch in batches:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
"""


def test_the_loop_of_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "loops_of_others.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(str(folder))
    text = """
    import torch
    from loops_of_others import fit
    net = torch.nn.Linear(2, 1)
    fit(net, torch.optim.AdamW(net.parameters()), torch.randn(2, 4, 2))
    """
    agent, _ = recorded(text, tmp_path)
    assert agent.by_iteration() == ["Z", "FBSZ", "FBS"]
    step = stops(agent)[4]
    assert (step.call, step.line, step.optimizer, step.models) == ("optimizer.step", 5, "adamw", ("net",))
    assert step.library == (str(folder / "loops_of_others.py"), 6)


def test_a_model_is_known_from_its_zero_grad_on(tmp_path: Path) -> None:
    agent, _ = recorded(
        """
        import torch
        from torch import nn

        def train():
            net = nn.Linear(3, 1)
            net.eval()
            for _ in range(2):
                net.zero_grad()
                net(torch.randn(4, 3)).mean().backward()
                for param in net.parameters():
                    param.data.add_(param.grad, alpha=-0.1)

        train()
        """,
        tmp_path,
    )
    assert {frame.params.layout.names for frame in agent.frames} == {("weight", "bias")}
    assert stops(agent)[2].models == ("net",)
    assert [stop.moved_by_hand for stop in stops(agent)] == [(), (), (), (), ("weight", "bias"), (), ()]


def test_what_moves_inside_a_step_is_moved_by_the_step(tmp_path: Path) -> None:
    agent, _ = recorded(
        """
        import torch

        w = torch.ones(2, requires_grad=True)
        optimizer = torch.optim.LBFGS([w], max_iter=3)

        def closure():
            optimizer.zero_grad()
            loss = (w - torch.tensor([2.0, 3.0])).pow(4).sum()
            loss.backward()
            return loss

        for _ in range(2):
            optimizer.step(closure)
        """,
        tmp_path,
    )
    assert [stop.moved_by_hand for stop in stops(agent)] == [()] * len(agent.frames)
    assert {stop.inside for stop in stops(agent)} == {(), ("optimizer.step",)}


def test_a_model_made_anew_is_no_other_that_moved(tmp_path: Path) -> None:
    text = """
    import torch
    for fold in range(2):
        model = torch.nn.Linear(2, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            opt.zero_grad()
            model(torch.ones(3, 2)).sum().backward()
            opt.step()
    """
    agent, _ = recorded(text, tmp_path)
    assert not any(stop.moved_by_hand for stop in stops(agent))
    assert [stop.steps for stop in stops(agent)][8:10] == [(("opt", 2),), (("opt", 0),)]
    assert [frame.loss is None for frame in agent.frames[8:11]] == [False, True, False]


def test_a_leaf_that_a_model_is_called_with_is_no_parameter(tmp_path: Path) -> None:
    text = """
    import torch
    model = torch.nn.Linear(2, 1)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        x = torch.randn(3, 2, requires_grad=True)
        model(x).sum().backward()
        attacked = (x + 0.1 * x.grad.sign()).detach()
        opt.zero_grad()
        model(attacked).sum().backward()
        opt.step()
    """
    agent, _ = recorded(text, tmp_path)
    assert agent.by_iteration() == ["FBZFBS", "FBZFBS"]
    assert {frame.params.layout.names for frame in agent.frames} == {("weight", "bias")}


def test_models_in_a_dict_are_named_by_their_places(tmp_path: Path) -> None:
    text = """
    import torch
    nets = {"one": torch.nn.Linear(2, 1), "two": torch.nn.Linear(2, 1)}

    class Downhill(torch.optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr, "extra": object()})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for param in group["params"]:
                    param.sub_(param.grad, alpha=group["lr"])

    def main():
        optimizers = [Downhill(each.parameters(), 0.1) for each in nets.values()]
        for net, optimizer in zip(nets.values(), optimizers):
            out = net(torch.ones(3, 2))
            torch.autograd.backward([out.sum(), out.mean()])
            optimizer.step()

    main()
    """
    agent, _ = recorded(text, tmp_path)
    assert agent.letters == "FBSFBS"
    assert stops(agent)[4].models == ("nets['two']",)
    assert (stops(agent)[3].optimizer, stops(agent)[6].optimizer) == ("optimizers[0]", "optimizers[1]")
    forward = agent.frames[1]
    assert (forward.loss, forward.optimizer) == (None, "downhill")  # two losses are not one number


def test_a_step_that_a_fused_optimizer_left_out_is_none(tmp_path: Path) -> None:
    text = """
    import torch
    w = torch.nn.Parameter(torch.ones(2))
    opt = torch.optim.Adam([w], fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor in (1.0, float("inf")):
        opt.zero_grad()
        scaler.scale((w * factor).sum()).backward()
        scaler.step(opt)
        scaler.update()
    """
    agent, _ = recorded(text, tmp_path)
    assert agent.by_iteration() == ["Z", "FBSZ", "FBS"]
    assert [stop.skipped for stop in stops(agent)][4::4] == [False, True]
    assert agent.frames[-1].steps == 1


@pytest.mark.usefixtures("compiler_counters")
def test_a_compiled_model_is_stepped_without_a_warning(tmp_path: Path) -> None:
    text = """
    import torch, warnings
    warnings.filterwarnings("error", message="Using .torch.compile")
    model = torch.nn.Linear(3, 1)
    compiled = torch.compile(model, backend="eager")
    opt = torch.optim.SGD(compiled.parameters(), lr=0.1)
    for _ in range(2):
        compiled(torch.ones(2, 3)).sum().backward()
        opt.step()
        opt.zero_grad()
    """
    agent, _ = recorded(text, tmp_path)
    assert agent.by_iteration() == ["FBSZ", "FBSZ"]
    assert agent.frames[1].params.layout.names == ("weight", "bias")
    assert ends_the_same(text, tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_tells_nothing() -> None:
    agent = RecordingAgent()
    w = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([w], lr=0.1)
    with seams_on(agent):
        optimizer.zero_grad()
        child = os.fork()
        if not child:
            optimizer.zero_grad()
            optimizer.step()
            os._exit(len(agent.events))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        optimizer.zero_grad()
    assert agent.letters == "ZZ"


CALLS = """
import torch
w = torch.nn.Parameter(torch.ones(3, 3))
optimizers = {"main": torch.optim.SGD([w], lr=0.1)}
def total(*numbers):
    return sum(each.sum() for each in numbers)
(
    total(
        w,
        w
    )
    .backward()
)
(lambda: optimizers["main"].step())()
total(w, w * 2.0, w * 3.0, w * 4.0, w * 5.0, w * 6.0, w * 7.0).backward(); optimizers["main"].zero_grad()
"""


def test_a_call_is_read_from_its_line(tmp_path: Path) -> None:
    agent, _ = recorded(CALLS, tmp_path)
    calls = [stop.call for stop in stops(agent)[1:]]
    assert calls[:3] == ["total(w, w).backward", "total(w, w).backward", "optimizers['main'].step"]
    assert calls[3:] == ["total(...).backward", "total(...).backward", "optimizers['main'].zero_grad"]


def test_zeros_that_a_backward_or_a_clip_makes_are_cleared_by_nobody(tmp_path: Path) -> None:
    agent, _ = recorded(
        """
        import torch

        w = torch.ones(2, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=0.1)
        for scale in (1.0, 0.0, float("inf")):
            optimizer.zero_grad(set_to_none=False)
            loss = (w * torch.tensor([0.0, scale])).sum()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([w], 1.0)
            optimizer.step()
            with torch.no_grad():
                w.fill_(1.0)
        w.grad.zero_()
        optimizer.step()
        """,
        tmp_path,
    )
    assert [stop.cleared_by_hand for stop in stops(agent)] == [()] * 16 + [("w",)]
    assert [set(frame.grads.backwards) for frame in agent.frames[-3:]] == [{1}, {1}, {1}]
    assert agent.frames[-1].grads.norm() == 0.0


def test_gradients_that_are_filled_with_zeros_are_shown_as_zeros_and_not_added_to(tmp_path: Path) -> None:
    text = """
    import torch
    w = torch.nn.Parameter(torch.ones(2))
    opt = torch.optim.SGD([w], lr=0.1)
    for by_hand in (False, False, True):
        if by_hand:
            w.grad.zero_()
        else:
            opt.zero_grad(set_to_none=False)
        w.square().sum().backward()
        opt.step()
    """
    agent, _ = recorded(text, tmp_path)
    assert agent.by_iteration() == ["Z", "FBSZ", "FBS", "FBS"]
    cleared, backward = agent.frames[5], agent.frames[7]
    assert (cleared.grads.norm(), cleared.grads.used) == (0.0, (False,))
    assert (backward.grads.backwards, backward.added_to, backward.grads_params is backward.loss_params) == (
        (1,),
        None,
        True,
    )
    assert stops(agent)[9].cleared_by_hand == ("w",)
    assert agent.frames[9].grads.norm() == 0.0
    assert (agent.frames[10].grads.backwards, agent.frames[10].added_to) == ((1,), None)
    assert "filled with zeros" in " ".join(explain_script(agent.frames[9], stops(agent)[9]))


def test_what_pytorch_warns_of_is_the_scripts_line(tmp_path: Path) -> None:
    text = """
        import torch

        w = torch.ones(2, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        schedule.step()
    """
    with pytest.warns(UserWarning, match="before `optimizer.step") as heard:
        recorded(text, tmp_path)
    assert [(Path(each.filename).name, each.lineno) for each in heard] == [("train.py", 7)]


def test_a_step_that_a_hook_takes_in_a_backward_is_counted_and_is_no_move_by_hand(tmp_path: Path) -> None:
    agent, _ = recorded(
        """
        import torch

        w = torch.ones(2, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=0.1)

        def step(w):
            optimizer.step()
            optimizer.zero_grad()

        w.register_post_accumulate_grad_hook(step)
        for _ in range(3):
            loss = w.square().sum()
            loss.backward()
        """,
        tmp_path,
    )
    assert agent.by_iteration() == ["FB", "FB", "FB"]
    assert {stop.moved_by_hand for stop in stops(agent)} == {()}
    assert (stops(agent)[-1].steps, stops(agent)[-1].backwards) == ((("optimizer", 3),), 1)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:FutureWarning")
def test_a_scripted_model_is_known(tmp_path: Path) -> None:
    agent, _ = recorded(
        """
        import torch
        from torch import nn

        model = torch.jit.script(nn.Sequential(nn.Linear(3, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(torch.randn(2, 3)).mean().backward()
        optimizer.step()
        """,
        tmp_path,
    )
    assert agent.letters == "FBS"
    assert agent.frames[-1].params.layout.names == ("0.weight", "0.bias")


GROWING = """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
model[0].requires_grad_(False)
optimizer = torch.optim.SGD(model[1].parameters(), lr=0.1, momentum=0.9)
for index in range(5):
    if index == 1:
        model[0].requires_grad_(True)
        optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.01})
    if index == 2:
        model.append(nn.Linear(1, 1))
        optimizer.add_param_group({"params": model[2].parameters(), "lr": 0.02})
    if index == 3:
        del optimizer.param_groups[1:]
    optimizer.zero_grad()
    loss = model(torch.ones(2, 3)).sum()
    loss.backward()
    optimizer.step()
"""


def test_groups_that_come_and_go_while_a_script_trains(tmp_path: Path) -> None:
    agent, _ = recorded(GROWING, tmp_path)
    encoder, decoder = FrameEncoder(), FrameDecoder()
    frames = [decoder.frame(encoder.line(each)) for each in agent.frames]  # checks that their parts fit together
    steps = [each for each in frames if each.command is not None and each.command.name == "step"]
    assert [each.step_rates for each in steps] == [(0.1,), (0.1, 0.01), (0.1, 0.01, 0.02), (0.1,), (0.1,)]
    assert [len(each.params) for each in steps] == [4, 4, 6, 6, 6]


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        (8, "optimizer.step has run. How far it moved each parameter was not looked at. That was step 2 of optimizer."),
        (9, "optimizer.zero_grad has run. Which gradients it cleared was not looked at."),
    ],
)
def test_a_free_run_that_pauses_says_nothing_of_what_it_has_not_looked_at(
    index: int, sentence: str, tmp_path: Path
) -> None:
    agent, _ = recorded(SIMPLE, tmp_path, wants=lambda phases, name: phases.counts.index == index, frames=False)
    frame = agent.frames[-1]
    assert frame.script is not None
    assert frame.loss is not None
    age = f"The loss {frame.loss:.4f} is from before the parameters moved: forward makes a new one."
    assert " ".join(each for each in explain_script(frame, frame.script) if each != age) == sentence
    assert age in explain_script(frame, frame.script)


COUNTED = """
import torch
from torch import nn

class Counted(torch.Tensor):
    calls = []

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.calls.append(func.__name__)
        return super().__torch_function__(func, types, args, kwargs or {})

model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for index in range(3):
    optimizer.zero_grad()
    loss = model(torch.ones(2, 3).as_subclass(Counted)).sum()
    loss.backward()
    optimizer.step()
calls = list(Counted.calls)
"""


def test_a_tensor_class_of_the_scripts_own_is_not_called_for_what_is_read_of_it(tmp_path: Path) -> None:
    plain = run_script(COUNTED, tmp_path)["calls"]
    for frames in (True, False):
        agent, variables = recorded(COUNTED, tmp_path, wants=lambda phases, name, held=frames: held, frames=frames)
        assert variables["calls"] == plain
        assert agent.by_iteration() == ["Z", "FBSZ", "FBSZ", "FBS"]
