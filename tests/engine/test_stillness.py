"""A run in which nothing changes any more: it is told from one that only waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from autograd_tui.core.replay_check import MIN_ITERATIONS, Stillness
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session
from autograd_tui.text.story import standstill_line

SCENARIO = """
import torch
from torch import nn
from autograd_tui import Options, Parts, scenario

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.dropout = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(2)
        self.calls = 0
        self.register_buffer("step", torch.zeros(()))  # whatever the code does with it

    def forward(self, x):
        self.calls += 1
        {forward}

@scenario("mine")
def build(options):
    x = torch.arange(8.0).reshape(4, 2)
    def batch(i):
        {batch}
    return Parts(model=Model(), batch=batch, loss=nn.functional.mse_loss, optimizer="{optimizer}")
"""
PLAIN = "return self.layer(x)"
FIXED = "return x, x.sum(1, keepdim=True)"
LATE = "return self.layer(x) * (self.calls % 50 == 0)"  # a gradient comes every 50 iterations alone


def iterations_until_still(session: Session, most: int) -> int:
    """Run phase by phase, and return for how many iterations all has been the same; 0 where that is never so."""
    stillness = Stillness()
    for frame in session.run_all(f"fbsz*{most}"):
        if count := stillness.iterations(frame, session.history.loss):
            return count
    return 0


def opened(folder: Path, *, forward: str = PLAIN, batch: str = FIXED, optimizer: str = "sgd,lr=0") -> Session:
    source = folder / "mine.py"
    source.write_text(SCENARIO.format(forward=forward, batch=batch, optimizer=optimizer))
    return open_session(str(source))


def test_at_a_learning_rate_of_zero_nothing_changes(tmp_path: Path) -> None:
    session = opened(tmp_path)
    assert iterations_until_still(session, 150) == MIN_ITERATIONS
    said = standstill_line(session.frame, 1234)
    assert said == (
        "the run ends here: in the last 1,234 iterations no parameter has changed by a bit: the learning rate is 0."
    )


def test_counters_and_settled_statistics_of_a_batch_norm_are_no_change(tmp_path: Path) -> None:
    session = opened(tmp_path, forward="return self.layer(self.norm(x))")
    assert iterations_until_still(session, 1000) >= MIN_ITERATIONS


@pytest.mark.parametrize(
    "change",
    [
        {"forward": "return self.layer(self.dropout(x))"},
        {"batch": "return x + i % 7, x.sum(1, keepdim=True)"},
        {"batch": "return x * (i % 90 == 89), 0 * x.sum(1, keepdim=True)"},
        {"optimizer": "sgd,lr=1e-9,momentum=0.9"},
        {"optimizer": "adam,lr=1e-12"},
        {"forward": "self.step += 1; return self.layer(x)"},
        {"forward": LATE, "optimizer": "sgd,lr=0.001"},
    ],
    ids=lambda change: " ".join(change),
)
def test_a_run_that_only_waits_is_not_still(tmp_path: Path, change: dict[str, str]) -> None:
    assert not iterations_until_still(opened(tmp_path, **change), 200)


def test_where_no_parameter_gets_a_gradient_only_forwards_run(tmp_path: Path) -> None:
    session, stillness = open_session("linear"), Stillness()
    session.run("requires_grad=False")
    counts = [stillness.iterations(session.run("f"), session.history.loss) for _ in range(MIN_ITERATIONS + 1)]
    assert counts == [0] * MIN_ITERATIONS + [MIN_ITERATIONS]
    assert standstill_line(session.frame, 100).endswith(": no parameter gets a gradient.")


def test_nan_stays_nan() -> None:
    session = open_session("linear")
    session.run("w=nan")
    assert iterations_until_still(session, 150) == MIN_ITERATIONS
    assert standstill_line(session.frame, 100).endswith(": what they hold is NaN or infinite, and stays so.")


def test_the_line_comes_to_rest_where_its_steps_are_too_little(tmp_path: Path) -> None:
    session, stillness = open_session("linear"), Stillness()
    counts = []
    for frame in session.run_free(session.end_of(60_000), lambda: False, every=0.05):
        counts.append(stillness.iterations(frame, session.history.loss))
        if counts[-1]:
            break
    assert counts[-1]
    assert standstill_line(session.frame, 100).endswith(
        "what a step would move is too little for their digits to hold."
    )
