"""Frame 0 shows the first batch where each iteration takes the same tensors; nothing of the run moves for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from autograd_tui import from_loader
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.training.frame_reader import held_batch
from autograd_tui.engine.training.scenario import Parts, Scenario
from plain_loop import PlainLine, copied, differing, mse
from session_internals import tensors

X, Y = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([5.0, 9.0, 13.0])


def parts(batch: Callable[[int], Any]) -> Parts:
    return Parts(model=PlainLine(), batch=batch, loss=mse, optimizer="sgd,lr=0.1")


def from_closure() -> Callable[[int], Any]:
    x, y = X, Y
    return lambda i: (x, y)


def from_defaults(i: int, x: Tensor = X, y: Tensor = Y) -> tuple[Tensor, Tensor]:
    return x, y


@pytest.mark.parametrize("batch", [lambda i: (X, Y), from_closure(), from_defaults])
def test_tensors_that_a_function_only_returns_are_known_at_frame_0(batch: Callable[[int], Any]) -> None:
    session = open_session(Scenario("held", lambda options: parts(batch)))
    first, forward = session.frame, session.run("f")
    assert first.inputs is not None
    assert first.inputs.values == (1.0, 2.0, 3.0)
    assert (first.inputs, first.targets) == (forward.inputs, forward.targets)
    assert (first.prediction, first.loss, first.loss_params) == (None, None, None)


def test_no_other_function_is_called() -> None:
    calls: list[int] = []

    def counted(i: int) -> tuple[Tensor, Tensor]:
        calls.append(i)
        return X, Y

    def generated(i: int) -> Iterator[Tensor]:
        yield X

    class Held:
        def __call__(self, i: int) -> tuple[Tensor, Tensor]:
            return X, Y

    loader = from_loader(DataLoader(TensorDataset(X, Y), batch_size=3, shuffle=True))
    before = torch.get_rng_state()
    others: list[Callable[[int], Any]] = [counted, generated, Held(), loader, lambda i: (X, torch.rand(3))]
    assert [held_batch(parts(each)) for each in others] == [None] * 5
    assert calls == []
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_no_pair_of_plain_tensors_is_left_to_the_forward() -> None:
    odd = [lambda i: X, lambda i: (X, 3.0), lambda i: (X, nn.Parameter(Y)), lambda i: (X, not_there), lambda: (X, Y)]  # type: ignore[name-defined]  # noqa: F821
    assert [held_batch(parts(each)) for each in odd] == [None] * 5  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["linear", "spiral", "lstm", "transformer"])
def test_fixed_data_are_known_at_frame_0_and_fresh_ones_are_not(name: str) -> None:
    fixed, fresh = (open_session(name, data=mode).frame for mode in ("fixed", "fresh"))
    assert fixed.inputs is not None
    assert fixed.targets is not None
    assert (fresh.inputs, fresh.targets) == (None, None)


def test_frame_0_is_the_same_after_going_back_to_it() -> None:
    session = open_session("linear")
    first = session.frame
    session.run("f")
    session.run("b")
    assert session.rewind(0).same(first)
    assert session.run("f").same(open_session("linear").run("f"))


def test_reading_it_moves_no_bit_of_50_iterations() -> None:
    pairs = [(X, Y)]
    known = open_session(Scenario("held", lambda options: parts(lambda i: (X, Y))))
    unknown = open_session(Scenario("held", lambda options: parts(lambda i: pairs[0])))
    assert (known.frame.inputs is None, unknown.frame.inputs is None) == (False, True)
    for session in (known, unknown):
        list(session.run_all("fbsz*50"))
    assert not differing(copied(tensors(known)), copied(tensors(unknown)))
