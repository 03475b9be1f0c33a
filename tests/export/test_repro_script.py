"""A repro is one iteration in two files; its script repeats it in an interpreter of its own, to the bit."""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
import torch
from test_script import LOADER, OWN

import fork_server
from autograd_tui.cli import main
from autograd_tui.core.errors import Refused
from autograd_tui.core.phase_order import Goal
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.export.formats import export_repro
from random_runs import printed

RUN_ALL = """
import contextlib, hashlib, io, json, runpy, sys

def bits(tensor):
    tensor = tensor.to_dense()
    return hashlib.sha256(tensor.detach().numpy().tobytes()).hexdigest()

found = []
for path in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        left = runpy.run_path(path)
    ours = {name for name in sys.modules if name.split(".")[0] == "autograd_tui"}
    grads = {name: bits(param.grad) for name, param in left["model"].named_parameters() if param.grad is not None}
    found.append([out.getvalue(), sorted(ours), grads, [bits(param) for param in left["model"].parameters()]])
print(json.dumps(found))
"""
NAN = """
import torch
from torch import nn
from autograd_tui import Options, Parts, scenario

class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.4), nn.Linear(4, 1))

    def forward(self, x):
        return self.net(x) * (0.29 - 0.3 * torch.rand(1)).log()

@scenario("noisy")
def build(options):
    def batch(i):
        generator = options.generator(i)
        return torch.rand(4, 3, generator=generator), torch.rand(4, 1, generator=generator)
    return Parts(model=Noisy(), batch=batch, loss=nn.functional.mse_loss, optimizer="adam,lr=0.05")
"""
CLOSED = """
import torch
from autograd_tui import Options, Parts, scenario

@scenario("closed")
def build(options):
    calls = 0

    def forward(model, x):
        nonlocal calls
        calls += 1
        return (model(x) * calls).mean()

    return Parts(model=torch.nn.Linear(3, 1), batch=lambda i: torch.ones(2, 3), forward=forward)
"""


WORDS = """
import torch
from torch import nn
from autograd_tui import Parts, scenario

@scenario("words")
def build(options):
    batch = torch.randint(0, 50, (8, 3)), torch.rand(8, 4)
    model = nn.EmbeddingBag(50, 4, sparse=True, mode="sum")
    return Parts(model=model, batch=lambda i: batch, loss=nn.functional.mse_loss, optimizer="sparseadam,lr=0.1")
"""


def run_together(paths: list[Path], *, anew: bool = False) -> list[list[object]]:
    """Run scripts in one process; give what each printed, our modules, its gradients and parameters."""
    text = json.dumps(list(map(str, paths)))
    done = fork_server.run([sys.executable, "-c", RUN_ALL], input=text, anew=anew)
    assert done.returncode == 0, done.stderr
    found: list[list[object]] = json.loads(done.stdout)
    return found


def opened(scenario: str, words: str, **options: object) -> Session:
    session = open_session(scenario, **options)  # type: ignore[arg-type]
    list(session.run_all(words))
    return session


def values(session: Session) -> tuple[dict[str, object], list[object]]:
    """Give the gradients and parameters of a session, as a script's are given."""
    state = session._trainer.state
    grads = {name: bits(param.grad) for name, param in state.params.items() if param.grad is not None}
    return grads, [bits(param) for param in state.params.values()]  # type: ignore[return-value]


def bits(tensor: torch.Tensor) -> str:
    return sha256(tensor.detach().to_dense().numpy().tobytes()).hexdigest()


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Session, list[object]]]:
    """Write cases of many runs, and run all their scripts."""
    folder = tmp_path_factory.mktemp("cases")
    (folder / "gated.py").write_text(OWN)
    (folder / "words.py").write_text(WORDS)
    (folder / "shuffled.py").write_text(LOADER)
    sessions = [
        opened("linear", "fbsz*3 fb", optimizer="adam", decay="plateau:0.5:1"),
        opened("linear", "fbs fbs", data="fresh", momentum=0.9),
        opened("linear", "fb lr=0.3 s w=2 b.requires_grad=False optimizer=adam"),
        opened("linear", "f b B s"),
        opened("resnet18", "fbsz fbs", weights="random"),
        opened("spiral", "fbsz*3 fb"),
        opened("lstm", "fbsz*3 fbs"),
        opened("transformer", "fbsz fbs"),
        opened(str(folder / "gated.py"), "fbsz*3 fbs"),
        opened(str(folder / "gated.py"), "fbs gate=2 F z"),
        opened(str(folder / "words.py"), "fbsz*3 fbs"),
        opened(str(folder / "shuffled.py"), "fbs"),
        opened(str(folder / "shuffled.py"), "fbsz*3 fb"),
        opened(str(folder / "shuffled.py"), "fbsz*4 fbs seed=3"),
        opened(str(folder / "gated.py"), "f*3 gate=1.2 bsz f"),
    ]
    paths = [folder / f"case{number}.pt" for number, _ in enumerate(sessions)]
    for path, session in zip(paths, sessions, strict=True):
        export_repro(path, session)
    scripts = [path.with_suffix(".py") for path in paths]
    return list(zip(sessions, run_together(scripts, anew=True), strict=True))  # which has none of our modules yet


def test_the_script_prints_the_very_loss_and_ends_in_the_same_tensors(
    repeated: list[tuple[Session, list[object]]],
) -> None:
    for session, (out, _, grads, params) in repeated:
        assert printed(str(out))[-1:] == [(session.frame.iteration, session.frame.loss)]
        assert (grads, params) == values(session)


def test_of_a_scenario_that_comes_with_this_program_it_needs_nothing_of_it(
    repeated: list[tuple[Session, list[object]]],
) -> None:
    assert [modules for _, (_, modules, _, _) in repeated[:8]] == [[]] * 8
    assert repeated[8][1][1]


def test_a_nan_in_a_model_of_ones_own_comes_again(tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(NAN)
    session = open_session(str(tmp_path / "noisy.py"))
    session.arm("nonfinite")
    for _ in session.run_free(Goal(iteration=500), lambda: False):
        pass
    assert session.fired is not None
    assert session.fired.reason == "the loss is NaN"
    session.run("b")
    said = export_repro(tmp_path / "fault.pt", session)
    assert said == "fault.py repeats it"
    ((out, *_),) = run_together([tmp_path / "fault.py"])
    first = next(row.name for row in session.frame.grads.table if row.nonfinite)
    assert str(out).splitlines()[0] == f"iteration {session.frame.iteration}  loss nan"
    assert str(out).splitlines()[1].startswith(f"{first}.grad has ")
    assert session.fired.reason in (tmp_path / "fault.py").read_text().splitlines()[0]


def test_what_raised_last_raises_in_the_script_too(tmp_path: Path) -> None:
    (tmp_path / "gated.py").write_text(OWN)
    session = opened(str(tmp_path / "gated.py"), "fbsz gate=2 F")
    export_repro(tmp_path / "fault.pt", session)
    done = fork_server.run([sys.executable, str(tmp_path / "fault.py")])
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "LookupError: the gate is shut"


@pytest.mark.parametrize("memory", [1, 1 << 30])
@pytest.mark.parametrize("watched", ["loss > 1e9", None])
def test_training_goes_on_as_if_no_repro_had_been_written(memory: int, watched: str | None, tmp_path: Path) -> None:
    (tmp_path / "gated.py").write_text(OWN)
    session = open_session(str(tmp_path / "gated.py"), memory=memory)
    if watched:
        session.arm(watched)
    list(session.run_all("fbsz*2 fb gate=2 F"))
    session.write_repro(BytesIO())
    list(session.run_all("s gate=0 zfb"))
    other = opened(str(tmp_path / "gated.py"), "fbsz*2 fb gate=2 F s gate=0 zfb")
    assert session.frame.same(other.frame)
    assert values(session) == values(other)


def test_what_a_closure_remembers_is_in_no_repro_and_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(CLOSED)
    session = opened(str(tmp_path / "own.py"), "f")
    session.write_repro(BytesIO())
    list(session.run_all("bsz fb"))
    with pytest.raises(Refused, match="no repro can hold what the model remembers in calls"):
        session.write_repro(BytesIO())


def test_it_is_read_without_running_any_code() -> None:
    session = opened("linear", "fb", momentum=0.9)
    session.write_repro(file := BytesIO())
    file.seek(0)
    case = torch.load(file, weights_only=True)
    assert case["steps"] == [("f", None), ("b", None)]
    assert case["params"]["w"].tolist() == [2.0]


def test_where_nothing_has_run_there_is_no_repro(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no iteration to write yet: run forward first"):
        export_repro(tmp_path / "fault.pt", open_session())
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "fault.py").write_text("mine")
    with pytest.raises(Refused, match=r"fault\.py exists"):
        export_repro(tmp_path / "fault.pt", opened("linear", "f"))
    assert [path.name for path in tmp_path.iterdir()] == ["fault.py"]


def test_a_kept_run_becomes_a_repro_at_any_frame(tmp_path: Path) -> None:
    journal, to = str(tmp_path / "run.journal"), str(tmp_path / "fault.pt")
    assert main(["linear", "--headless", "--do", "fbsz*3", "--journal", journal]) == 0
    assert main(["export", journal, "--to", to, "--frame", "6"]) == 0
    case = torch.load(to, weights_only=True)
    assert (case["frame"], case["end"]) == (4, 6)
    assert (tmp_path / "fault.py").exists()
