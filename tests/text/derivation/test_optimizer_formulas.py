"""Each optimizer's own formula against the step that torch really took."""

from __future__ import annotations

import pytest
import torch

from autograd_tui.core.trace import Trace
from autograd_tui.text.derivation.chain_rule import chain_rule_lines
from traced_functions import open_made, text, warnings

SGD = ["sgd", "sgd,weight_decay=0.1", "sgd,maximize=true", "sgd,weight_decay=0.1,maximize=true"]
SGD += ["sgd,momentum=0.9", "sgd,momentum=0.9,dampening=0.3", "sgd,momentum=0.9,nesterov=true"]
SGD += ["sgd,momentum=0.9,nesterov=true,weight_decay=0.1", "sgd,momentum=0.9,dampening=0.3,maximize=true"]
ADAM = ["adam", "adam,weight_decay=0.1", "adam,amsgrad=true", "adam,maximize=true", "adam,betas=(0.5,0.8)"]
ADAM += ["adam,weight_decay=0.1,decoupled_weight_decay=true", "adamw", "adamw,amsgrad=true,weight_decay=0.2"]
ADAM += ["adamw,maximize=true", "adam,eps=0.1"]
RMSPROP = ["rmsprop", "rmsprop,centered=true", "rmsprop,momentum=0.9", "rmsprop,weight_decay=0.1,alpha=0.5"]
RMSPROP += ["rmsprop,maximize=true,momentum=0.5,centered=true"]
OTHERS = ["adagrad", "adadelta", "adamax", "nadam", "radam", "asgd", "rprop", "adafactor"]


def steps_of(optimizer: str, *, size: int, dtype: torch.dtype = torch.float32) -> list[Trace]:
    given = {"a": torch.linspace(0.5, 2, size).to(dtype), "b": torch.linspace(-1, 1, size).to(dtype)}
    session = open_made(lambda a, b: (a * b + a**2).float(), given, optimizer=f"{optimizer},lr=0.05")
    traces = []
    for _ in range(4):
        *_, frame = session.run_all("fb i:s")
        assert frame.error is None
        assert frame.trace is not None
        traces.append(frame.trace)
        session.run("z")
    return traces


@pytest.mark.parametrize("size", [1, 3, 40])
@pytest.mark.parametrize("optimizer", SGD + ADAM + RMSPROP)
def test_the_formula_gives_what_torch_gave(optimizer: str, size: int) -> None:
    for trace in steps_of(optimizer, size=size):
        for op in trace.ops:
            lines = chain_rule_lines(trace, op, 78)
            assert warnings(lines) == "", text(lines)
            moved = [line for line in lines if any(style == "now" for _, style in line)]
            assert moved, text(lines)


@pytest.mark.parametrize("optimizer", OTHERS)
def test_an_optimizer_without_a_formula_is_shown_before_and_after(optimizer: str) -> None:
    trace = steps_of(optimizer, size=3)[-1]
    written = text(chain_rule_lines(trace, trace.ops[0], 78))
    assert f"No formula is known here for {optimizer}" in written
    assert "→" in written


def test_half_precision_is_judged_by_its_own_rounding() -> None:
    for trace in steps_of("sgd,momentum=0.9", size=3, dtype=torch.bfloat16):
        for op in trace.ops:
            assert warnings(chain_rule_lines(trace, op, 78)) == ""


def test_a_formula_that_does_not_hold_is_not_made_to_fit() -> None:
    trace = steps_of("adam", size=1)[-1]
    alien = type(trace)(trace.phase, trace.index, trace.iteration, trace.ops, optimizer="sgd,lr=0.05,momentum=0.9")
    assert "but PyTorch has" in warnings(chain_rule_lines(alien, alien.ops[0], 200))


def test_a_parameter_without_a_gradient_is_passed_over() -> None:
    session = open_made(lambda a, b: a * 2, {"a": torch.ones(2), "b": torch.ones(2)})
    *_, frame = session.run_all("fb i:s")
    trace = frame.trace
    assert trace is not None
    assert "Its gradient is None" in text(chain_rule_lines(trace, trace.ops[1], 80))


def test_a_small_move_of_a_large_number_is_told_apart() -> None:
    session = open_made(lambda a: a, {"a": torch.tensor([1.0])}, optimizer="sgd,lr=1e-5")
    *_, frame = session.run_all("fb i:s")
    trace = frame.trace
    assert trace is not None
    assert "= 1.00001" in text(chain_rule_lines(trace, trace.ops[0], 80))
