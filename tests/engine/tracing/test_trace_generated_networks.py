"""Laws of recording for generated networks. --examples 2000 asks for a long search."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from torch import Tensor

from autograd_tui.core.trace import Trace, Value
from generated_networks import PLANS, Plan, as_scenario
from plain_loop import differing
from session_internals import open_with_many_checkpoints, state_of, tensors
from suite_options import search


@search(15)
@given(PLANS)
def test_what_is_accumulated_adds_up_to_the_gradient_and_recording_changes_nothing(plan: Plan) -> None:
    recorded, unrecorded = (
        open_with_many_checkpoints(as_scenario(plan), seed=plan.seed, decay=None, device="cpu") for _ in range(2)
    )
    recorded.run("f")
    for letter in ("b", "f", "b", "s"):  # the second backward adds to the first
        trace = recorded.run(f"i:{letter}").trace
        assert trace is not None
        if letter == "b":
            assert_sums(trace, {name: param.grad for name, param in state_of(recorded).params.items()})
    list(unrecorded.run_all("fbfbs"))
    assert recorded.frame.same(unrecorded.frame)
    assert differing(tensors(recorded), tensors(unrecorded)) == []


def assert_sums(trace: Trace, held: dict[str, Tensor | None]) -> None:
    filled = {op.accumulates_into: op for op in trace.ops if op.accumulates_into}
    assert set(filled) == {name for name, grad in held.items() if grad is not None}
    for name, op in filled.items():
        grad = held[name or ""]
        assert grad is not None
        (given,), before, after = op.grad_in, op.grad_before, op.grad_after
        assert given is not None
        assert after is not None
        assert list(numbers(after)) == grad.double().reshape(-1)[: len(numbers(after))].tolist()
        for one, other, total in zip(numbers(given), numbers(before) or [0.0] * 16, numbers(after), strict=False):
            added = torch.tensor(one, dtype=grad.dtype) + torch.tensor(other, dtype=grad.dtype)
            assert added.item() == total or math.isnan(total)


def numbers(value: Value | None) -> tuple[float, ...]:
    return () if value is None else value.stats.values or ()
