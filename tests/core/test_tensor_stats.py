from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.core.tensor_stats import Grads, GradStats, StatsTable
from autograd_tui.engine.training.stats_reader import StatsReader, TensorGroup


def table(*values: list[float]) -> StatsTable:
    tensors = {f"p{place}": torch.tensor(each, dtype=torch.float64) for place, each in enumerate(values)}
    return StatsReader().read({"group": TensorGroup(tensors)})["group"]


@given(st.lists(st.floats(), min_size=1, max_size=16))
def test_tables_of_the_same_bits_are_equal_nan_and_all(values: list[float]) -> None:
    assert table(values) == table(values)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=16), st.data())
def test_one_bit_makes_tables_unequal(values: list[float], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(values) - 1))
    other = values.copy()
    other[place] = math.nextafter(values[place], math.inf)
    assert table(values) != table(other)


def test_zero_and_minus_zero_make_tables_unequal() -> None:
    assert table([0.0]) != table([-0.0])


def test_names_belong_to_equality() -> None:
    one = StatsReader().read({"group": TensorGroup({"a": torch.ones(1)})})["group"]
    other = StatsReader().read({"group": TensorGroup({"b": torch.ones(1)})})["group"]
    assert one != other


def test_a_table_equals_nothing_but_a_table() -> None:
    assert table([1.0]) != [1.0]


def test_a_table_is_a_sequence_of_rows() -> None:
    rows = table([1.0], [2.0], [3.0])
    assert [row.name for row in rows] == ["p0", "p1", "p2"]
    assert rows[-1].values == (3.0,)
    assert [row.name for row in rows[1:]] == ["p1", "p2"]


def test_a_row_beyond_the_end_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        table([1.0])[1]


def test_a_row_is_found_by_name() -> None:
    row = table([1.0], [2.0]).named("p1")
    assert row is not None
    assert row.values == (2.0,)


def test_a_name_that_is_not_there_has_no_row() -> None:
    assert table([1.0]).named("q") is None


def test_the_norm_of_a_table_is_that_of_all_its_values_together() -> None:
    assert table([3.0], [0.0, 4.0]).norm() == pytest.approx(5.0)


@pytest.mark.parametrize(("size", "whole"), [(16, True), (17, False)])
def test_a_table_is_whole_while_every_value_is_in_it(size: int, whole: bool) -> None:
    assert table([1.0], [1.0] * size).whole is whole


def test_a_row_with_a_name_costs_184_bytes() -> None:
    numbers = table([1.0], [2.0] * 5000).numbers
    assert len(numbers) * numbers.itemsize == 2 * 184


def partly_measured() -> StatsTable:
    tensors = {"a": torch.ones(4), "flags": torch.ones(3, dtype=torch.bool), "nothing": torch.ones(0)}
    return StatsReader().read({"group": TensorGroup(tensors)})["group"]


def test_a_norm_that_would_leave_a_tensor_out_is_none() -> None:
    assert partly_measured().layout.left_out() == {1}
    assert (partly_measured().norm(), partly_measured().least_norm()) == (None, 2.0)


def test_where_no_tensor_has_a_norm_they_have_none_together() -> None:
    flags = StatsReader().read({"group": TensorGroup({"flags": torch.ones(3, dtype=torch.bool)})})["group"]
    assert (flags.norm(), flags.least_norm()) == (None, None)


def grads(*, used: bool = False) -> Grads:
    return Grads(table([3.0], [4.0]), (1, 0, 2), (used, False, used))


def test_a_gradient_that_is_none_is_none() -> None:
    assert [row and row.values for row in grads()] == [(3.0,), None, (4.0,)]


def test_a_gradient_says_how_many_backwards_it_sums() -> None:
    last = grads()[-1]
    assert isinstance(last, GradStats)
    assert (last.backwards, last.used) == (2, False)


def test_gradients_one_by_one_are_those_in_a_row() -> None:
    held = grads()
    assert list(held) == [held[place] for place in range(3)]


def test_gradients_can_be_sliced() -> None:
    assert [row and row.backwards for row in grads()[1:]] == [None, 2]


@pytest.mark.parametrize("used", [True, False])
def test_gradients_are_fresh_until_all_are_used(used: bool) -> None:
    assert grads(used=used).state == ("used" if used else "fresh")


def test_no_gradients_have_no_norm() -> None:
    none = Grads(table(), (0, 0), (False, False))
    assert (none.state, none.norm()) == ("none", None)


def test_gradients_have_the_norm_of_all_together() -> None:
    assert grads().norm() == pytest.approx(5.0)
