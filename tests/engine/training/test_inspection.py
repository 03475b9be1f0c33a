from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.core.errors import Refused
from autograd_tui.core.tensor_stats import HISTOGRAM_BINS
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.training import inspection as exact
from autograd_tui.engine.training.inspection import cosine, exact_row
from float_tensors import float_tensors
from models_hard_to_repeat import words
from plain_loop import copied, differing, small_net
from session_internals import as_scenario, state_of, tensors
from suite_options import examples

SIZES = (1, 2, 16, 17, 3000)


def alike(one: float | None, other: float | torch.Tensor) -> bool:
    assert one is not None
    return math.isclose(one, float(other), rel_tol=1e-11) or (math.isnan(one) and math.isnan(float(other)))


@given(float_tensors(SIZES))
def test_an_exact_row_is_what_torch_finds_in_double_precision(tensor: torch.Tensor) -> None:
    row, values = exact_row("it", tensor), tensor.double()
    assert alike(row.norm, torch.linalg.vector_norm(values))
    assert alike(row.min, values.min())
    assert alike(row.max, values.max())
    if values.isfinite().all():
        size = float(values.abs().max())  # digits are lost where values cancel
        assert row.mean == pytest.approx(float(values.mean()), rel=1e-11, abs=1e-14 * size)
        assert row.std == pytest.approx(float(values.std(correction=0)), rel=1e-11, abs=1e-14 * size)
    assert row.nonfinite == int((~values.isfinite()).sum())
    assert not row.sampled


@given(float_tensors(SIZES))
def test_the_histogram_counts_every_finite_value(tensor: torch.Tensor) -> None:
    histogram = exact_row("it", tensor).histogram
    assert (histogram is None) == (tensor.numel() <= 16)
    if histogram is not None:
        assert len(histogram) == HISTOGRAM_BINS
        assert sum(histogram) == int(tensor.isfinite().sum())


@examples(15)
@given(float_tensors((3000,)), st.integers(1, 3000))
def test_a_tensor_measured_in_parts_gives_the_same_numbers(tensor: torch.Tensor, part: int) -> None:
    whole = exact_row("it", tensor)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "CHUNK_SIZE", part)
        parts = exact_row("it", tensor)
    assert parts.histogram == whole.histogram
    assert alike(parts.norm, whole.norm or 0.0)


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_squares_beyond_double_precision_do_no_harm(size: float) -> None:
    row = exact_row("it", torch.tensor([3.0, -4.0], dtype=torch.float64) * size)
    assert alike(row.norm, 5 * size)
    assert alike(row.std, 3.5 * size)


@pytest.mark.parametrize("tensor", [torch.zeros(0), torch.ones(2, dtype=torch.bool)])
def test_what_a_dtype_or_size_cannot_give_is_none(tensor: torch.Tensor) -> None:
    row = exact_row("it", tensor)
    assert (row.norm, row.values, row.histogram) == (None, None, None)


def test_a_complex_tensor_has_a_norm_and_no_least_value() -> None:
    tensor = torch.complex(torch.randn(40), torch.randn(40))
    row = exact_row("it", tensor)
    assert row.norm == pytest.approx(float(torch.linalg.vector_norm(tensor)))
    assert (row.min, row.max, row.mean, row.nonfinite, row.histogram) == (None, None, None, 0, None)


def test_the_cosine_of_complex_tensors_is_that_of_their_real_numbers() -> None:
    one, other = torch.randn(4, dtype=torch.complex64), torch.randn(4, dtype=torch.complex64)
    reals = [torch.view_as_real(each).reshape(-1) for each in (one, other)]
    found = cosine(one, other, norms=[float(each.norm()) for each in reals])
    assert found == pytest.approx(float(torch.nn.functional.cosine_similarity(*reals, dim=0)))  # type: ignore[arg-type, misc]


def test_the_cosine_is_the_one_that_torch_finds() -> None:
    one, other = torch.randn(40), torch.randn(40)
    wanted = torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=0)
    assert alike(angle(one, other), wanted)


@pytest.mark.parametrize("other", [torch.zeros(40), torch.full((40,), math.nan), torch.ones(39)])
def test_what_has_no_direction_has_no_cosine(other: torch.Tensor) -> None:
    assert angle(torch.ones(40), other) is None


def angle(one: torch.Tensor, other: torch.Tensor) -> float | None:
    return cosine(one, other, norms=[exact_row("", each).norm for each in (one, other)])


@pytest.mark.parametrize(
    ("optimizer", "keys", "velocity"),
    [
        ("sgd", [], None),
        ("sgd,momentum=0.9", ["momentum_buffer"], "momentum_buffer"),
        ("adam", ["step", "exp_avg", "exp_avg_sq"], "exp_avg"),
    ],
)
def test_an_inspection_is_of_the_live_tensors(optimizer: str, keys: list[str], velocity: str | None) -> None:
    session = open_session(as_scenario(small_net), optimizer=optimizer, lr=0.01)
    list(session.run_all("fbsz fbs"))
    found, state = session.inspect("4.weight"), state_of(session)
    param = state.params["4.weight"]
    assert param.grad is not None
    assert found.index == session.frame.index
    assert alike(found.value.norm, torch.linalg.vector_norm(param.detach().double()))
    assert found.grad is not None
    assert alike(found.grad.mean, param.grad.double().mean())
    assert [row.name for row in found.state] == keys
    state = state.optimizer.state[param]
    for row in found.state:
        assert alike(row.norm, torch.linalg.vector_norm(state[row.name].double()))
    if velocity is None:
        assert found.cosine is None
    else:
        pair = (state[velocity].double().view(-1), param.grad.double().view(-1))
        assert alike(found.cosine, torch.nn.functional.cosine_similarity(*pair, dim=0))


@pytest.mark.parametrize("commands", ["", "f", "fb", "fbs", "fbsz", "fbsfb", "fb lr=0.1 B"])
def test_an_inspection_touches_nothing(commands: str) -> None:
    session = open_session(as_scenario(small_net), optimizer="adam")
    list(session.run_all(commands))
    state, frame = state_of(session), session.frame
    versions = [(param._version, param.grad is None or param.grad._version) for param in state.params.values()]
    before, rng, spelled = copied(tensors(session)), torch.get_rng_state(), session.commands()
    for name in state.params:
        session.inspect(name)
    assert differing(tensors(session), before) == []
    assert torch.equal(torch.get_rng_state(), rng)
    assert versions == [(param._version, param.grad is None or param.grad._version) for param in state.params.values()]
    assert session.frame is frame
    assert not [param for param in state.params.values() if state.optimizer.state.get(param) == {}]
    assert session.commands() == spelled


def test_after_an_inspection_training_goes_on_to_the_same_bits() -> None:
    inspected, plain = (open_session(as_scenario(small_net), optimizer="adam") for _ in range(2))
    for command in "fbszfbs":
        plain.run(command)
        inspected.run(command)
        inspected.inspect("0.weight")
    assert differing(tensors(inspected), copied(tensors(plain))) == []


def test_a_sparse_gradient_has_the_numbers_of_what_it_holds() -> None:
    session = open_session(as_scenario(words))
    list(session.run_all("fb"))
    found, grad = session.inspect("words.weight").grad, state_of(session).params["words.weight"].grad
    assert found is not None
    assert grad is not None
    held = grad.coalesce().values()
    assert found.norm == pytest.approx(float(held.norm()))
    assert (found.min, found.max, found.stored) == (float(held.min()), float(held.max()), held.numel())
    assert (found.mean, found.values) == (None, None)


def test_a_name_without_a_parameter_is_refused() -> None:
    with pytest.raises(Refused, match='no parameter "q"'):
        open_session("linear").inspect("q")
