"""A file with plain names trains as the script that it is, to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_equality import assert_equal
from torch import nn

from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.training.scenario import Options, Parts, Scenario
from plain_loop import Tensors, named_tensors
from session_internals import state_of

TENSORS = """
import torch
from torch import nn, optim

model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 2))
data, labels = torch.rand(32, 4), torch.rand(32, 2)
optim = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
loss = nn.MSELoss()
"""
FROZEN = (
    TENSORS
    + """
model[1].eval()  # as one does to keep the statistics of a trained batch norm
model[2].eval()
"""
)
WHOLLY_FROZEN = TENSORS + "model.eval()"
SWITCHING = """
import torch
from torch import nn

class Switching(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.3))
        self.head = nn.Linear(16, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        if self.calls == 3:
            self.body.eval()
        return self.head(self.body(x))

model = Switching()
data, labels = torch.rand(32, 4), torch.rand(32, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
loss = nn.MSELoss()
"""
LOADER = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

net = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.3), nn.Linear(16, 3))
train_loader = DataLoader(TensorDataset(torch.rand(20, 4), torch.randint(3, (20,))), batch_size=8, shuffle=True)
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, betas=(0.8, 0.99), amsgrad=True)
criterion = nn.CrossEntropyLoss()
"""


def script(text: str, seed: int) -> Iterator[Tensors]:
    """Run the file after torch.manual_seed, and below it the loop that belongs there."""
    torch.manual_seed(seed)
    names: dict[str, Any] = {}
    exec(text, names)
    model, optimizer, loss_function = (
        next(names[name] for name in known if name in names)
        for known in (("model", "net"), ("optimizer", "optim"), ("criterion", "loss"))
    )
    for inputs, targets in batches(names):
        loss = loss_function(model(inputs), targets)
        loss.backward()
        optimizer.step()
        yield named_tensors(model, optimizer, loss, torch.get_rng_state())
        optimizer.zero_grad()


def batches(names: dict[str, Any]) -> Iterator[Any]:
    """Give a script's batches: the same each time, or the loader's, epoch after epoch."""
    while True:
        yield from names.get("train_loader", [(names.get("data"), names.get("labels"))])


@pytest.mark.parametrize("seed", [0, 4])
@pytest.mark.parametrize(
    "text",
    [TENSORS, LOADER, FROZEN, WHOLLY_FROZEN, SWITCHING],
    ids=["tensors", "loader", "frozen", "wholly frozen", "switching"],
)
def test_20_iterations_of_a_file_with_plain_names_equal_the_script(text: str, seed: int, tmp_path: Path) -> None:
    (tmp_path / "script_of_mine.py").write_text(text)
    session = open_session(str(tmp_path / "script_of_mine.py"), seed=seed, device="cpu")
    assert_equal(session, script(text, seed), iterations=20)


def test_a_loaders_batches_come_again_after_a_rewind(tmp_path: Path) -> None:
    (tmp_path / "script_of_mine.py").write_text(LOADER)
    session = open_session(str(tmp_path / "script_of_mine.py"), device="cpu")
    first = [frame.loss for frame in session.run_all("fbsz*9")]
    session.run("@8")
    assert [frame.loss for frame in session.run_all("fbsz*7")] == first[8:]


def test_a_mode_that_the_forward_changes_goes_back_with_the_run(tmp_path: Path) -> None:
    (tmp_path / "script_of_mine.py").write_text(SWITCHING)
    session = open_session(str(tmp_path / "script_of_mine.py"), device="cpu")
    first = [frame.loss for frame in session.run_all("fbsz*6")]
    body = state_of(session).model.body
    assert not body.training  # type: ignore[union-attr]
    session.run("@4")
    assert body.training  # type: ignore[union-attr]
    assert [frame.loss for frame in session.run_all("fbsz*5")] == first[4:]
    assert not body.training  # type: ignore[union-attr]


def test_a_metric_leaves_modes_and_buffers_as_they_were() -> None:
    def build(options: Options) -> Parts:
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
        x, test = torch.rand(8, 4), torch.rand(5, 4)
        metrics = {
            "of test data": lambda prediction, target: model.eval()(test).mean(),
            "in train mode": lambda prediction, target: model.train()(test).mean(),
        }
        return Parts(
            model=model,
            batch=lambda i: (x, x.sum(1, keepdim=True)),
            loss=nn.functional.mse_loss,
            metrics=dict(list(metrics.items())[: int(options.measured)]),
        )

    measured = [open_session(Scenario("measured", build, {"measured": 0}), measured=count) for count in (0, 1, 2)]
    losses = [[frame.loss for frame in session.run_all("fbsz*4")] for session in measured]
    assert losses[0] == losses[1] == losses[2]


def test_resnet18_trains_in_train_mode() -> None:
    assert all(module.training for module in state_of(open_session("resnet18", weights="random")).model.modules())
