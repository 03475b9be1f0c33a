"""What is wrong inside a phase, found and named."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from autograd_tui import open_session
from autograd_tui.core.trace import Trace
from autograd_tui.text.trace.health import first_alarm, health_lines
from traced_functions import Function, open_made, text


def traces(function: Function, given: dict[str, Tensor], commands: str = "i:f i:b") -> list[Trace]:
    """Record phases, whether or not they raise."""
    session = open_made(function, given)
    found = []
    for command in commands.split():
        frame = session.run(command)
        assert frame.trace is not None
        found.append(frame.trace)
    return found


def health_text(trace: Trace) -> str:
    return text(health_lines(trace, 1000))


def test_a_healthy_phase_has_nothing_to_say() -> None:
    session = open_session("linear")
    for letter in "fbsz":
        trace = session.run(f"i:{letter}").trace
        assert trace is not None
        assert first_alarm(trace) is None
        assert health_lines(trace) == []


def test_the_operation_that_made_the_first_nan_is_named_and_its_inputs_were_finite() -> None:
    forward, _ = traces(lambda a: torch.sqrt(a - 1).exp() * 2, {"a": torch.tensor([0.5, 3.0])})
    assert first_alarm(forward) == 1
    assert "First NaN: 1 of 2 values out of sqrt, 2 of 8. Everything that went in was finite" in health_text(forward)


def test_infinity_is_called_infinity() -> None:
    forward, _ = traces(torch.log, {"a": torch.tensor([0.0, 3.0])})
    assert "First infinity: 1 of 2 values out of log" in health_text(forward)


def test_a_nan_in_a_parameter_is_blamed_on_the_parameter() -> None:
    forward, _ = traces(lambda a, b: a * b, {"a": torch.tensor([1.0]), "b": torch.tensor([float("nan")])})
    assert "It was already in what went in: b (1 of 1 values)." in health_text(forward)


def test_the_node_of_a_backward_that_made_the_first_infinity_is_named() -> None:
    _, backward = traces(lambda a: torch.sqrt(a), {"a": torch.tensor([0.0, 3.0])})
    index = first_alarm(backward)
    assert index is not None
    assert backward.ops[index].name == "SqrtBackward0"
    assert "out of SqrtBackward0" in health_text(backward)
    assert "was finite: it was made here" in health_text(backward)


FUTURE = torch.ones(3, 3).triu(1) == 1
WHOLE_ROW = torch.tensor([[False, True, True], [False, False, True], [True, True, True]])


def set_in_place(a: Tensor) -> Tensor:
    scores = a @ a.T
    scores[FUTURE] = -math.inf
    return scores.softmax(-1)


def filled_through_a_view(a: Tensor) -> Tensor:
    scores = a @ a.T
    scores[0, 1:].fill_(-math.inf)
    return scores.softmax(-1)


def greatest_so_far(a: Tensor) -> Tensor:
    most = torch.full((3,), -math.inf)
    for column in a.unbind(1):
        most = torch.maximum(most, column)
    return most


def attention_in_one_call(a: Tensor) -> Tensor:
    mask = torch.full((3, 3), -math.inf).triu(1)
    return functional.scaled_dot_product_attention(a[None], a[None], a[None], attn_mask=mask)


MASKED: dict[str, Callable[[Tensor], Tensor]] = {
    "masked_fill": lambda a: (a @ a.T).masked_fill(FUTURE, -math.inf).softmax(-1),
    "then scaled": lambda a: ((a @ a.T).masked_fill(FUTURE, -math.inf) / 2).softmax(-1),
    "where": lambda a: torch.where(FUTURE, torch.tensor(-math.inf), a @ a.T).log_softmax(-1).exp(),
    "added": lambda a: functional.softmax(a @ a.T + torch.full((3, 3), -math.inf).triu(1) * 1, 1),
    "log of 0": lambda a: (a + torch.eye(3).log()).softmax(-1),
    "padded": lambda a: functional.pad(a, (0, 1), value=-math.inf).amax(-1),
    "least of inf": lambda a: a.masked_fill(FUTURE, math.inf).amin(-1),
    "a loss that takes it": lambda a: functional.cross_entropy(a.masked_fill(FUTURE, -math.inf), torch.arange(3)),
    "set in place": set_in_place,
    "filled through a view": filled_through_a_view,
    "greatest so far": greatest_so_far,
    "attention in one call": attention_in_one_call,
}


@pytest.mark.parametrize("masked", MASKED.values(), ids=MASKED.keys())
def test_an_infinity_that_comes_to_neither_loss_nor_gradients_is_no_trouble(masked: Function) -> None:
    for trace in traces(masked, {"a": torch.randn(3, 3)}):
        assert first_alarm(trace) is None
        assert "First" not in health_text(trace)


def test_a_mask_is_no_trouble_where_a_phase_raises_behind_it() -> None:
    def misfit(a: Tensor) -> Tensor:
        return a.masked_fill(FUTURE, -math.inf) @ torch.ones(2, 2)

    def overwritten(a: Tensor) -> Tensor:
        weights = a.masked_fill(FUTURE, -math.inf).softmax(1)
        weights.add_(1)
        return weights

    forward = open_made(misfit, {"a": torch.randn(3, 3)}).run("i:f").trace
    assert forward is not None
    assert forward.error is not None
    assert first_alarm(forward) is None
    _, backward = traces(overwritten, {"a": torch.randn(3, 3)})
    assert backward.error is not None
    assert first_alarm(backward) is None


def test_a_nan_where_a_phase_raised_is_where_it_began() -> None:
    def refused(a: Tensor) -> Tensor:
        return functional.binary_cross_entropy(a.sqrt(), torch.ones(3))

    forward = open_made(refused, {"a": torch.tensor([0.5, -1.0, 0.25])}).run("i:f").trace
    assert forward is not None
    assert forward.error is not None
    assert "First NaN: 1 of 3 values out of sqrt, 1 of 3." in health_text(forward)


def test_a_mask_that_comes_to_the_loss_is_named() -> None:
    def target_masked(a: Tensor) -> Tensor:
        return functional.cross_entropy(a.masked_fill(FUTURE, -math.inf), torch.full((3,), 2))

    forward, _ = traces(target_masked, {"a": torch.randn(3, 3)})
    assert "First infinity: 3 of 9 values out of masked_fill, 1 of 4. The code asked for it" in health_text(forward)


def test_an_infinity_that_turns_into_nan_on_its_way_to_the_loss_is_where_it_began() -> None:
    forward, _ = traces(lambda a: ((a * 1000).exp() - math.inf).softmax(-1), {"a": torch.ones(3)})
    assert "First infinity: 3 of 3 values out of exp" in health_text(forward)


def test_the_nan_of_a_mask_times_0_is_blamed_on_the_product() -> None:
    def product(a: Tensor) -> Tensor:
        logs = a.masked_fill(FUTURE, -math.inf).log_softmax(-1)
        return logs.exp() * logs

    forward, _ = traces(product, {"a": torch.randn(3, 3)})
    assert "First NaN: 3 of 9 values out of mul, 4 of 8. It was made here." in health_text(forward)
    assert "A mask went in: log_softmax 2 (3 of 9 values)." in health_text(forward)


def test_a_nan_in_a_backward_behind_a_wholly_masked_row_is_blamed_on_that_row() -> None:
    def attention(a: Tensor) -> Tensor:
        scores = (a @ a.T).masked_fill(WHOLE_ROW, -math.inf)
        return functional.softmax(scores, 1)[:2]

    forward, backward = traces(attention, {"a": torch.randn(3, 3)})
    row = "A row of masked_fill 3 has nothing but -inf: softmax has 0 / 0 there."
    assert first_alarm(forward) == 3
    assert f"First NaN: 3 of 9 values out of softmax, 4 of 9. It was made here. {row}" in health_text(forward)
    assert f"It was already in what went in: softmax 4 (3 of 9 values). {row}" in health_text(backward)
    assert "masked_fill 3 (" not in health_text(backward)


def test_a_nan_that_the_forward_has_left_is_blamed_on_where_it_began_there() -> None:
    def attention(a: Tensor) -> Tensor:
        return functional.softmax((a @ a.T).masked_fill(WHOLE_ROW, -math.inf), 1) @ a

    _, backward = traces(attention, {"a": torch.randn(3, 3)})
    row = "A row of masked_fill 3 has nothing but -inf: softmax has 0 / 0 there."
    assert f"softmax 4 (3 of 9 values). {row}" in health_text(backward)
    _, backward = traces(lambda a: a.log().exp(), {"a": -torch.rand(3)})
    assert "prediction (3 of 3 values). It began in the forward, at log 1." in health_text(backward)


def test_what_a_backward_was_given_is_not_said_to_begin_at_a_later_operation() -> None:
    def entropy(a: Tensor) -> Tensor:
        logs = a.masked_fill(FUTURE, -math.inf).log_softmax(-1)
        return (logs.exp() * logs).sum()

    forward, backward = traces(entropy, {"a": torch.randn(3, 3)})
    assert "out of mul, 4 of" in health_text(forward)
    assert "It was already in what went in: log_softmax 2 (3 of 9 values)." in health_text(backward)
    assert "It began" not in health_text(backward)


def test_attention_in_one_call_says_what_a_wholly_masked_row_gives() -> None:
    attention = torch.nn.MultiheadAttention(3, 1)

    def padded(a: Tensor) -> Tensor:
        return attention(a, a, a, key_padding_mask=torch.ones(3, dtype=torch.bool))[0]

    forward, _ = traces(padded, {"a": torch.randn(3, 3)})
    assert "3 of 3 values): a row that it masks wholly is 0 / 0 in the softmax." in health_text(forward)


def test_a_change_that_autograd_does_not_count_is_no_trouble() -> None:
    def changed(a: Tensor) -> Tensor:
        hidden = torch.exp(a)
        hidden.data.add_(1)
        return hidden

    forward, backward = traces(changed, {"a": torch.rand(3)})
    assert "was kept" not in health_text(forward)
    assert backward.error is None


def test_what_memory_held_before_it_was_filled_is_no_trouble() -> None:
    def filled(a: Tensor) -> Tensor:
        torch.use_deterministic_algorithms(True)  # makes it NaN
        room = torch.empty(3)
        torch.use_deterministic_algorithms(False)
        assert room.isnan().all()
        return room.copy_(a)

    for trace in traces(filled, {"a": torch.rand(3)}):
        assert first_alarm(trace) is None


def test_units_that_are_dead_for_the_whole_batch_are_counted() -> None:
    def dead(a: Tensor) -> Tensor:
        return torch.relu(a - torch.tensor([9.0, 9.0, -9.0]))

    forward, _ = traces(dead, {"a": torch.rand(4, 3)})
    assert "relu 3: 2 of 3 units are 0 for all inputs." in health_text(forward)


def scaled(by: float) -> Function:
    """Make a function whose first layer gets a gradient so many times that of its last."""
    return lambda first, last: (first * by + last) * 2


FIRST_AND_LAST = {"first": torch.rand(3), "last": torch.rand(3)}


@pytest.mark.parametrize(
    ("by", "words"),
    [
        (1e-6, "Gradients vanish on their way back from the loss: norm 4.5826 in last, then norm 4.583e-06 in first."),
        (1e7, "Gradients explode on their way back from the loss: norm 4.5826 in last, then norm 4.583e+07 in first."),
        (0.0, "The gradient is exactly 0 for first: a step by it alone moves nothing there."),
    ],
)
def test_gradients_that_vanish_or_explode_are_named(by: float, words: str) -> None:
    _, backward = traces(scaled(by), FIRST_AND_LAST)
    assert words in health_text(backward)


def test_gradients_that_are_large_everywhere_explode_too() -> None:
    _, backward = traces(lambda a: a * 1e6, {"a": torch.rand(3)})
    assert "Gradients explode: norm 2.291e+06 in a." in health_text(backward)


def test_a_saved_tensor_that_was_changed_in_place_is_named_with_who_kept_it() -> None:
    def changed(a: Tensor, b: Tensor) -> Tensor:
        hidden = torch.exp(a)
        product = hidden * b
        hidden.add_(1)
        return product

    forward, backward = traces(changed, {"a": torch.rand(3), "b": torch.rand(3)})
    assert "exp 1 was kept at version 0; add_ 3 (line " in health_text(forward)
    assert "changed it: version 1. MulBackward0 keeps it as it was: its backward will raise." in health_text(forward)
    assert backward.error is not None
    assert "modified by an inplace operation" in backward.error.message
    assert "exp 1 was kept at version 0; add_ 3 (line " in health_text(backward)


def test_a_change_in_place_that_nobody_kept_is_no_trouble() -> None:
    def changed(a: Tensor) -> Tensor:
        hidden = a + 1
        hidden.mul_(2)
        return hidden.relu_()

    forward, backward = traces(changed, {"a": torch.rand(3, 2)})
    assert "was kept" not in health_text(forward)
    assert backward.error is None
