"""The mark of an error stands at the line that raised."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from autograd_tui.engine.open_session import open_session
from autograd_tui.text.styled_text import plain
from autograd_tui.text.trace.trace_position import TracePosition
from autograd_tui.tui.panels.code import CodePanel
from autograd_tui.tui.panels.trace_panels import SourcePanel
from autograd_tui.tui.screen_state import View

AS_IT_IS = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 1)

    def forward(self, x):
        {model}
        return self.fc(x)

def criterion(prediction, target):
    {loss}
    return nn.functional.mse_loss(prediction, target)

class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, i):
        {batch}
        return torch.ones(2), torch.ones(1)

model = Net()
loader = DataLoader(Data(), batch_size=2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
"""
SCENARIO = """
import torch
from torch import nn
from torch.nn.functional import mse_loss
from autograd_tui import Parts, scenario

class Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()
    @staticmethod
    def backward(ctx, grad):
        raise ValueError("no way back")

def measured(model, batch):
    x, y = batch
    hidden = model[0](x)
    prediction = model[1](
        hidden,
    )
    loss = mse_loss(prediction, y)
    return loss, prediction

@scenario("mine", kind="forward")
def build(options):
    x, y = torch.ones(4, 2), torch.ones(4, 1)
    kind = options.kind
    model = nn.Sequential(nn.Linear(2 + (kind == "hidden"), 3), nn.Linear(3 + (kind == "prediction"), 1))
    if kind == "loss":
        y = "no tensor"
    forward = ["x, y = batch", "hidden = model[0](x)  # 3", "prediction = model[1](hidden)"]
    forward += ["loss = mse_loss(prediction, y)"]
    form = {
        "metric": {"loss": mse_loss, "metrics": {"mine": lambda prediction, target: 1 / 0}},
        "backward": {"loss": lambda prediction, target: Wrong.apply(prediction).mean()},
        "no loss": {"loss": lambda prediction, target: (prediction, target)},
        "vector": {"loss": lambda prediction, target: prediction},
        "step": {"loss": mse_loss},
    }.get(kind, {"forward": measured})
    listing = {"backward": "loss.backward()\\nnothing()"}
    if "forward" in form:
        listing["forward"] = "\\n".join(forward)
    return Parts(model=model, batch=lambda i: (x, y), listing=listing, **form)
"""


@pytest.fixture(autouse=True)
def modules_as_they_were(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    sys.modules.pop("my_model", None)


def marked(text: str, folder: Path, words: str, **options: str) -> list[str]:
    """Give the lines of the listing that bear a mark."""
    path = folder / "my_model.py"
    path.write_text(text)
    session = open_session(str(path), **options)  # type: ignore[arg-type]
    *_, frame = session.run_all(words)
    assert frame.error is not None
    panel = CodePanel()
    panel.view = View(about=session.about)
    return [row for line in panel.draw(frame, 80, 99) if (row := plain(line).partition("  #")[0].rstrip())[:1] in "!│"]


@pytest.mark.parametrize(
    ("place", "lines"),
    [
        ("batch", ["! inputs, targets = next batch of loader"]),
        ("model", ["! prediction = model(inputs)"]),
        ("loss", ["│ prediction = model(inputs)", "! loss = criterion(prediction, targets)"]),
    ],
)
def test_in_a_file_as_it_is_the_line_that_raised_is_marked(tmp_path: Path, place: str, lines: list[str]) -> None:
    raises = dict.fromkeys(("batch", "model", "loss"), "pass") | {
        place: "assert i < 3" if place == "batch" else "assert False"
    }
    assert marked(AS_IT_IS.format(**raises), tmp_path, "f f" if place == "batch" else "f") == lines


BEFORE = ["│ x, y = batch", "│ hidden = model[0](x)", "│ prediction = model[1](hidden)"]


@pytest.mark.parametrize(
    ("kind", "words", "lines"),
    [
        ("hidden", "f", [BEFORE[0], "! hidden = model[0](x)"]),
        ("hidden", "i:f", [BEFORE[0], "! hidden = model[0](x)"]),
        ("no loss", "i:f", ["│ prediction = model(inputs)", "! loss = loss_function(prediction, targets)"]),
        ("prediction", "f", [*BEFORE[:2], "! prediction = model[1](hidden)"]),
        ("loss", "f", [*BEFORE, "! loss = mse_loss(prediction, y)"]),
        ("metric", "f", ["│ prediction = model(inputs)", "│ loss = loss_function(prediction, targets)"]),
        ("no loss", "f", ["│ prediction = model(inputs)", "! loss = loss_function(prediction, targets)"]),
        ("backward", "fb", ["! loss.backward()"]),
        ("vector", "fbB", ["! loss.backward()"]),
        ("vector", "fS", ["│ optimizer.step()", "! scheduler.step(loss)"]),
    ],
)
def test_in_a_listing_the_line_that_raised_is_marked(tmp_path: Path, kind: str, words: str, lines: list[str]) -> None:
    assert marked(SCENARIO, tmp_path, words, kind=kind, decay="plateau") == lines


def test_a_step_that_raises_marks_the_optimizer_and_not_the_scheduler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self, closure=None: 1 / 0)
    assert marked(SCENARIO, tmp_path, "fbs", kind="step", decay="plateau") == ["! optimizer.step()"]


def test_inside_an_operation_of_a_module_of_torch_lights_the_line_that_calls_the_model() -> None:
    session = open_session("spiral")
    (trace,) = [frame.trace for frame in session.run_all("i:f")]
    assert trace is not None
    panel = SourcePanel()
    panel.set_reactive(SourcePanel.view, View(about=session.about))
    shown = {
        op.module: [plain(line) for line in panel.draw_trace(TracePosition(trace, op.number), 60, 4)]
        for op in trace.ops
    }
    assert shown["0"] == shown["2"] == ["▶ logits = model(x)  # above 0: spiral 1"]


@pytest.mark.parametrize("width", range(12, 44))
def test_a_line_of_the_listing_that_has_no_room_says_that_it_goes_on(width: int) -> None:
    session = open_session("linear")
    panel = CodePanel()
    panel.view = View(about=session.about)
    frame = session.run("f")
    rows = [plain(line).rstrip() for line in panel.draw(frame, width, 99)]
    whole = [plain(line).rstrip() for line in panel.draw(frame, 200, 99)]
    assert max(map(len, rows)) <= width
    for row, code in zip(rows, whole, strict=True):
        if "optimizer.step" in code:  # its comment is shorter where there is less room
            row, code = (each.partition("  #")[0].rstrip() for each in (row, code))
        assert row == code or (row.endswith("…") and code.startswith(row[:-1]))
