from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.text.numbers import linear_ticks, log_ticks, tick_label
from suite_options import examples


def test_ticks_are_round() -> None:
    assert linear_ticks(0.31, 0.97, 4) == [0.4, 0.6, 0.8]
    assert linear_ticks(1, 27, 6) == [5, 10, 15, 20, 25]
    assert linear_ticks(-3.0, 4.0, 4) == [-2.0, 0.0, 2.0, 4.0]


def test_a_wide_log_scale_has_powers_of_ten_and_a_narrow_one_the_steps_between() -> None:
    assert log_ticks(-4.0, 0.5, 3) == [1e-4, 1e-2, 1.0]
    assert log_ticks(0.0, 0.9, 4) == [1.0, 2.0, 5.0]
    assert log_ticks(-0.5, 0.6, 14) == [0.5, 1.0, 2.0, 3.0]
    assert log_ticks(math.log10(3.1), math.log10(3.7), 3) == [3.2, 3.4, 3.6]


@pytest.mark.parametrize(("value", "text"), [(0.3, "0.3"), (2_000_000.0, "2e+6"), (1e-10, "1e-10"), (1500.0, "1500")])
def test_a_label_is_as_short_as_says_it(value: float, text: str) -> None:
    assert tick_label(value, 8) == text


@examples(200)
@given(st.floats(allow_nan=False), st.floats(allow_nan=False), st.integers(0, 20))
def test_ticks_lie_in_their_range_ascend_and_are_no_more_than_wanted(low: float, high: float, count: int) -> None:
    ticks = linear_ticks(low, high, count)
    assert len(ticks) <= count
    assert ticks == sorted(set(ticks))
    slack = (high - low) * 1e-6
    assert all(low - slack <= tick <= high + slack for tick in ticks)


@examples(200)
@given(st.floats(-300, 300), st.floats(0, 300), st.integers(1, 20))
def test_ticks_of_a_log_scale_lie_in_their_range(low: float, extent: float, count: int) -> None:
    ticks = log_ticks(low, min(low + extent, 308.0), count)
    assert ticks == sorted(set(ticks))
    assert all(low - 1e-6 <= math.log10(tick) <= low + extent + 1e-6 for tick in ticks)
