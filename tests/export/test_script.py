"""An exported script is plain PyTorch, and prints the losses of its run to the bit, in an interpreter of its own."""

from __future__ import annotations

import ast
import json
import random
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch

import fork_server
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.engine.training.optimizers import optimizer_classes
from autograd_tui.export.script import training_script
from autograd_tui.text.optimizer_words import OPTIMIZER_NAMES
from random_runs import Walk, losses, printed

# A model that raises while its gate is above 1.5, when its buffers and random numbers are used already.
OWN = """
import torch
from torch import nn
from autograd_tui import Options, Parts, scenario

class Gated(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(0.4), nn.Linear(width, 2))
        self.gate = nn.Parameter(torch.zeros(1))
        self.register_buffer("seen", None)
        self.calls, self.last = 0, (0.0,)

    def forward(self, x):
        self.calls += 1
        y = self.net(x) + self.gate + self.net[1].running_mean.mean() + self.calls / 100 + self.last[0] / 10
        self.seen = y.detach().mean()
        self.last = (self.seen,)
        if self.gate.item() > 1.5:
            raise LookupError("the gate is shut")
        return y

@scenario("gated", width=6)
def build(options):
    def batch(i):
        generator = options.generator(i)
        return torch.rand(4, 3, generator=generator), torch.rand(4, 2, generator=generator)
    return Parts(model=Gated(options.width), batch=batch, loss=nn.functional.mse_loss, optimizer="sgd,lr=0.05")
"""
RAISED = {("forward", "LookupError"), ("backward", "NameError"), ("backward", "RuntimeError"), ("step", "RuntimeError")}
# A second backward adds to the gradient of b before it raises at that of w.
# Batch norm and dropout that are put to eval, as one does to keep what was trained.
FROZEN = """
import torch
from torch import nn
from autograd_tui import Options, Parts, scenario

@scenario("frozen")
def build(options):
    body = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
    x = torch.rand(8, 3)
    return Parts(
        model=nn.Sequential(body.eval(), nn.Linear(8, 1)), batch=lambda i: (x, x.sum(1, True)),
        loss=nn.functional.mse_loss, optimizer="sgd,lr=0.1",
    )
"""
SUM = """
import torch
from torch import nn
from autograd_tui import Options, Parts, scenario

class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([2.0]))
        self.b = nn.Parameter(torch.tensor([6.0]))

@scenario("sum")
def build(options):
    x = torch.tensor([1.0, 2.0, 3.0])
    return Parts(model=Line(), batch=lambda i: x, forward=lambda model, x: (model.w * x + model.b).sum())
"""
RUN_ALL = """
import contextlib, io, json, sys
found = []
for text in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(text, "run.py", "exec"), {"__name__": "__main__"})
    found.append(out.getvalue())
print(json.dumps(found))
"""


def run_together(scripts: list[str]) -> list[str]:
    """Run scripts in one process, each in a namespace of its own; give what each printed."""
    done = fork_server.run([sys.executable, "-c", RUN_ALL], input=json.dumps(scripts))
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def run_alone(text: str, folder: Path, *, anew: bool = False) -> str:
    """Run a script as a user does, with `anew` in an interpreter that has nothing imported."""
    (folder / "run.py").write_text(text)
    done = fork_server.run([sys.executable, "-W", "error", "run.py"], folder=folder, anew=anew)
    assert done.returncode == 0, done.stderr
    return done.stdout


def exported(session: Session) -> str:
    again = opened(session)
    text = training_script(session.about.config, session.log(), again.frame, again.groups)
    compile(text, "run.py", "exec")
    return text


def opened(session: Session) -> Session:
    config = session.about.config
    return open_session(config.scenario, **config.arguments, **config.own)


def after(commands: str, scenario: str = "linear", **options: object) -> str:
    session = open_session(scenario, **options)  # type: ignore[arg-type]
    list(session.run_all(commands))
    return exported(session)


def random_walk(number: int, own: Path) -> Walk:
    """Make a run: of the line, or of a model with batch norm, dropout, and a forward that may raise."""
    draw = random.Random(number)
    decay = draw.choice((None, "plateau:0.5:2"))
    if number % 2:
        session = open_session(str(own), seed=number, decay=decay, width=draw.choice((4, 6)))
        walk = Walk(session, draw, "gate")
    else:
        data = draw.choice(("fixed", "fresh"))
        session = open_session("linear", seed=number, decay=decay, data=data, optimizer=draw.choice(("sgd", "adam")))
        walk = Walk(session, draw, "w")
    walk.say("B" if number < 4 else "f")
    walk.go(40)
    return walk


def test_twenty_random_runs_print_the_same_losses_to_the_bit(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(OWN)
    walks = [random_walk(number, own) for number in range(20)]
    raised = {(each.phase, each.error.type) for walk in walks for each in walk.branch if each.error}
    assert raised == RAISED  # else these runs prove little
    found = run_together([exported(walk.session) for walk in walks])
    for walk, text in zip(walks, found, strict=True):
        assert repr(printed(text)) == repr(walk.losses)  # NaN is NaN


def test_gradients_that_a_raising_backward_has_added_to_are_put_back(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(SUM)
    session = open_session(str(tmp_path / "own.py"))
    frames = list(session.run_all("fbBBsf"))
    assert printed(run_alone(exported(session), tmp_path)) == losses(frames)


def test_modules_in_eval_mode_are_so_in_the_script(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(FROZEN)
    session = open_session(str(tmp_path / "own.py"))
    frames = list(session.run_all("fbsz*4"))
    assert printed(run_alone(exported(session), tmp_path)) == losses(frames)


LOSSES = """
import torch
from torch import nn
from autograd_tui import Parts, scenario

@scenario("losses")
def build(options):
    x = torch.rand(8, 2)
    def forward(model, x):
        p = model(x)
        return {"one": p.mean(), "two": p.square().mean()}
    return Parts(model=nn.Linear(2, 1), batch=lambda i: x, forward=forward, optimizer="sgd,lr=0.1")
"""


def test_a_dict_of_losses_is_summed_in_the_script_too(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(LOSSES)
    session = open_session(str(tmp_path / "own.py"))
    frames = list(session.run_all("fbsz*3"))
    assert printed(run_alone(exported(session), tmp_path)) == losses(frames)


LOADER = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from autograd_tui import Parts, from_loader, scenario

@scenario("shuffled")
def build(options):
    model = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    rows = TensorDataset(torch.randn(10, 2), torch.randn(10, 1))
    own = torch.Generator().manual_seed(3)
    take = from_loader(DataLoader(rows, batch_size=4, shuffle=True, generator=own))
    gate = nn.Parameter(torch.zeros(1))
    model.register_parameter("gate", gate)
    def forward(model, batch):
        x, y = batch
        y = model(x + torch.rand(1)) - y + torch.rand(1, generator=own)
        if gate.item() > 1.5:
            raise LookupError("the gate is shut")
        return y.square().mean()
    return Parts(model=model, batch=take, forward=forward, optimizer="sgd,lr=0.05")
"""


def test_a_loader_stands_where_it_stood_after_a_forward_that_raised(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(LOADER)
    session = open_session(str(tmp_path / "own.py"))
    words = "fbsz*2 gate=2 f gate=0 fbsz gate=2 f seed=4 F gate=1 fbsz*4 @8 fbsz*2 seed=9 fbsz*5"
    list(session.run_all(words))
    walked = [session.look(index) for index in range(session.newest + 1)]
    assert {frame.error.type for frame in walked if frame.error} == set()
    assert printed(run_alone(exported(session), tmp_path)) == losses(walked)
    session = open_session(str(tmp_path / "own.py"))
    walked = list(session.run_all(words.replace("@8 ", "")))
    assert sum(frame.error is not None for frame in walked) == 3
    assert printed(run_alone(exported(session), tmp_path)) == losses(walked)


def test_a_seed_set_on_the_way_is_set_in_the_script(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        OWN.replace("import torch\n", "import random\nimport numpy\nimport torch\n", 1).replace(
            "+ self.gate +", "+ self.gate + random.random() + numpy.random.rand() +"
        )
    )
    session = open_session(str(tmp_path / "own.py"))
    frames = list(session.run_all("seed=7 fbsz*3 seed=9 fbsz"))
    assert printed(run_alone(exported(session), tmp_path)) == losses(frames)


def test_resnet18_prints_the_same_losses_by_itself(tmp_path: Path) -> None:
    session = open_session("resnet18", optimizer="adam", image_size=40, data="fresh", batch_size=2)
    frames = list(session.run_all("fbsz*3 fbBs lr=0.01 fbszf"))
    assert printed(run_alone(exported(session), tmp_path, anew=True)) == losses(frames)


def test_a_forward_of_resnet18_that_raises_leaves_no_trace(tmp_path: Path) -> None:
    session = open_session("resnet18", image_size=32)  # one value a channel, too few for a batch norm
    list(session.run_all("f"))
    text = exported(session) + "print(model.bn1.num_batches_tracked.item())\n"
    said = run_alone(text, tmp_path).splitlines()
    assert said[0].startswith("ValueError: Expected more than 1 value per channel")
    assert said[-1] == "0"


@pytest.mark.parametrize("scenario", ["linear", "resnet18"])
def test_a_built_in_scenario_is_written_without_this_package(scenario: str) -> None:
    imported = [node for node in ast.walk(ast.parse(after("fbsz", scenario))) if isinstance(node, ast.ImportFrom)]
    assert "autograd_tui" not in "".join(str(node.module) for node in imported)


def test_what_repeats_is_a_loop() -> None:
    text = after("fbsz*100 fbs")
    assert "for iteration in range(1, 101):" in text
    assert text.count("loss.backward()") == 2


def test_the_same_run_in_pieces_is_the_same_loop() -> None:
    assert after("fbsz fbsz fb s z") == after("fbsz*3")


def test_passes_without_a_step_stay_in_their_iteration() -> None:
    text = after("fb*3 sz")
    assert "for _ in range(2):" in text or "for _ in range(3):" in text
    assert "iteration 2" not in text


def test_a_comment_says_what_a_phase_does_where_it_stands() -> None:
    text = after("fb fbs S")
    assert "loss.backward()  # backward: compute the gradients" in text
    assert "loss.backward()  # backward: there was no zero_grad, so it adds to the gradients" in text
    assert "optimizer.step()  # step: once more on gradients that a step has used already" in text


def test_words_in_a_header_are_no_code() -> None:
    session = open_session("linear")
    config = replace(session.about.config, versions={"torch": "2\nprint('caught')"})
    assert "\nprint('caught')" not in training_script(config, session.log(), session.frame, session.groups)


def test_a_run_on_an_accelerator_is_written_for_it(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(OWN)
    session = open_session(str(own))
    list(session.run_all("gate=2 f"))  # which raises
    config = replace(session.about.config, device="cuda:1")
    text = training_script(config, session.log(), session.frame, session.groups)
    compile(text, "run.py", "exec")
    for line in (
        "model = parts.model.to('cuda:1')",
        "    batch = moved(batch, 'cuda:1')",
        "around.add_device('cuda:1')",
    ):
        assert line in text.splitlines()


def test_every_optimizer_that_can_be_stepped_can_be_written() -> None:
    assert {
        name: cls.__name__ for name, cls in optimizer_classes().items() if name in OPTIMIZER_NAMES
    } == OPTIMIZER_NAMES
    assert optimizer_classes().keys() - OPTIMIZER_NAMES.keys() == {"lbfgs"}


def test_parameters_that_are_frozen_for_a_while_are_so_in_the_script(tmp_path: Path) -> None:
    session = open_session("linear")
    frames = list(session.run_all("fbsz w.requires_grad=False fbsz*2 w.requires_grad=True fbsz lr[0]=0.05 fbsz f"))
    told = [f"iteration {frame.iteration}  loss {frame.loss!r}" for frame in frames if str(frame.command) == "f"]
    assert run_alone(exported(session), tmp_path).splitlines() == told


# Groups that overlap in no order of the model's, with options that not every optimizer takes, and one left outside.
GROUPED = """
import torch
from torch import nn
from autograd_tui import Options, Parts, scenario

@scenario("grouped")
def build(options):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Dropout(0.3), nn.Linear(4, 1))
    x, y = torch.rand(6, 3), torch.rand(6, 1)
    groups = [
        {"params": [model[2].bias, model[0].weight], "lr": 0.2, "momentum": 0.5},
        {"params": ["4.weight", "2.weight"], "betas": (0.5, 0.9)},
        {"params": [model[4].bias], "weight_decay": 0.1},
    ]
    loss = nn.functional.mse_loss
    return Parts(model=model, batch=lambda i: (x, y), loss=loss, groups=groups, optimizer="sgd,lr=0.1")
"""


def test_a_run_of_several_parameter_groups_prints_the_same_losses(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(GROUPED)
    session = open_session(str(tmp_path / "own.py"), decay="plateau:0.5:0")
    words = "fbsz*3 lr[1]=0.03 fbsz*2 optimizer=adam fbsz*2 optimizer=sgd,lr=0.05,momentum=0.9 FBSFBS lr=0.01 fbszf"
    frames = list(session.run_all(words))
    assert printed(run_alone(exported(session), tmp_path)) == losses(frames)


def test_groups_are_written_as_torch_takes_them(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(GROUPED)
    session = open_session(str(tmp_path / "own.py"))
    session.run("f")
    text = exported(session)
    assert "group_1 = [\n    '4.weight', '2.weight',\n]" in text
    assert (
        """optimizer = torch.optim.SGD(
    [
        {"params": named(group_0), "momentum": 0.5},
        {"params": named(group_1), "lr": 0.1},
        {"params": named(group_2), "lr": 0.1, "weight_decay": 0.1},
    ],
    lr=0.2,
)"""
        in text
    )


def begun_with_a_file(folder: Path, scenario: str, kind: str, lr: float | None) -> Session:
    """Train, save what a script would, and begin another run with that."""
    before = open_session(scenario, optimizer="sgd,momentum=0.9")
    list(before.run_all("fbsz*4"))
    state = before._trainer.state
    model = {key: value.clone() for key, value in state.model.state_dict().items()}
    saved = {"both": {"model": model, "optim": state.optimizer.state_dict()}, "model": {"state_dict": model}}
    path = folder / f"{kind}-{Path(scenario).stem}.pt"
    torch.save(saved.get(kind, model), path)
    return open_session(scenario, optimizer="sgd,momentum=0.9", state=str(path), lr=lr)


def test_runs_that_began_with_a_file_read_it_in_their_scripts(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(GROUPED)
    kinds = product(("linear", str(own)), ("model", "both", "bare"), (None, 0.02))
    sessions = [begun_with_a_file(tmp_path, *kind) for kind in kinds]
    shown = [losses(list(session.run_all("fbsz*3 lr=0.01 fbszf"))) for session in sessions]
    texts = [exported(session) for session in sessions]
    assert all("weights_only=True" in text for text in texts)
    assert [printed(text) for text in run_together(texts)] == shown
