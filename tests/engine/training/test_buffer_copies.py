"""Copies of a model's buffers before each forward: of what the buffers hold by then, in the same memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from autograd_tui.engine.training.forward_snapshot import BufferCopies


def buffers() -> dict[str, Tensor]:
    return {"mean": torch.zeros(3), "var": torch.ones(3), "count": torch.tensor(0)}


def holds(copies: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    same_values = all(torch.equal(copies[name], each) for name, each in expected.items())
    return list(copies) == list(expected) and same_values and all(copies[name] is not expected[name] for name in copies)


def test_each_copy_is_of_what_a_buffer_holds_by_then_in_the_same_memory() -> None:
    copies, model = BufferCopies(), buffers()
    first = copies.update(model)
    memory = {name: each.data_ptr() for name, each in first.items()}
    for _ in range(3):
        model["mean"] += 1
        model["count"] += 1
        again = copies.update(model)
        assert holds(again, model)
        assert {name: each.data_ptr() for name, each in again.items()} == memory


def test_a_buffer_that_gets_other_memory_shape_or_dtype_is_copied_from_there() -> None:
    copies, model = BufferCopies(), buffers()
    copies.update(model)
    for new in (torch.full((3,), 7.0), torch.zeros(5), torch.zeros(5, dtype=torch.float64)):
        model["mean"].data = new
        assert holds(copies.update(model), model)
        assert copies.update(model)["mean"].dtype == new.dtype


def test_buffers_that_trade_names_are_copied_under_their_new_ones() -> None:
    copies, model = BufferCopies(), buffers()
    copies.update(model)
    model = {"var": model["mean"], "mean": model["var"], "count": model["count"]}
    assert holds(copies.update(model), model)
    del model["count"]
    assert holds(copies.update(model), model)


@pytest.mark.parametrize("layout", ["sparse", "meta"])
def test_a_buffer_that_cannot_be_copied_in_place_is_copied_anew_each_time(layout: str) -> None:
    copies, model = BufferCopies(), buffers()
    model["odd"] = torch.eye(3).to_sparse() if layout == "sparse" else torch.zeros(3, device="meta")
    first = copies.update(model)["odd"]
    if layout == "sparse":
        model["odd"].mul_(2)
        assert torch.equal(copies.update(model)["odd"].to_dense(), 2 * torch.eye(3))
    assert copies.update(model)["odd"] is not first


def test_a_buffer_with_a_graph_is_copied_without_it() -> None:
    copies, leaf = BufferCopies(), torch.ones(3, requires_grad=True)
    for _ in range(2):
        copy = copies.update({"carried": leaf * 2})["carried"]
        assert torch.equal(copy, torch.full((3,), 2.0))
        assert copy.grad_fn is None
