"""Of what is not finite, one value that is not is worked, and the rest is counted."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from autograd_tui.core.trace import Operation, Trace
from autograd_tui.text.derivation.chain_rule import chain_rule_lines
from autograd_tui.text.derivation.derivation import nonfinite_counts
from autograd_tui.text.derivation.small_tensor import exact_sum, exponential, logarithm, power, quotient, root
from autograd_tui.text.numbers import count, estimate, terse
from autograd_tui.text.trace.health import health_lines
from autograd_tui.text.trace.tensor_words import name_of
from traced_functions import Function, open_made, text, warnings

SIZES = [(2, 3), (5, 5), (40, 50)]  # all values in a row of the table, few, and many


def numbers(shape: tuple[int, ...]) -> Tensor:
    """Give numbers from -2 to 2, the lowest not first, 0 among them."""
    count = math.prod(shape)
    return torch.linspace(-2, 2, count - 1 + count % 2).repeat(2)[:count].roll(count // 3).reshape(shape)


def traces(function: Function, given: dict[str, Tensor]) -> tuple[Trace, Trace]:
    session = open_made(function, given)
    forward, backward = (session.run(f"i:{letter}").trace for letter in "fb")
    assert forward is not None
    assert backward is not None
    return forward, backward


def called(trace: Trace, name: str) -> Operation:
    return next(op for op in trace.ops if op.name == name)


def said(trace: Trace, op: Operation) -> str:
    """Give what stands in the panel; no formula may be contradicted."""
    lines = chain_rule_lines(trace, op, 400)
    assert not warnings(lines)
    return text(lines)


def first_nan(made: Tensor) -> tuple[int, ...]:
    return tuple(made.isnan().nonzero()[0].tolist())


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize(
    ("function", "name", "written"),
    [
        (torch.sqrt, "sqrt", "sqrt({})"),
        (torch.log, "log", "log({})"),
        (torch.acos, "acos", "acos({})"),
        (lambda a: a**0.5, "pow", "({})^0.5"),
        (lambda a: a.relu() * math.inf, "mul", "0 × inf"),
        (lambda a: a.relu() / a.relu(), "div", "0 / 0"),
    ],
)
def test_the_first_nan_of_a_forward_is_worked(
    function: Function, name: str, written: str, shape: tuple[int, ...]
) -> None:
    a = numbers(shape)
    made = function(a)
    forward, _ = traces(function, {"a": a.clone()})
    op, place = called(forward, name), first_nan(made)
    (found,) = op.not_finite
    assert (found.nans, found.infinities) == (int(made.isnan().sum()), int(made.isinf().sum()))
    shown, at = said(forward, op), f"The first, at [{', '.join(map(str, place))}]: "
    assert f"{nonfinite_counts(found, made.numel())}. {at}" in shown
    start, end = written.split("{}") if "{}" in written else (written, "")
    equation = shown.split(at)[1].split(".\n")[0]
    assert equation.startswith(start)
    assert equation.endswith(f"{end} = NaN")
    if "{}" in written:
        assert float(equation.removeprefix(start).removesuffix(f"{end} = NaN")) == pytest.approx(a[place].item(), 1e-3)
    assert "first value: " not in shown
    stats = op.inputs[0].stats
    least = estimate(stats.min or 0.0) if stats.range_sampled else terse(stats.min or 0.0)
    assert f"What went in: {name_of(forward, op.inputs[0])} from {least} to " in shown


@pytest.mark.parametrize("shape", SIZES)
def test_the_first_nan_of_a_backward_is_worked_and_what_the_node_kept_there_is_told(shape: tuple[int, ...]) -> None:
    a = numbers(shape)
    _, backward = traces(lambda a: a.relu().sqrt() * 0 + a, {"a": a.clone()})
    op = called(backward, "SqrtBackward0")
    place = tuple((a <= 0).nonzero()[0].tolist())
    (found,) = op.not_finite
    assert (found.nans, found.infinities, found.index) == (int((a <= 0).sum()), 0, place)
    shown = said(backward, op)
    assert f"The first, at [{', '.join(map(str, place))}]: 0 × inf = NaN, where sqrt 2 is 0." in shown
    assert "What went in: upstream 0, sqrt 2 from 0 to 1.4142." in shown
    assert f"First NaN: {count(found.nans)} of {count(a.numel())} values" in text(health_lines(backward, 400))


@pytest.mark.parametrize("shape", SIZES)
def test_each_gradient_that_is_not_finite_has_its_own_count(shape: tuple[int, ...]) -> None:
    a, b = numbers(shape).abs() + 1, torch.zeros(shape)
    b.view(-1)[1] = 1.0
    _, backward = traces(lambda a, b: a / b, {"a": a, "b": b})
    op = called(backward, "DivBackward0")
    assert op.grad_in[0] is not None
    x, y = a.clone().requires_grad_(), b.clone().requires_grad_()
    weights = torch.linspace(-1.0, 2.0, a.numel()).reshape(shape)
    torch.autograd.backward((x / y * weights).sum())
    assert x.grad is not None
    assert y.grad is not None
    for found, grad in zip(op.not_finite, (x.grad, y.grad), strict=True):
        assert (found.nans, found.infinities) == (int(grad.isnan().sum()), int(grad.isinf().sum()))
        assert math.isnan(found.value) == bool(found.nans)


def test_an_infinity_that_is_too_large_for_its_dtype_is_said_to_be() -> None:
    for shape in SIZES:
        forward, _ = traces(lambda a: (a * 60).exp(), {"a": numbers(shape)})
        shown = said(forward, called(forward, "exp"))
        assert " = inf." in shown
        assert shown.count("Too large for float32, which holds numbers up to 3.4e+38.") == 1


def test_a_softmax_that_made_nan_says_what_stood_there() -> None:
    for shape in SIZES:
        forward, _ = traces(lambda a: functional.softmax(torch.full_like(a, -math.inf) + a, 1), {"a": numbers(shape)})
        assert "The first, at [0, 0], where add 2 is -inf." in said(forward, called(forward, "softmax"))


def test_what_was_changed_in_place_and_is_too_large_to_be_kept_is_only_counted() -> None:
    forward, _ = traces(lambda a: (a * 1).sqrt_(), {"a": numbers((40, 50))})
    shown = said(forward, called(forward, "sqrt_"))
    assert "values are NaN. The first, at [" in shown
    assert "= NaN" not in shown


def test_a_large_gradient_of_zeros_has_the_norm_0() -> None:
    _, backward = traces(lambda a: a.exp() * 0, {"a": torch.rand(40, 50)})
    assert [value.stats.norm for value in called(backward, "ExpBackward0").grad_in if value] == [0.0]


@pytest.mark.parametrize(
    ("function", "alike"),
    [
        (logarithm, torch.log),
        (root, torch.sqrt),
        (exponential, torch.exp),
        (lambda x: quotient(1, x), torch.reciprocal),
    ],
)
def test_arithmetic_with_what_is_not_finite_is_pytorchs(function: object, alike: object) -> None:
    values = [-math.inf, -1e300, -1.0, -0.0, 0.0, 1e-300, 1.0, 800.0, math.inf, math.nan]
    ours = torch.tensor([function(x) for x in values], dtype=torch.float64)  # type: ignore[operator]
    theirs = alike(torch.tensor(values, dtype=torch.float64))  # type: ignore[operator]
    assert torch.allclose(ours, theirs, rtol=1e-12, equal_nan=True)


def test_powers_and_quotients_are_pytorchs() -> None:
    values = [-math.inf, -2.0, -0.0, 0.0, 0.5, 3.0, math.inf, math.nan]
    pairs = [(a, b) for a in values for b in values]
    bases, exponents = (torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True))
    for ours, theirs in ((power, torch.pow), (quotient, torch.div)):
        worked = torch.tensor([ours(a, b) for a, b in pairs], dtype=torch.float64)
        assert torch.allclose(worked, theirs(bases, exponents), rtol=1e-12, equal_nan=True)


@pytest.mark.parametrize(
    ("values", "total"), [([math.inf, -math.inf], math.nan), ([1e308, 1e308], math.inf), ([0.1] * 10, 1.0)]
)
def test_any_values_have_a_sum(values: list[float], total: float) -> None:
    assert repr(exact_sum(values)) == repr(total)


def test_a_finite_value_that_is_worked_is_said_to_be_no_nan_where_others_are() -> None:
    given = torch.ones(40, 50)
    given[0, 1] = -1.0

    def function(a: Tensor) -> Tensor:
        return torch.log(a) * 3 * 2

    forward, _ = traces(function, {"a": given})
    sentence = "This value is finite; 1 of 2 000 values is NaN or infinite, as are some of "
    _, second, *_ = [op for op in forward.ops if op.name == "mul"]
    assert f"first value: 0 × 2 = 0 {sentence}" in " ".join(said(forward, second).split())


def test_the_range_of_a_large_input_is_written_where_all_is_finite() -> None:
    forward, _ = traces(torch.relu, {"a": torch.linspace(-2, 5, 2000).reshape(40, 50)})
    assert "What went in: a from ~-2.0 to ~5.0." in said(forward, called(forward, "relu"))  # a parameter: of a sample
    doubled, _ = traces(lambda a: torch.relu(a * 2), {"a": torch.linspace(-2, 5, 2000).reshape(40, 50)})
    assert "from -4 to 10." in said(doubled, called(doubled, "relu"))
    few, _ = traces(torch.relu, {"a": torch.tensor([-2.0, 5.0])})
    assert "What went in" not in said(few, called(few, "relu"))


def test_of_a_single_value_it_is_said_once_that_it_is_nan() -> None:
    forward, _ = traces(lambda a: (a.mean() - 3).log(), {"a": torch.ones(2, 2)})
    shown = said(forward, called(forward, "log"))
    assert "It is NaN: log(-2) = NaN." in shown
    assert "values" not in shown
