"""Dropouts of an accelerator, which draw other numbers for another dtype: a check in float64 has the run's mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autograd_tui.core.errors import Refused
from autograd_tui.engine.gradcheck import float64_forward
from autograd_tui.engine.gradcheck.float64_forward import Float64Mode

X = torch.rand(6, 8, dtype=torch.float64) + 1
LSTM = nn.LSTM(8, 4, num_layers=2, dropout=0.5).double()


def mode(run_dtype: torch.dtype | None = torch.float32) -> Float64Mode:
    """Return the mode as it is on an accelerator."""
    made = Float64Mode(torch.device("cpu"), (), run_dtype)
    made.draws_by_dtype = True
    return made


def dropout_by_dtype(x: Tensor, p: float, train: bool) -> Tensor:
    """Keep what a kernel keeps whose order of random numbers depends on the dtype."""
    order = torch.rand(x.numel(), dtype=torch.float32).roll(x.element_size())
    return x * (order.reshape(x.shape) >= p) / (1 - p)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_dropout_keeps_in_float64_what_it_keeps_in_the_runs_dtype(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(float64_forward, "_DROPOUTS", (dropout_by_dtype,))
    torch.manual_seed(0)
    kept = dropout_by_dtype(X.to(dtype), 0.25, True) != 0
    torch.manual_seed(0)
    assert not torch.equal(dropout_by_dtype(X, 0.25, True) != 0, kept)
    torch.manual_seed(0)
    result = mode(dtype).__torch_function__(dropout_by_dtype, (), (X, 0.25, True))
    assert torch.allclose(result, X * kept / 0.75, rtol=1e-14)


@pytest.mark.parametrize(
    "drop",
    [
        lambda x: functional.dropout(x, 0.3),
        lambda x: functional.dropout(x.clone(), 0.3, inplace=True),
        lambda x: functional.dropout1d(x, 0.3),
        lambda x: functional.dropout(x, 0.3, training=False),
        lambda x: functional.dropout(x, 0.0),
        lambda x: torch.empty_like(x).bernoulli_(0.3),
    ],
)
def test_a_dropout_gives_what_it_gives_in_float32_and_has_its_gradient(drop: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    wanted = drop(X.float())
    x = X.clone().requires_grad_()
    torch.manual_seed(0)
    with mode():
        result = drop(x)
        if result.requires_grad:
            (gradient,) = torch.autograd.grad(result.sum(), x)
            assert torch.allclose(gradient * X, result.detach(), rtol=1e-12)
    assert result.dtype is torch.float64
    assert torch.allclose(result.float(), wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("drop", "name"),
    [
        (lambda x: functional.alpha_dropout(x, 0.3, training=True), "alpha_dropout"),
        (lambda x: functional.rrelu(x, training=True), "rrelu"),
        (
            lambda x: functional.scaled_dot_product_attention(x[None], x[None], x[None], dropout_p=0.1),
            "scaled_dot_product_attention",
        ),
        (lambda x: LSTM.train()(x), "lstm"),
    ],
)
def test_what_drops_values_in_a_kernel_of_its_own_is_refused(drop: Callable[[Tensor], Any], name: str) -> None:
    with mode(), pytest.raises(Refused, match=f"^{name} draws other numbers in float64"):
        drop(X)


def test_what_drops_nothing_is_not_refused() -> None:
    with mode():
        functional.alpha_dropout(X, 0.3)
        functional.rrelu(X)
        functional.scaled_dot_product_attention(X[None], X[None], X[None])
        LSTM.eval()(X)


def test_a_dropout_of_a_run_with_several_dtypes_is_refused() -> None:
    with mode(None), pytest.raises(Refused, match="the run may have had several"):
        functional.dropout(X, 0.3)
    with torch.autocast("cpu", dtype=torch.bfloat16), mode(), pytest.raises(Refused, match="may have had several"):
        functional.dropout(X, 0.3)
