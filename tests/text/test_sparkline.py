from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.core.tensor_stats import Grads
from autograd_tui.engine.training.stats_reader import StatsReader, TensorGroup
from autograd_tui.text.sparkline import CELLS, LEVELS, TREND_CELLS, GradientSparklines, sparkline, trend
from float_tensors import float_tensors


def spread(*tensors: torch.Tensor, places: tuple[int, ...] | None = None) -> str:
    table = StatsReader().read({"it": TensorGroup({str(place): each for place, each in enumerate(tensors)})})["it"]
    every = tuple(range(len(tensors)))
    return GradientSparklines(Grads(table, (1,) * len(tensors), (False,) * len(tensors))).of(places or every)


def test_the_tallest_column_is_full_and_a_blank_is_none_at_all() -> None:
    assert sparkline([0, 1, 4, 8]) == " ▁▄█"


@pytest.mark.parametrize("size", [5, 16, 17, 1024])
def test_one_gradient_is_drawn_as_torch_counts_it(size: int) -> None:
    values = torch.randn(size, generator=torch.Generator().manual_seed(size))
    assert spread(values) == sparkline(torch.histc(values, bins=CELLS).tolist())


def test_a_large_gradient_is_estimated_and_says_so() -> None:
    assert spread(torch.randn(5000)).startswith("~")


def test_few_values_of_several_gradients_are_counted_over_their_common_range() -> None:
    assert spread(torch.tensor([0.0, 1.0]), torch.tensor([8.0, 8.0])) == "▄▄     █"


def test_several_histograms_are_joined_by_estimate() -> None:
    low, high = torch.linspace(0, 1, 100), torch.linspace(3, 4, 300)
    assert spread(low, high) == "~▃▃    ██"


def test_a_larger_tensor_weighs_more_though_its_sample_does_not() -> None:
    assert spread(torch.linspace(0, 1, 100), torch.linspace(3, 4, 30_000)) == "~▁▁    ██"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_said(value: float) -> None:
    assert spread(torch.tensor([1.0, 2.0, value])) == "not finite"


@pytest.mark.parametrize("values", [[0.0] * 20, [3.0], [1e308, -1e308]])
def test_what_has_no_range_is_left_out(values: list[float]) -> None:
    assert spread(torch.tensor(values, dtype=torch.float64)) == ""


@given(st.lists(float_tensors(), min_size=1, max_size=4))
def test_anything_is_drawn_in_few_characters(tensors: list[torch.Tensor]) -> None:
    drawn = spread(*tensors)
    assert len(drawn) <= CELLS + 2


def test_a_trend_is_on_a_log_scale_with_the_newest_value_last() -> None:
    assert trend([10.0 ** -(place / 4) for place in range(8)]) == "▇▆▅▄▄▃▂▁"
    assert trend([1.0, 10.0, 1.0, 10.0]) == "▁▇▁▇"
    assert trend([0.0, 1.0, 1.0, math.nan]) == "▁▄▄!"


def test_a_trend_of_what_hardly_changes_is_level() -> None:
    assert len(set(trend([1.0, 1.01, 0.99, 1.0]))) == 1


def test_a_trend_needs_four_values_and_thins_many() -> None:
    assert trend([1.0, 2.0, 3.0]) == ""
    assert len(trend([float(each) for each in range(1, 31)])) == TREND_CELLS


@given(st.lists(st.floats(), max_size=40))
def test_any_values_have_a_trend(values: list[float]) -> None:
    drawn = trend(values)
    assert len(drawn) == (min(len(values), TREND_CELLS) if len(values) >= 4 else 0)
    assert set(drawn) <= {*LEVELS[1:], "!"}
