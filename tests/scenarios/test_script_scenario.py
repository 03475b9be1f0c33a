from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from autograd_tui.core.errors import Refused
from autograd_tui.engine.open_session import open_session
from autograd_tui.scenarios.find import find

SCRIPT = """
import torch
from torch import nn, optim
model = nn.Linear(2, 1)
data = torch.rand(8, 2)
labels = data.sum(1, keepdim=True)
loss = nn.MSELoss()
optimizer = optim.SGD(model.parameters(), lr=0.1)
"""


@pytest.fixture(autouse=True)
def forget_the_file(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the file alone: what torch imports late meanwhile, such as sympy, can be imported only once."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield
    sys.modules.pop("plain_file", None)


def file(folder: Path, text: str = SCRIPT, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "plain_file.py").write_text(text)
    return str(folder / "plain_file.py")


def refusal(name: str) -> str:
    with pytest.raises(Refused) as caught:
        find(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_with_plain_names_opens_and_trains(tmp_path: Path) -> None:
    session = open_session(file(tmp_path))
    first = session.run("f")
    *_, last = session.run_all("bsz fbsz*50")
    assert last.loss is not None
    assert first.loss is not None
    assert last.loss < first.loss / 2


def test_a_schedule_of_its_own_is_left_out_with_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schedule = "\nscheduler = optim.lr_scheduler.StepLR(optimizer, 2)\n"
    find(file(tmp_path, SCRIPT + schedule))
    assert "scheduler, a StepLR, is left out: --decay plateau" in capsys.readouterr().err


def test_it_is_called_by_its_file_and_its_names(tmp_path: Path) -> None:
    about = open_session(file(tmp_path)).about
    assert (about.title, about.names) == ("plain_file.py", ("data", "labels", "prediction"))
    assert about.listing["forward"] == ("prediction = model(data)", "loss = loss(prediction, labels)")
    assert about.listing["step"] == ("optimizer.step()",)


@pytest.mark.parametrize(
    "changes",
    [
        [("model =", "net ="), ("model.", "net.")],
        [("data", "inputs"), ("labels", "targets")],
        [("data", "x"), ("labels", "y")],
        [("loss =", "loss_fn =")],
        [("loss =", "criterion =")],
        [("loss = nn.MSELoss()", "def loss(prediction, target):\n    return (prediction - target).square().mean()")],
        [("optimizer =", "optim =")],
        [("optim.SGD(model.parameters(), lr=0.1)", "'sgd,lr=0.1'")],
        [("loss =", "loss = torch.tensor(3.)\nloss_fn =")],
    ],
)
def test_the_usual_names_are_known(changes: list[tuple[str, str]], tmp_path: Path) -> None:
    assert open_session(file(tmp_path, SCRIPT, *changes)).frame.learning_rate == 0.1


def test_flags_go_over_the_files_own_optimizer(tmp_path: Path) -> None:
    session = open_session(file(tmp_path), optimizer="adam", lr=0.5)
    assert (session.frame.optimizer, session.frame.learning_rate) == ("adam", 0.5)


@pytest.mark.parametrize(
    ("gone", "sentence"),
    [
        ("model = ", "missing: model; other_model could be called model."),
        ("data = ", "missing: data with labels (or loader)."),
        ("labels = ", "missing: data with labels (or loader)."),
        ("loss = ", "missing: loss; other_loss could be called loss."),
        ("optimizer = ", "missing: optimizer; other_optimizer could be called optimizer."),
    ],
)
def test_what_is_missing_is_named(gone: str, sentence: str, tmp_path: Path) -> None:
    assert refusal(file(tmp_path, SCRIPT, (gone, f"other_{gone}"), *_uses(gone))).endswith(sentence)


def _uses(gone: str) -> list[tuple[str, str]]:
    """Let the rest of the file go on with the other name."""
    return {"model = ": [("model.", "other_model.")], "data = ": [("data.", "other_data.")]}.get(gone, [])


def test_all_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    assert refusal(file(tmp_path, "model = 3")).endswith(
        "steps a training script as it is; or put @scenario(...) above its build function, "
        "or name the parts of the loop in it: "
        "missing: model, data with labels (or loader), loss, optimizer."
    )


TWO = """
import torch
from torch import nn
netG, netD = nn.Linear(4, 2), nn.Linear(2, 1)
criterion = nn.BCEWithLogitsLoss()
trainloader = torch.utils.data.DataLoader(torch.randn(32, 2))
optimizerD = torch.optim.Adam(netD.parameters(), lr=2e-4)
optimizerG = torch.optim.Adam(netG.parameters(), lr=2e-4)
"""


def test_of_two_optimizers_a_sentence_names_both_and_says_what_can_be_done(tmp_path: Path) -> None:
    assert refusal(file(tmp_path, TWO)).endswith(
        "missing: model, data with labels (or loader), optimizer; there are the optimizers optimizerD and optimizerG, "
        "and one is stepped: write a build function with one model of all parts and one optimizer, in which each "
        "part's turn is an iteration of its own."
    )


def test_what_there_is_under_other_names_is_named(tmp_path: Path) -> None:
    one = file(tmp_path, TWO, ("optimizerG = ", "del netG  # "), ("optimizerD =", "adam ="))
    assert refusal(one).endswith(
        "missing: model, data with labels (or loader), optimizer; netD could be called model, trainloader could be "
        "called loader, adam could be called optimizer."
    )


def test_an_optimizer_beside_the_one_that_is_stepped_is_left_out_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    find(file(tmp_path, SCRIPT + "\nhead = optim.Adam(model.parameters())\n"))
    assert "the optimizer head is left out: optimizer is the one that is stepped" in capsys.readouterr().err


LOOP = """
if __name__ == "__main__":
    for epoch in range(3):
        prediction = model(data)
        value = loss(prediction, labels)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
"""


def test_what_the_files_own_loop_does_besides_is_named_once_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = "scheduler = optim.lr_scheduler.StepLR(optimizer, 2)\n"
    scenario = find(file(tmp_path, SCRIPT + schedule + LOOP))
    for _ in range(2):
        open_session(scenario)
    assert capsys.readouterr().err.splitlines() == [
        "plain_file.py, line 17: nn.utils.clip_grad_norm_(model.parameters(), 1.0) is left out.",
        "plain_file.py, line 19: scheduler.step() is left out: --decay plateau is the schedule that there is.",
    ]


def test_a_loop_of_the_four_phases_is_left_out_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = LOOP.replace("        scheduler.step()\n", "").replace(
        "        nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n", ""
    )
    find(file(tmp_path, SCRIPT + loop))
    assert capsys.readouterr().err == ""


def test_a_loader_that_never_ends_is_taken(tmp_path: Path) -> None:
    endless = """
from torch.utils.data import DataLoader, RandomSampler, TensorDataset
class InfiniteLoader:
    def __init__(self, rows):
        self.loader = DataLoader(rows, batch_size=4, sampler=RandomSampler(rows, replacement=True, num_samples=10**10))
        self.batches = iter(self.loader)
    def next(self):
        return next(self.batches)
rows = TensorDataset(data, labels)
train_loader = InfiniteLoader(rows)
del data
"""
    session = open_session(file(tmp_path, SCRIPT + endless))
    *_, last = session.run_all("fbsz*3")
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(SCRIPT + endless, names)
    for _ in range(3):
        data, labels = names["train_loader"].next()
        loss = names["loss"](names["model"](data), labels)
        loss.backward()
        names["optimizer"].step()
        names["optimizer"].zero_grad()
    assert last.loss == loss.item()


def test_a_file_that_trains_by_itself_is_refused(tmp_path: Path) -> None:
    loop = "\nfor _ in range(3):\n    value = loss(model(data), labels)\n    value.backward()\n    optimizer.step()\n"
    trained = file(tmp_path, SCRIPT + loop, ("lr=0.1", "lr=0.1, momentum=0.9"))
    assert "has stepped already" in refusal(trained)


def test_a_name_behind_a_file_without_scenarios_is_refused(tmp_path: Path) -> None:
    assert refusal(file(tmp_path) + ":build").endswith('holds no scenario "build".')


def test_a_seed_draws_the_files_own_tensors(tmp_path: Path) -> None:
    name = file(tmp_path)
    one, same, other = (open_session(name, seed=seed).frame.params[0].values for seed in (1, 1, 2))
    assert one == same != other


def test_opened_once_more_it_is_as_new(tmp_path: Path) -> None:
    scenario = find(file(tmp_path))
    *_, trained = open_session(scenario).run_all("fbsz*9")
    again = open_session(scenario, seed=1).frame
    torch.manual_seed(1)
    assert again.params[0].values == tuple(torch.nn.Linear(2, 1).weight.flatten().tolist())
    assert again.params[0].values != trained.params[0].values


GROUPED = (
    "optim.SGD([{'params': model.weight}, {'params': model.bias, 'lr': 0.5, 'momentum': 0.0}], lr=0.1, momentum=0.9)"
)


def test_an_optimizer_of_several_groups_trains_as_the_file_says(tmp_path: Path) -> None:
    whole = SCRIPT.replace("optim.SGD(model.parameters(), lr=0.1)", GROUPED)
    session = open_session(file(tmp_path, whole))
    *_, last = session.run_all("fbsz*3")
    assert last.learning_rates == (0.1, 0.5)
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(whole, names)
    for _ in range(3):
        names["loss"](names["model"](names["data"]), names["labels"]).backward()
        names["optimizer"].step()
        names["optimizer"].zero_grad()
    for row, param in zip(last.params, names["model"].parameters(), strict=True):
        assert row.values == tuple(param.detach().double().view(-1).tolist())
