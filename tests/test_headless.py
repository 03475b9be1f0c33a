from __future__ import annotations

import io
import json
import math
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from autograd_tui import Parts
from autograd_tui.cli import main
from autograd_tui.core.command import parse
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.training.scenario import Scenario
from autograd_tui.headless import run_headless
from autograd_tui.text.frame_summary import HEADER
from suite_options import examples


def run(commands: str, *, json_lines: bool = True) -> tuple[int, list[str]]:
    out = io.StringIO()
    code = run_headless(open_session("linear"), parse(commands), json_lines=json_lines, out=out)
    return code, out.getvalue().splitlines()


def objects(commands: str) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no strict JSON")

    return [json.loads(line, parse_constant=refuse) for line in run(commands)[1]]


def test_every_command_has_its_line() -> None:
    assert [each["command"] for each in objects("fbsz lr=0.5 w=3 F")] == ["f", "b", "s", "z", "lr=0.5", "w=3", "F"]


def test_the_line_learns_as_its_lesson_says() -> None:
    losses = [each["loss"] for each in objects("fbsz*3") if each["phase"] == "forward"]
    assert losses == pytest.approx([3.666667, 3.318520, 3.158808], abs=1e-6)


def test_a_recorded_phase_has_a_line_for_each_operation() -> None:
    lines = run("f i:b i:s", json_lines=False)[1]
    assert [line.split()[1:] for line in lines[7:10]] == [
        ["AccumulateGrad", "b.grad", "None", "->", "2"],
        ["MulBackward0", "[2,", "0.6667,", "-0.6667]", "->", "1.3333,", "None"],
        ["AccumulateGrad", "w.grad", "None", "->", "1.3333"],
    ]
    assert lines[11].split() == ["1", "w", "w", "2,", "w.grad", "1.3333", "->", "1.8667"]


def test_a_recorded_phase_has_its_operations_in_json() -> None:
    forward, backward = objects("i:f i:b")
    assert [op["name"] for op in forward["trace"]["ops"]] == ["mul", "add", "sub", "pow", "mean"]
    assert backward["trace"]["ops"][-1]["accumulates_into"] == "w"


def test_going_back_prints_the_frame_arrived_at() -> None:
    assert [each["index"] for each in objects("fbsz @2 undo @0")] == [1, 2, 3, 4, 2, 1, 0]


def test_numbers_that_json_lacks_are_words() -> None:
    forward = objects("w=inf b=nan f")[-1]
    assert (forward["loss"], forward["params"]["w"]["values"]) == ("NaN", ["Infinity"])


words = st.sampled_from([*"fbszFBSZ", "lr=1e30", "w=nan", "b=-inf", "undo", "@0"])


@examples(15)
@given(st.lists(words, max_size=8))
def test_whatever_is_run_prints_strict_json(run_words: list[str]) -> None:
    for each in objects(" ".join(run_words)):
        assert math.isfinite(each["seconds"])


def test_a_watchpoint_that_fires_is_said_beside_the_lines_and_changes_no_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = main(["linear", "--headless", "--do", "fbsz*3", "--watch", "grad_norm > 2", "--watch", "w < 1.9"])
    said = capsys.readouterr().err.splitlines()
    assert code == 0
    assert said[:2] == ["autograd-tui: frame 2: grad_norm 2.404 > 2", "autograd-tui: frame 3: w 1.867 < 1.9"]


@pytest.mark.parametrize(
    ("commands", "code", "lines"),
    [
        ("", 0, 0),
        ("fbsz", 0, 4),
        ("fbB", 0, 3),  # what a forced command raises is a result
        ("B", 0, 1),
        ("b", 1, 0),  # out of turn
        ("fbb", 1, 2),
        ("f lr=-1 f", 1, 1),
        ("f q=1 f", 1, 1),
        ("f @9", 1, 1),
        ("undo", 1, 0),
        ("f optimizer=lbfgs", 1, 1),
    ],
)
def test_the_exit_code_says_how_it_went(commands: str, code: int, lines: int) -> None:
    got, written = run(commands)
    assert (got, len(written)) == (code, lines)


def test_a_refusal_is_one_sentence_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    run("b")
    assert capsys.readouterr().err.splitlines() == [
        "autograd-tui: backward needs a loss, and there is none yet: run forward first (B tries it all the same)."
    ]


def test_a_table_has_one_header() -> None:
    lines = run("fbsz", json_lines=False)[1]
    assert (lines[0], len(lines)) == (HEADER, 5)


def test_a_table_of_nothing_has_no_header() -> None:
    assert run("", json_lines=False) == (0, [])


class Flushed(io.StringIO):
    """Counts what a reader of a pipe would have seen."""

    flushes = 0

    def flush(self) -> None:
        self.flushes += 1


@pytest.mark.parametrize("json_lines", [True, False])
def test_each_line_is_flushed_as_it_comes(json_lines: bool) -> None:
    out = Flushed()
    run_headless(open_session("linear"), parse("fbsz"), json_lines=json_lines, out=out)
    assert out.flushes == 4


def test_returning_to_a_branch_prints_the_frame_arrived_at() -> None:
    assert [each["index"] for each in objects("fbs @1 lr=1 branch=1")] == [1, 2, 3, 1, 2, 3]


def test_what_going_back_will_cost_is_said_where_no_checkpoint_fits(capsys: pytest.CaptureFixture[str]) -> None:
    run_headless(open_session("linear", memory="10kB"), parse("f @0"), json_lines=True, out=io.StringIO())
    assert capsys.readouterr().err.splitlines() == [
        "autograd-tui: no checkpoint of 16.4 kB fits into --memory 10kB: going back runs everything again from frame 0."
    ]


class Counting(nn.Module):
    """Counts where no checkpoint looks."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.elsewhere = nn.Parameter(torch.ones(1)), ModuleType("elsewhere")
        self.elsewhere.calls = 0  # type: ignore[attr-defined]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.elsewhere.calls += 1  # type: ignore[attr-defined]
        return self.w * x + self.elsewhere.calls


def test_a_frame_that_differs_when_run_again_is_said_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    ones = torch.ones(1)
    parts = Parts(model=Counting(), batch=lambda i: (ones, ones), loss=nn.functional.mse_loss)
    session = open_session(Scenario("counting", lambda options: parts))
    run_headless(session, parse("fb @1"), json_lines=True, out=io.StringIO())
    assert capsys.readouterr().err.splitlines() == [
        "autograd-tui: run again, frame 1 is not what it was: loss 1.0000 → 4.0000."
    ]


def test_a_tensor_that_no_step_moves_is_said_once_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    scale = nn.Parameter(torch.ones(1))
    ones = torch.ones(1)
    parts = Parts(model=nn.Linear(1, 1), batch=lambda i: ones, forward=lambda model, x: (model(x) * scale).sum())
    session = open_session(Scenario("beside", lambda options: parts))
    run_headless(session, parse("fbszfb"), json_lines=True, out=io.StringIO())
    assert capsys.readouterr().err.splitlines() == [
        "autograd-tui: The gradient also reached a tensor that is none of the model's parameters, so no step moves it "
        "(1): scale is used beside the model: only what is a module or parameter of the model is trained."
    ]
