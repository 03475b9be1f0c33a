"""A file with plain names trains as the script that it is, to the bit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_loop import Tensors, named_tensors
from test_equality import assert_equal

from autograd_tui.open import open_session

TENSORS = """
import torch
from torch import nn, optim

model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 2))
data, labels = torch.rand(32, 4), torch.rand(32, 2)
optim = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
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
    for inputs, targets in batches(names, seed):
        loss = loss_function(model(inputs), targets)
        loss.backward()
        optimizer.step()
        yield named_tensors(model, optimizer, loss, torch.get_rng_state())
        optimizer.zero_grad()


def batches(names: dict[str, Any], seed: int) -> Iterator[Any]:
    """Give a script's batches: the same each time, or the loader's, whose seeds stay out of the model's way."""
    if "data" in names:
        yield from itertools.repeat((names["data"], names["labels"]))
    for epoch in itertools.count():
        with torch.random.fork_rng():
            torch.manual_seed(seed + epoch)
            epoch_batches = list(names["train_loader"])
        yield from epoch_batches


@pytest.mark.parametrize("seed", [0, 4])
@pytest.mark.parametrize("text", [TENSORS, LOADER], ids=["tensors", "loader"])
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
