"""The chain rule's arithmetic against torch's own autograd."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given as drawn
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from autograd_tui.core.trace import Operation, Trace
from autograd_tui.text.derivation.backward_lines import BACKWARD_RULES
from autograd_tui.text.derivation.chain_rule import chain_rule_lines
from autograd_tui.text.derivation.rule_context import NodeContext
from autograd_tui.text.derivation.small_tensor import summed_to
from autograd_tui.text.styled_text import length
from calculator import check
from differentiable_functions import EMBEDDING, FUNCTIONS, given
from suite_options import examples
from traced_functions import backward_of, text, warnings

SEEDS = st.integers(0, 10_000)


def ops_named(trace: Trace, name: str) -> list[Operation]:
    found = [op for op in trace.ops if op.name == name]
    assert found, [op.name for op in trace.ops]
    return found


def assert_worked(trace: Trace, op: Operation) -> None:
    """Compare what the rule works out for each input with the gradient that torch gave it."""
    parts = {part.index: part for part in BACKWARD_RULES[op.name](NodeContext(trace, op))}
    for place, recorded in enumerate(op.grad_out):
        if recorded is None:
            continue
        result = parts[place].result
        assert result is not None, (op.name, place)
        ours = torch.tensor(summed_to(result, recorded.stats.shape).values, dtype=torch.float64)
        theirs = torch.tensor(recorded.stats.values, dtype=torch.float64)
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
@examples(3)
@drawn(seed=SEEDS)
def test_what_a_rule_works_out_is_what_autograd_gives(name: str, seed: int) -> None:
    function, shapes, node = FUNCTIONS[name]
    trace = backward_of(function, given(shapes, seed))
    for op in ops_named(trace, node):
        assert_worked(trace, op)


@pytest.mark.parametrize("name", FUNCTIONS)
@examples(1)
@drawn(seed=SEEDS)
def test_no_line_contradicts_torch_nor_is_too_long(name: str, seed: int) -> None:
    function, shapes, _ = FUNCTIONS[name]
    backward = backward_of(function, given(shapes, seed))
    assert backward.forward is not None
    for trace in (backward.forward, backward):
        for op in trace.ops:
            for width in (78, 38):
                lines = chain_rule_lines(trace, op, width)
                assert warnings(lines) == "", text(lines)
                assert all(length(line) <= width for line in lines), text(lines)
            check(text(chain_rule_lines(trace, op, 9999)))  # no line contradicts a calculator either


@pytest.mark.parametrize("name", ["mul", "pow 2", "tanh", "sigmoid", "abs", "dot"])
@examples(5)
@drawn(seed=SEEDS)
def test_products_on_the_screen_can_be_checked_with_a_calculator(name: str, seed: int) -> None:
    function, shapes, node = FUNCTIONS[name]
    trace = backward_of(function, given(shapes, seed))
    written = text(chain_rule_lines(trace, ops_named(trace, node)[0], 1000))
    rows = [row for row in written.splitlines() if re.match(r"  \[\S+ × \S+, ", row)]
    assert rows
    for row in rows:
        left, _, right = row.strip().partition("] = ")
        results = [float(each) for each in re.sub(r"[\[\]]", " ", right).replace(",", " ").split()]
        for product, result in zip(left.strip("[ ").split(", "), results, strict=True):
            up, by = (float(each.strip("()")) for each in product.split(" × "))
            assert up * by == pytest.approx(result, rel=2e-2, abs=2e-3)


def test_an_embedding_adds_up_the_rows_that_were_looked_up() -> None:
    trace = backward_of(*EMBEDDING)
    assert_worked(trace, ops_named(trace, "EmbeddingBackward0")[0])


def test_dropout_is_a_product_with_its_mask() -> None:
    trace = backward_of(lambda a: functional.dropout(a, 0.5), given(((6,),), 1))
    assert_worked(trace, ops_named(trace, "MulBackward0")[-1])
    assert "dropout" in text(chain_rule_lines(trace, ops_named(trace, "MulBackward0")[-1], 80))


class Wrong(torch.autograd.Function):
    """Doubles, and says that it trebles."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad * 3


def test_a_custom_function_is_shown_as_it_is_without_a_formula() -> None:
    trace = backward_of(Wrong.apply, given(((3,),), 0))
    written = text(chain_rule_lines(trace, ops_named(trace, "WrongBackward")[0], 80))
    assert "No formula is known here for WrongBackward" in written
    assert " = " not in written
    assert "to a  got [" in written


def test_a_gradient_that_a_hook_has_changed_is_not_made_to_fit() -> None:
    def hooked(a: Tensor, b: Tensor) -> Tensor:
        product = a * b
        node = product.grad_fn
        assert node is not None
        node.register_hook(lambda outs, ins: tuple(out * 7 for out in outs))
        return product

    trace = backward_of(hooked, given(((3,), (3,)), 0))
    lines = chain_rule_lines(trace, ops_named(trace, "MulBackward0")[-1], 80)
    assert "this formula gives" in warnings(lines)
    assert "something else was computed" in warnings(lines)


def test_a_hook_of_a_parameter_is_not_taken_for_an_addition() -> None:
    trace = backward_of(_hooked, given(((3,),), 0))
    (op,) = [op for op in trace.ops if op.accumulates_into]
    written = text(chain_rule_lines(trace, op, 200))
    assert op.grad_in[0] is not None
    assert op.grad_after is not None
    agree = op.grad_in[0].stats.values == op.grad_after.stats.values
    assert ("None + " in written) == agree


def _hooked(a: Tensor) -> Tensor:
    def double(param: Tensor) -> None:
        assert param.grad is not None
        param.grad.mul_(2)

    a.register_post_accumulate_grad_hook(double)
    return a * 2


def test_a_tensor_used_twice_gets_the_sum_of_both_gradients() -> None:
    trace = backward_of(_twice, given(((3,),), 0))
    written = text(chain_rule_lines(trace, ops_named(trace, "ExpBackward0")[0], 80))
    assert "used 2 times" in written


def _twice(a: Tensor) -> Tensor:
    b = torch.exp(a)
    return torch.tanh(b) + torch.sin(b)


def test_a_broken_value_is_shown_and_not_calculated() -> None:
    trace = backward_of(lambda a: (a * 0) / (a * 0), given(((2,),), 0))
    written = text(chain_rule_lines(trace, ops_named(trace, "DivBackward0")[0], 80))
    assert "NaN" in written


def test_what_a_dtype_cannot_hold_is_said_to_be_too_large() -> None:
    trace = backward_of(lambda a: torch.exp(a) * 2, {"a": torch.tensor([100.0, 1.0])})
    assert trace.forward is not None
    lines = chain_rule_lines(trace.forward, trace.forward.ops[0], 80)
    assert "Too large for float32, which holds numbers up to 3.4e+38." in text(lines)
    assert "= [inf, 2.7183]" in text(lines)
    assert warnings(lines) == ""
