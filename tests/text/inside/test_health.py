"""What is wrong inside a phase, found and named."""

from __future__ import annotations

import pytest
import torch
from recorded_functions import Function, open_made, text
from torch import Tensor
from torch.nn import functional

from autograd_tui import open_session
from autograd_tui.engine.values.trace import Trace
from autograd_tui.text.inside.health import first_trouble, health_lines


def traces(function: Function, given: dict[str, Tensor], commands: str = "i:f i:b") -> list[Trace]:
    """Record phases, whether or not they raise."""
    session = open_made(function, given)
    found = []
    for command in commands.split():
        frame = session.run(command)
        assert frame.trace is not None
        found.append(frame.trace)
    return found


def said(trace: Trace) -> str:
    return text(health_lines(trace, 1000))


def test_a_healthy_phase_has_nothing_to_say() -> None:
    session = open_session("linear")
    for letter in "fbsz":
        trace = session.run(f"i:{letter}").trace
        assert trace is not None
        assert first_trouble(trace) is None
        assert health_lines(trace) == []


def test_the_operation_that_made_the_first_nan_is_named_and_its_inputs_were_finite() -> None:
    forward, _ = traces(lambda a: torch.sqrt(a - 1).exp() * 2, {"a": torch.tensor([0.5, 3.0])})
    assert first_trouble(forward) == 1
    assert "First NaN: 1 of 2 values out of sqrt, 2 of 8. Everything that went in was finite" in said(forward)


def test_infinity_is_called_infinity() -> None:
    forward, _ = traces(torch.log, {"a": torch.tensor([0.0, 3.0])})
    assert "First infinity: 1 of 2 values out of log" in said(forward)


def test_a_nan_in_a_parameter_is_blamed_on_the_parameter() -> None:
    forward, _ = traces(lambda a, b: a * b, {"a": torch.tensor([1.0]), "b": torch.tensor([float("nan")])})
    assert "It was already in what went in: b (1 of 1 values)." in said(forward)


def test_the_node_of_a_backward_that_made_the_first_infinity_is_named() -> None:
    _, backward = traces(lambda a: torch.sqrt(a), {"a": torch.tensor([0.0, 3.0])})
    place = first_trouble(backward)
    assert place is not None
    assert backward.ops[place].name == "SqrtBackward0"
    assert "out of SqrtBackward0" in said(backward)
    assert "was finite: it was made here" in said(backward)


def test_a_mask_of_minus_infinity_is_no_trouble() -> None:
    def masked(a: Tensor) -> Tensor:
        mask = torch.full((2, 2), float("-inf")).triu(1)
        return functional.softmax(a + mask * 1, 1)

    forward, backward = traces(masked, {"a": torch.rand(2, 2)})
    assert all(word not in said(trace) for trace in (forward, backward) for word in ("full", "triu"))


def test_units_that_are_dead_for_the_whole_batch_are_counted() -> None:
    def dead(a: Tensor) -> Tensor:
        return torch.relu(a - torch.tensor([9.0, 9.0, -9.0]))

    forward, _ = traces(dead, {"a": torch.rand(4, 3)})
    assert "relu 3: 2 of 3 units are 0 for all inputs." in said(forward)


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
    assert words in said(backward)


def test_gradients_that_are_large_everywhere_explode_too() -> None:
    _, backward = traces(lambda a: a * 1e6, {"a": torch.rand(3)})
    assert "Gradients explode: norm 2.291e+06 in a." in said(backward)


def test_a_saved_tensor_that_was_changed_in_place_is_named_with_who_kept_it() -> None:
    def changed(a: Tensor, b: Tensor) -> Tensor:
        hidden = torch.exp(a)
        product = hidden * b
        hidden.add_(1)
        return product

    forward, backward = traces(changed, {"a": torch.rand(3), "b": torch.rand(3)})
    assert "add_ 3 changed exp 1 in place" in said(forward)
    assert "which MulBackward0 keeps as it was: its backward raises" in said(forward)
    assert backward.error is not None
    assert "modified by an inplace operation" in backward.error.message
    assert "add_ 3 changed exp 1 in place" in said(backward)


def test_a_change_in_place_that_nobody_kept_is_no_trouble() -> None:
    def changed(a: Tensor) -> Tensor:
        hidden = a + 1
        hidden.mul_(2)
        return hidden.relu_()

    forward, backward = traces(changed, {"a": torch.rand(3, 2)})
    assert "in place" not in said(forward)
    assert backward.error is None
